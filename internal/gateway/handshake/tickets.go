package handshake

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// window is how long a key seals tickets. It opens them for another one, and already for the one before, since clocks
// differ.
const window = 12 * time.Hour

// tickets seals what sessions are resumed from.
type tickets struct {
	secrets func() [][]byte
	now     func() time.Time
	own     [][]byte // when there are no secrets

	mu   sync.Mutex // for making keys
	keys atomic.Pointer[ticketKeys]
}

// ticketKeys are the keys for one window.
type ticketKeys struct {
	window  int64
	secrets [][]byte    // that they were derived from
	config  *tls.Config // holds the keys, and nothing else
}

// good tells whether these are the keys of a window and of secrets.
func (k *ticketKeys) good(window int64, secrets [][]byte) bool {
	return k != nil && k.window == window && slices.EqualFunc(k.secrets, secrets, bytes.Equal)
}

func newTickets(secrets func() [][]byte, now func() time.Time) *tickets {
	t := &tickets{secrets: secrets, now: now, own: [][]byte{make([]byte, 32)}}
	_, _ = rand.Read(t.own[0]) // it never fails
	if t.secrets == nil {
		t.secrets = func() [][]byte { return nil }
	}
	return t
}

// current returns the keys of now. It looks at the secrets each time: a gateway that has a new one must at once open what
// another gateway of the group seals with it.
func (t *tickets) current() (*tls.Config, error) {
	at := t.now().Unix() / int64(window/time.Second)
	secrets := t.secrets()
	if len(secrets) == 0 {
		secrets = t.own
	}
	if k := t.keys.Load(); k.good(at, secrets) {
		return k.config, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keys.Load(); k.good(at, secrets) {
		return k.config, nil
	}
	var all [][32]byte
	for _, secret := range secrets {
		for _, w := range []int64{at, at - 1, at + 1} {
			key, err := ticketKey(secret, w)
			if err != nil {
				return nil, err
			}
			all = append(all, key)
		}
	}
	k := &ticketKeys{window: at, secrets: secrets, config: new(tls.Config)}
	k.config.SetSessionTicketKeys(all)
	t.keys.Store(k)
	return k.config, nil
}

// ticketKey derives the key of a window from a secret (RFC 5869).
func ticketKey(secret []byte, window int64) (key [32]byte, err error) {
	info := binary.BigEndian.AppendUint64([]byte("hansa session tickets 1 "), uint64(window))
	derived, err := hkdf.Key(sha256.New, secret, nil, string(info), len(key))
	copy(key[:], derived)
	return key, err
}

// mark is what the part of a session that belongs to the gateway begins with; sessions may have others.
const mark = "hansa1 "

// bind names what a session was made under: the rule and the hostname.
func bind(digest [16]byte, serverName string) []byte {
	sum := sha256.Sum256(slices.Concat(digest[:], []byte(normal(serverName))))
	return append([]byte(mark), sum[:16]...)
}

func (t *tickets) wrap(digest [16]byte) func(tls.ConnectionState, *tls.SessionState) ([]byte, error) {
	return func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		config, err := t.current()
		if err != nil {
			return nil, err
		}
		ss.Extra = slices.DeleteFunc(ss.Extra, func(e []byte) bool { return strings.HasPrefix(string(e), mark) })
		ss.Extra = append(ss.Extra, bind(digest, cs.ServerName))
		return config.EncryptTicket(cs, ss)
	}
}

func (t *tickets) unwrap(digest [16]byte) func([]byte, tls.ConnectionState) (*tls.SessionState, error) {
	return func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		config, err := t.current()
		if err != nil {
			return nil, err
		}
		ss, err := config.DecryptTicket(ticket, cs)
		if ss == nil || err != nil {
			return nil, err
		}
		want := bind(digest, cs.ServerName)
		if !slices.ContainsFunc(ss.Extra, func(e []byte) bool { return bytes.Equal(e, want) }) {
			return nil, nil
		}
		return ss, nil
	}
}
