// Package httpdate formats the Date field of responses (RFC 9110, section 6.6.1) once a second, however many there are.
package httpdate

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Clock is ready for use as it is, by any number of goroutines.
type Clock struct{ last atomic.Pointer[stamp] }

type stamp struct {
	second int64
	text   string
}

// At returns the value of the field at the time now. It allocates once a second.
func (c *Clock) At(now time.Time) string {
	second := now.Unix()
	if s := c.last.Load(); s != nil && s.second == second {
		return s.text
	}
	s := &stamp{second, now.UTC().Format(http.TimeFormat)}
	c.last.Store(s)
	return s.text
}
