package gateway

import (
	"sync"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
)

// longBody is the length of a body from which on an exchange counts as a stream. One whose length only its end will
// tell always does.
const longBody = 1 << 20

// isStream tells whether a body may take its time.
func isStream(body exchange.Source) bool {
	if body == nil {
		return false
	}
	n := body.Len()
	return n < 0 || n > longBody
}

const streamShards = 32

// streams knows the exchanges that may last, so that they can be ended when what they run on is taken away: their API
// is removed, or their credential is revoked. Exchanges that are soon over are not worth the trouble.
type streams struct {
	shards [streamShards]struct {
		mu   sync.Mutex
		live map[*exchange.Exchange]*life // guarded by mu
		_    [40]byte                     // keeps neighbours' locks off one cache line
	}
}

func newStreams() *streams {
	s := new(streams)
	for i := range s.shards {
		s.shards[i].live = make(map[*exchange.Exchange]*life)
	}
	return s
}

// add registers an exchange. One whose ground is gone already is cancelled: whoever takes something away marks it
// first and looks here then, so one of the two sides sees the other.
func (s *streams) add(x *exchange.Exchange, l *life) {
	sh := &s.shards[x.ID[31]%streamShards]
	sh.mu.Lock()
	sh.live[x] = l
	sh.mu.Unlock()
	if groundless(x, l) {
		x.Cancel()
	}
}

// remove must be called before the exchange is used for another request.
func (s *streams) remove(x *exchange.Exchange) {
	sh := &s.shards[x.ID[31]%streamShards]
	sh.mu.Lock()
	delete(sh.live, x)
	sh.mu.Unlock()
}

// sweep cancels every stream whose ground is gone.
func (s *streams) sweep() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for x, l := range sh.live {
			if groundless(x, l) {
				x.Cancel()
			}
		}
		sh.mu.Unlock()
	}
}

// groundless tells whether the API of a stream is removed or its credential dead.
func groundless(x *exchange.Exchange, l *life) bool {
	if l.removed.Load() {
		return true
	}
	r, ok := x.Consumer.Record.(*credential.Record)
	return ok && r.Dead()
}

// count is the number of streams.
func (s *streams) count() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.live)
		sh.mu.Unlock()
	}
	return n
}
