package router

import (
	"bytes"
	"strings"
)

// Hosts finds by hostname. An exact name wins over "*.suffix", a longer suffix over a shorter one, and "*" takes
// what is left. "*.suffix" takes every name with at least one label before the suffix, but not the suffix itself.
type Hosts[V any] struct {
	exact  map[string]V
	suffix map[string]V // without "*."
	any    V
	hasAny bool
}

// NewHosts makes a table of hostnames as they stand in snapshot.Hosts.
func NewHosts[V any](names map[string]V) *Hosts[V] {
	h := &Hosts[V]{exact: make(map[string]V), suffix: make(map[string]V)}
	for name, v := range names {
		if name == "*" {
			h.any, h.hasAny = v, true
		} else if s, ok := strings.CutPrefix(name, "*."); ok {
			h.suffix[s] = v
		} else {
			h.exact[name] = v
		}
	}
	return h
}

// Match finds what the hostname leads to.
func (h *Hosts[V]) Match(host []byte) (V, bool) {
	if v, ok := h.exact[string(host)]; ok {
		return v, true
	}
	if len(h.suffix) > 0 {
		for rest := host; ; {
			i := bytes.IndexByte(rest, '.')
			if i < 0 {
				break
			}
			if rest = rest[i+1:]; i == 0 && len(rest)+1 == len(host) {
				continue // an empty first label is none
			}
			if v, ok := h.suffix[string(rest)]; ok {
				return v, true
			}
		}
	}
	return h.any, h.hasAny
}
