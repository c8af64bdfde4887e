package serve

import (
	"time"

	"hansa.dev/hansa/internal/feed/wire"
)

// window remembers which keys changed from version to version of a view. The changes themselves are looked up in the
// newest content when they are sent, so that ten changes of one entry cost as much as one.
type window struct {
	bounds  Window
	steps   []step
	changes int
	bytes   int
}

// step is what changed from one version to the next.
type step struct {
	from wire.Position
	keys []string
	at   time.Time
}

// stepBytes is what a step and a key take besides the text of the key.
const (
	stepBytes = 80
	keyBytes  = 16
)

func (s *step) bytes() int {
	n := stepBytes
	for _, k := range s.keys {
		n += len(k) + keyBytes
	}
	return n
}

// add appends a step and drops what is out of bounds.
func (w *window) add(from wire.Position, keys []string, now time.Time) {
	s := step{from: from, keys: keys, at: now}
	w.steps = append(w.steps, s)
	w.changes += max(1, len(keys)) // a step without changes takes room as well
	w.bytes += s.bytes()
	drop := 0
	for drop < len(w.steps) {
		s := &w.steps[drop]
		if w.changes <= w.bounds.Changes && w.bytes <= w.bounds.Bytes && now.Sub(s.at) <= w.bounds.Age {
			break
		}
		w.changes -= max(1, len(s.keys))
		w.bytes -= s.bytes()
		drop++
	}
	clear(w.steps[:drop]) // free the keys; append moves the rest when the room is used up
	w.steps = w.steps[drop:]
}

func (w *window) clear() { w.steps, w.changes, w.bytes = nil, 0, 0 }

// since returns all keys that changed since a version, each once; ok is false if the window does not hold it.
func (w *window) since(from wire.Position) (keys []string, ok bool) {
	at := -1
	for i := len(w.steps) - 1; i >= 0; i-- { // those who ask are mostly close behind
		if w.steps[i].from == from {
			at = i
			break
		}
	}
	if at < 0 {
		return nil, false
	}
	if at == len(w.steps)-1 {
		return w.steps[at].keys, true
	}
	seen := make(map[string]bool)
	for _, s := range w.steps[at:] {
		for _, k := range s.keys {
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	return keys, true
}
