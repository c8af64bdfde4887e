package upstream

import (
	"math/rand/v2"
	"sync/atomic"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// Part is one of the backends of a split.
type Part struct {
	Name    string
	Backend exchange.Backend
	Weight  int
}

// Split spreads requests over backends by weight.
type Split struct {
	parts  []Part
	hashes []uint64 // of their names
	total  uint64
	key    *keyOf // nil: each request on its own
	random func() uint64
}

// NewSplit returns a Split. At least one weight is above 0. With stickBy, requests that are equal in that property go to
// the same backend, and a change of weights moves no more of them than it must. random may be nil.
func NewSplit(parts []Part, stickBy *snapshot.HashBy, random func() uint64) *Split {
	s := &Split{parts: parts, random: random}
	if s.random == nil {
		s.random = rand.Uint64
	}
	if stickBy != nil {
		s.key = newKeyOf(stickBy)
	}
	for _, p := range parts {
		s.hashes = append(s.hashes, hashOf(p.Name))
		s.total += uint64(p.Weight)
	}
	return s
}

// Call implements exchange.Backend.
func (s *Split) Call(x *exchange.Exchange, d exchange.Down) (exchange.Source, exchange.Verdict) {
	return s.pick(x).Backend.Call(x, d)
}

func (s *Split) pick(x *exchange.Exchange) *Part {
	if s.key != nil {
		if key, ok := s.key.of(x); ok {
			return s.stuck(key)
		}
	}
	n := s.random() % max(s.total, 1)
	for i := range s.parts {
		w := uint64(s.parts[i].Weight)
		if n < w {
			return &s.parts[i]
		}
		n -= w
	}
	return &s.parts[0]
}

func (s *Split) stuck(key uint64) *Part {
	best, top := 0, -1.
	for i := range s.parts {
		if w := s.parts[i].Weight; w > 0 {
			if bid := score(key, s.hashes[i], float64(w)); bid > top {
				best, top = i, bid
			}
		}
	}
	return &s.parts[best]
}

// The bounds of mirrors.
const (
	maxMirrored = 256     // copies under way to one backend
	maxRead     = 1 << 20 // of a response that nobody sees
)

// mirrorCounts is what became of copies for a backend.
type mirrorCounts struct {
	underway           atomic.Int64
	sent, busy, noBody atomic.Uint64
}

// mirror sends copies of requests to a second backend.
type mirror struct {
	exchange.Backend
	to      *Backend
	percent uint64
}

// NewMirror returns a backend that is main and also sends copies of so many percent of the requests to another, which
// must be one of a Plan; otherwise it is main. Copies that cannot be sent at once are dropped and counted.
func NewMirror(main, to exchange.Backend, percent int) exchange.Backend {
	if b, ok := to.(*Backend); ok {
		return &mirror{Backend: main, to: b, percent: uint64(percent)}
	}
	return main
}

// Call implements exchange.Backend.
func (m *mirror) Call(x *exchange.Exchange, d exchange.Down) (exchange.Source, exchange.Verdict) {
	if m.to.registry.opts.Random()%100 < m.percent && x.Upgrade == nil {
		m.copy(x)
	}
	return m.Backend.Call(x, d)
}

// copy sends a copy, if it can.
func (m *mirror) copy(x *exchange.Exchange) {
	r, counts := m.to.registry, &m.to.mirror
	var body []byte
	if x.Body != nil {
		if n := x.Body.Len(); n < 0 || n > takeBelow || x.Req.Has(exchange.IDExpect) || x.Route.MaxRequestBytes > 0 && n > x.Route.MaxRequestBytes {
			counts.noBody.Add(1)
			return
		}
	}
	if counts.underway.Add(1) > maxMirrored {
		counts.underway.Add(-1)
		counts.busy.Add(1)
		return
	}
	s := r.shadow()
	hasBody := x.Body != nil
	if hasBody {
		// The body is read here instead of by the backend, which gets it from memory. What goes wrong it learns as if it had
		// read itself.
		var err error
		body, err = exchange.ReadAll(make([]byte, 0, x.Body.Len()), x.Body, takeBelow)
		if err != nil {
			x.Body = failed{x.Body, err}
			counts.underway.Add(-1)
			r.keepShadow(s)
			return
		}
		taken := new(exchange.Bytes)
		taken.Reset(body)
		x.Body = taken
	}
	s.copyOf(x, body, hasBody)
	counts.sent.Add(1)
	r.tasks.Go(func() {
		defer counts.underway.Add(-1)
		defer r.opts.Guard.Catch("a copy of a request", s.x.Abandon)
		src, v := m.to.Call(&s.x, &s.down)
		if v == exchange.Continue {
			for n := 0; n < maxRead; {
				c, err := src.Next()
				if n += len(c.Data); err != nil || c.End {
					break
				}
			}
			src.Close()
		}
		r.keepShadow(s)
	})
}

// failed is a body that has been found to be broken.
type failed struct {
	exchange.Source
	err error
}

// Next implements exchange.Source.
func (f failed) Next() (exchange.Chunk, error) { return exchange.Chunk{}, f.err }
