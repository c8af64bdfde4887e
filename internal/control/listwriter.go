package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
)

// listWriter writes a v1.List item by item, so that a page is held in memory only once, as JSON.
type listWriter struct {
	q       *request
	version store.Version
	buf     bytes.Buffer
	count   int
	bytes   int
	last    string // name of the last item
}

func (w *listWriter) add(o *v1.Object) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.Key(), err)
	}
	if w.count > 0 {
		w.buf.WriteByte(',')
	}
	w.buf.Write(b)
	w.count++
	w.bytes += len(b)
	w.last = o.Metadata.Name
	return nil
}

// end sends the page.
func (w *listWriter) end(next string) error {
	h := w.q.w.Header()
	h.Set("Content-Type", "application/json")
	w.q.w.WriteHeader(http.StatusOK)
	fmt.Fprintf(w.q.w, `{"epoch":%d,"seq":%d,"items":[`, w.version.Epoch, w.version.Seq)
	_, _ = w.buf.WriteTo(w.q.w) // the caller may be gone; there is nobody left to tell
	tail := "]}\n"
	if next != "" {
		tail = `],"continue":"` + next + "\"}\n" // base64url needs no escape
	}
	_, _ = w.q.w.Write([]byte(tail))
	return nil
}
