// Package apikey is the policy apiKey: it finds out who asks, by an API key.
//
// The key stands in a header field or in a query parameter. What is looked up is its SHA-256; the value is compared
// with nothing and kept nowhere. The subscription behind the key must be active and its product must hold the API.
// The key is taken out of what the backend sees, unless it is to be forwarded.
package apikey

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/snapshot"
)

// maxKey is the length beyond which no key is looked at. Keys are made of 43 characters; imported ones are longer
// at times.
const maxKey = 4096

type step struct {
	credentials  policy.Credentials
	organization string
	api          string
	header       exchange.Name
	query        string // "" for none
	inHeader     bool
	forward      bool
	missing      string // the detail for whoever brings no key
	challenge    string // WWW-Authenticate of every 401 (RFC 9110, section 15.5.2)
}

// New makes the step; see api/v1's APIKeyPolicy.
func New(settings json.RawMessage, env *policy.Env) (exchange.Step, error) {
	s, err := policy.Read[v1.APIKeyPolicy](settings)
	if err != nil {
		return nil, err
	}
	if s.Header == "" && s.Query == "" {
		return nil, fmt.Errorf("neither header nor query says where the key is")
	}
	st := &step{
		credentials: env.Credentials, organization: env.Organization, api: env.API,
		query: s.Query, inHeader: s.Header != "", forward: s.Forward,
	}
	switch {
	case st.inHeader && s.Query != "":
		st.missing = fmt.Sprintf("send it in the header field %s or in the query parameter %s", s.Header, s.Query)
		st.challenge = fmt.Sprintf("ApiKey header=%q, query=%q", s.Header, s.Query)
	case st.inHeader:
		st.missing = fmt.Sprintf("send it in the header field %s", s.Header)
		st.challenge = fmt.Sprintf("ApiKey header=%q", s.Header)
	default:
		st.missing = fmt.Sprintf("send it in the query parameter %s", s.Query)
		st.challenge = fmt.Sprintf("ApiKey query=%q", s.Query)
	}
	if st.inHeader {
		if st.header, err = policy.ReadFieldName(s.Header); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// Run implements exchange.Step.
func (s *step) Run(x *exchange.Exchange) exchange.Verdict {
	var hash snapshot.CredentialHash
	switch s.find(x, &hash) {
	case absent:
		return s.unauthorized(x, exchange.KeyMissing, s.missing)
	case unreadable:
		return s.unauthorized(x, exchange.KeyInvalid, "")
	}
	r, ok := s.credentials.Lookup(hash)
	if !ok || r.ProductID.Value().Organization != s.organization {
		return s.unauthorized(x, exchange.KeyInvalid, "")
	}
	// Refusals of a known key are logged with its application, so that whoever runs the API sees whom it hits.
	x.Consumer = exchange.Consumer{LogMembers: r.LogMembers, Record: r}
	switch {
	case r.State == snapshot.StateRevoked:
		return x.Refuse(exchange.Revoked, "")
	case r.State != snapshot.StateActive:
		return x.Refuse(exchange.NotSubscribed, "the subscription is suspended")
	case r.Expired(x.Start.UnixNano()):
		return s.unauthorized(x, exchange.KeyExpired, "")
	}
	p := policy.ProductsOf(x)[r.ProductID]
	if p == nil || !p.Holds(s.api) {
		return x.Refuse(exchange.NotSubscribed, "the product of the subscription does not hold this API")
	}
	x.Slots[policy.SlotProduct].Ptr = p
	return exchange.Continue
}

// unauthorized refuses with 401 and says what would be accepted.
func (s *step) unauthorized(x *exchange.Exchange, code exchange.Code, detail string) exchange.Verdict {
	x.Own.SetString(exchange.IDWWWAuthenticate.Name(), s.challenge)
	return x.Refuse(code, detail)
}

var _ policy.Credentials = (*credential.Table)(nil)

type found uint8

const (
	absent found = iota
	unreadable
	present
)

// find looks for the key, hashes it and takes it out of the request. The header field goes before the query.
func (s *step) find(x *exchange.Exchange, hash *snapshot.CredentialHash) found {
	f := absent
	if s.inHeader {
		if key := x.Req.Get(s.header); len(key) > maxKey {
			f = unreadable
		} else if len(key) > 0 {
			*hash = snapshot.HashCredential(key)
			f = present
		}
		if !s.forward {
			x.Req.Del(s.header)
		}
	}
	if s.query != "" && x.HasQuery {
		if f == absent {
			f = s.findInQuery(x.Query, hash)
		}
		if !s.forward {
			s.removeFromQuery(x)
		}
	}
	return f
}

func (s *step) findInQuery(query []byte, hash *snapshot.CredentialHash) found {
	for len(query) > 0 {
		var pair []byte
		pair, query = nextPair(query)
		name, value, _ := bytes.Cut(pair, []byte{'='})
		if !sameName(name, s.query) || len(value) == 0 {
			continue
		}
		var buf [256]byte
		key, ok := decode(buf[:0], value)
		if !ok {
			return unreadable
		}
		*hash = snapshot.HashCredential(key)
		return present
	}
	return absent
}

// removeFromQuery takes every parameter of the name out, so that a second one does not reach the backend either.
func (s *step) removeFromQuery(x *exchange.Exchange) {
	query := []byte(x.Query)
	for at := 0; at < len(query); {
		before := query[:at]
		pair, after := nextPair(query[at:])
		if name, _, _ := bytes.Cut(pair, []byte{'='}); !sameName(name, s.query) {
			at = len(query) - len(after)
			continue
		}
		if at+len(pair) == len(query) {
			before = bytes.TrimSuffix(before, []byte{'&'})
		}
		query = x.Scratch(before, after)
		x.Query, x.HasQuery = exchange.View(query), len(query) > 0
	}
}

func nextPair(query []byte) (pair, rest []byte) {
	if before, after, ok := bytes.Cut(query, []byte{'&'}); ok {
		return before, after
	}
	return query, nil
}

// sameName compares a name as it stands in a query with the name of a parameter, which needs no encoding but may
// come encoded all the same.
func sameName(encoded []byte, name string) bool {
	for len(name) > 0 {
		c, size := decodeByte(encoded)
		if size == 0 || c != name[0] {
			return false
		}
		encoded, name = encoded[size:], name[1:]
	}
	return len(encoded) == 0
}

// decode appends the value of a parameter to dst. It returns false if the value is too long or not well encoded.
func decode(dst, value []byte) ([]byte, bool) {
	for len(value) > 0 {
		c, size := decodeByte(value)
		if size == 0 || len(dst) >= maxKey {
			return nil, false
		}
		dst = append(dst, c)
		value = value[size:]
	}
	return dst, true
}

// decodeByte decodes one byte of application/x-www-form-urlencoded, and returns how many bytes it took: 0 if there is
// none or it is malformed.
func decodeByte(s []byte) (byte, int) {
	switch {
	case len(s) == 0:
		return 0, 0
	case s[0] == '+':
		return ' ', 1
	case s[0] != '%':
		return s[0], 1
	case len(s) < 3:
		return 0, 0
	}
	hi, lo := unhex(s[1]), unhex(s[2])
	if hi < 0 || lo < 0 {
		return 0, 0
	}
	return byte(hi<<4 | lo), 3
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
