package upstream

import (
	"bytes"
	"math"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// keyOf finds the property of requests that consistent hashing and sticky splits go by.
type keyOf struct {
	header exchange.Name
	cookie string
	ip     bool
}

func newKeyOf(content *snapshot.HashBy) *keyOf {
	return &keyOf{header: exchange.NameOf(content.Header), cookie: content.Cookie, ip: content.ClientIP}
}

// of returns the hash of the property, and whether the request has it.
func (k *keyOf) of(x *exchange.Exchange) (uint64, bool) {
	var v []byte
	switch {
	case k.ip:
		v = x.ClientIP
	case k.cookie != "":
		v = cookie(&x.Req, k.cookie)
	default:
		v = x.Req.Get(k.header)
	}
	if len(v) == 0 {
		return 0, false
	}
	return hashOf(v), true
}

// cookie returns the value of the first cookie of that name (RFC 6265, section 4.2).
func cookie(h *exchange.Head, name string) []byte {
	for v := range h.Values(exchange.IDCookie.Name()) {
		rest := []byte(v)
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte(";"))
			n, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
			if ok && string(n) == name {
				return bytes.Trim(value, `"`)
			}
		}
	}
	return nil
}

// hashOf is FNV-1a of 64 bits, mixed. It is the same on every gateway, so that all of them agree on where a key belongs.
func hashOf[S ~string | ~[]byte](s S) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finaliser of SplitMix64: every bit of the result depends on every bit of v.
func mix(v uint64) uint64 {
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// score is what a candidate bids for a key: the highest bid gets it. Bids of different candidates have nothing to do with
// each other, so that one more or less moves no key but those that it gets or had (rendezvous hashing, Thaler and
// Ravishankar 1998), and the share of each is as its weight (Schindelhauer and Schomaker 2005).
func score(key, candidate uint64, weight float64) float64 {
	u := (float64(mix(key^candidate)>>11) + .5) / (1 << 53) // between 0 and 1, neither of them
	return -weight / math.Log(u)
}
