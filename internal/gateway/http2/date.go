package http2

import (
	"net/http"
	"sync/atomic"
	"time"
)

// dateCache formats the Date field once a second.
type dateCache struct{ last atomic.Pointer[dateText] }

type dateText struct {
	second int64
	text   string
}

func (d *dateCache) get(now time.Time) string {
	second := now.Unix()
	if t := d.last.Load(); t != nil && t.second == second {
		return t.text
	}
	t := &dateText{second, now.UTC().Format(http.TimeFormat)}
	d.last.Store(t)
	return t.text
}
