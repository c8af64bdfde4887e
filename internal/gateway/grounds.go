package gateway

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// Grounds are what streams run on: when it is taken away they end. A process that has handed over asks the one that serves
// what has become of the grounds of its last streams.
type Grounds struct {
	// APIs are the keys of their entries in the configuration.
	APIs []string `json:"apis,omitempty"`
	// Credentials are the hashes that they are looked up by, in hexadecimal.
	Credentials []string `json:"credentials,omitempty"`
}

// Empty tells whether there are none.
func (g Grounds) Empty() bool { return len(g.APIs)+len(g.Credentials) == 0 }

// each calls f for every stream until it has ended.
func (s *streams) each(f func(x *exchange.Exchange, l *life)) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for x, l := range sh.live {
			f(x, l)
		}
		sh.mu.Unlock()
	}
}

// Grounds returns those of the streams that are under way.
func (g *Gateway) Grounds() Grounds {
	apis, credentials := make(map[string]struct{}), make(map[string]struct{})
	g.core.streams.each(func(x *exchange.Exchange, l *life) {
		apis[l.entry] = struct{}{}
		if r, ok := x.Consumer.Record.(*credential.Record); ok {
			h := r.Hash()
			credentials[hex.EncodeToString(h[:])] = struct{}{}
		}
	})
	return Grounds{APIs: slices.Sorted(maps.Keys(apis)), Credentials: slices.Sorted(maps.Keys(credentials))}
}

// Gone returns those of all that this gateway does not have. A gateway without configuration cannot tell.
func (g *Gateway) Gone(all Grounds) (gone Grounds) {
	c := g.core
	if c.plan.Load() == nil || !c.creds.Loaded() {
		return Grounds{}
	}
	c.mu.Lock()
	for _, key := range all.APIs {
		if c.builder.parts.apis[key] == nil {
			gone.APIs = append(gone.APIs, key)
		}
	}
	c.mu.Unlock()
	for _, text := range all.Credentials {
		var hash snapshot.CredentialHash
		if len(text) != hex.EncodedLen(len(hash)) {
			continue
		}
		if _, err := hex.Decode(hash[:], []byte(text)); err != nil {
			continue
		}
		if r, ok := c.creds.Lookup(hash); !ok || r.State != snapshot.StateActive {
			gone.Credentials = append(gone.Credentials, text)
		}
	}
	return gone
}

// Revoke ends the streams that run on what is gone.
func (g *Gateway) Revoke(gone Grounds) {
	if gone.Empty() {
		return
	}
	g.core.streams.each(func(x *exchange.Exchange, l *life) {
		if slices.Contains(gone.APIs, l.entry) {
			l.removed.Store(true)
		}
		if r, ok := x.Consumer.Record.(*credential.Record); ok {
			if h := r.Hash(); slices.Contains(gone.Credentials, hex.EncodeToString(h[:])) {
				r.Kill()
			}
		}
	})
	g.core.streams.sweep()
}

// CountsSince returns what quotas have counted since the given moment, which is an earlier result or one of Freeze, and
// the moment now. more is nil if nothing was counted.
func (g *Gateway) CountsSince(before []byte) (more, now []byte, err error) {
	now = g.core.subjects.AppendTo(nil)
	more, err = quota.Since(before, now)
	return more, now, err
}

// AddCounts adds what another process has counted.
func (g *Gateway) AddCounts(more []byte) error {
	return g.core.subjects.Add(more, time.Now().UnixNano())
}
