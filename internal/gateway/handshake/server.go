package handshake

import (
	"bytes"
	"cmp"
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/certs"
)

// The protocols that are negotiated by ALPN.
const (
	HTTP1 = "http/1.1"
	HTTP2 = "h2"
	HTTP3 = "h3"
)

// Options configure a Server.
type Options struct {
	// Certificates are what clients are shown. Required.
	Certificates *certs.Store
	// Rule returns the rule for the name that a client asks for, in lower case, "" for none; nil if there is no rule.
	// Default: there are no rules.
	Rule func(serverName string) *Rule
	// Protocols are what is offered over TCP, the best first. Default: HTTP1.
	Protocols []string
	// MinVersion is the lowest version of TLS, unless a rule asks for a higher one. Default: TLS 1.2.
	MinVersion uint16
	// Ciphers are the cipher suites of TLS 1.2. Default: those that crypto/tls takes for safe. Which groups keys are
	// exchanged in is left to crypto/tls; X25519MLKEM768 is among them, which withstands quantum computers.
	Ciphers []uint16
	// AnyHost serves requests for hosts that the certificate of the connection is not for, as long as they need no
	// certificate of the client: for proxies in front that ask for one name and send others.
	AnyHost bool
	// Secrets are what the keys of session tickets are derived from, shared by the gateways of a group: the first seals,
	// all of them open. Secrets is called for every ticket; what it has returned must not be changed. Without any, tickets are
	// good for this process alone.
	Secrets func() [][]byte
	// Timeout bounds a handshake. Default: 10 s.
	Timeout time.Duration
	// MaxPending bounds the number of handshakes under way. Default: 4096.
	MaxPending int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Log receives what happens to handshakes. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
}

const (
	defaultTimeout    = 10 * time.Second
	defaultMaxPending = 4096
	// patience is how old a handshake must be to give way to a new one.
	patience = time.Second
)

func (o *Options) setDefaults() error {
	if o.Certificates == nil {
		return errors.New("handshake: Options need Certificates")
	}
	if o.Rule == nil {
		o.Rule = func(string) *Rule { return nil }
	}
	if o.Protocols == nil {
		o.Protocols = []string{HTTP1}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.MinVersion = cmp.Or(o.MinVersion, tls.VersionTLS12)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.MaxPending = cmp.Or(o.MaxPending, defaultMaxPending)
	return nil
}

// Server makes TLS of connections. Make it with New.
type Server struct {
	opts      Options
	tickets   *tickets
	metrics   *metrics
	base      *tls.Config // for who falls under no rule
	entry     *tls.Config // what handshakes begin with
	challenge *tls.Config

	mu      sync.Mutex
	pending list.List // guarded by mu; of *Conn, the oldest first
	closed  bool      // guarded by mu
}

// New returns a Server.
func New(o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, tickets: newTickets(o.Secrets, o.Now), metrics: newMetrics(o.Registerer)}
	s.base = s.config(nil)
	s.entry = s.Config(o.Protocols...)
	s.challenge = &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: o.Certificates.GetCertificate, NextProtos: []string{certs.ProtocolACME},
		SessionTicketsDisabled: true,
	}
	return s, nil
}

// Config returns a configuration that applies the rules, for the given protocols: for who makes handshakes in another way
// than over TCP.
func (s *Server) Config(protocols ...string) *tls.Config {
	c := s.config(nil)
	c.NextProtos = protocols
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == certs.ProtocolACME {
			return s.challenge, nil
		}
		rule := s.opts.Rule(normal(hello.ServerName))
		if t, ok := hello.Conn.(*transport); ok {
			t.rule = rule
		}
		return s.ruled(rule, protocols), nil
	}
	return c
}

// ruled returns the configuration of a rule.
func (s *Server) ruled(rule *Rule, protocols []string) *tls.Config {
	base := s.base
	if rule != nil {
		made := rule.config.Load()
		if made == nil || made.server != s {
			made = &ruleConfig{s, s.config(rule)}
			rule.config.Store(made)
		}
		base = made.config
	}
	if len(protocols) == len(s.opts.Protocols) && protocols[0] == s.opts.Protocols[0] {
		return base
	}
	other := base.Clone()
	other.NextProtos = protocols
	return other
}

func (s *Server) config(rule *Rule) *tls.Config {
	c := &tls.Config{
		MinVersion:     s.opts.MinVersion,
		CipherSuites:   s.opts.Ciphers,
		NextProtos:     s.opts.Protocols,
		GetCertificate: s.opts.Certificates.GetCertificate,
		Time:           s.opts.Now,
		// One record for each write: the gateway knows best what belongs together.
		DynamicRecordSizingDisabled: true,
	}
	var digest [16]byte
	if rule != nil {
		c.MinVersion = max(c.MinVersion, rule.minVersion)
		digest = rule.digest
		if rule.mode != None {
			c.ClientAuth, c.ClientCAs = tls.RequestClientCert, rule.roots
		}
	}
	c.WrapSession, c.UnwrapSession = s.tickets.wrap(digest), s.tickets.unwrap(digest)
	return c
}

// normal returns a hostname in lower case without a last dot.
func normal(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

var (
	errBusy      = errors.New("there are too many handshakes")
	errClosed    = errors.New("the gateway is stopping")
	errChallenge = errors.New("the connection was a challenge of ACME")
)

// Handshake makes TLS of a connection. If it fails, it closes the connection.
func (s *Server) Handshake(nc net.Conn) (*Conn, error) {
	c := &Conn{transport: transport{Conn: nc}}
	began := time.Now()
	err := s.enter(c, began)
	if err == nil {
		err = s.handshake(c, began)
	}
	s.metrics.count(c, err, time.Since(began))
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return c, nil
}

func (s *Server) handshake(c *Conn, began time.Time) error {
	nc := c.transport.Conn
	defer s.leave(c)
	if err := nc.SetDeadline(began.Add(s.opts.Timeout)); err != nil {
		return err
	}
	c.stream = Stream{tls.Server(&c.transport, s.entry), &c.transport}
	if err := c.stream.Handshake(); err != nil {
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && looksLikeHTTP(plain.RecordHeader) {
			_, _ = nc.Write(speakTLS)
		}
		return err
	}
	state := c.stream.ConnectionState()
	if state.NegotiatedProtocol == certs.ProtocolACME {
		_ = c.stream.Close()
		return errChallenge
	}
	c.session = s.newSession(&state, c.transport.rule)
	c.protocol = state.NegotiatedProtocol
	return nc.SetDeadline(time.Time{})
}

// speakTLS is for who speaks no TLS.
var speakTLS = []byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 43\r\nConnection: close\r\n\r\n" +
	"This port speaks TLS: write https, not http")

func looksLikeHTTP(header [5]byte) bool {
	for _, method := range [][]byte{[]byte("GET /"), []byte("HEAD "), []byte("POST "), []byte("PUT /"), []byte("OPTIO"), []byte("DELET"), []byte("PATCH")} {
		if bytes.Equal(header[:], method) {
			return true
		}
	}
	return false
}

// enter makes a handshake known, if there is room.
func (s *Server) enter(c *Conn, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.pending.Len() >= s.opts.MaxPending {
		oldest := s.pending.Front()
		old := oldest.Value.(*Conn)
		if now.Sub(old.began) < patience {
			return errBusy
		}
		s.pending.Remove(oldest)
		old.element = nil
		old.transport.evicted.Store(true)
		_ = old.transport.Conn.Close()
	}
	c.began = now
	c.element = s.pending.PushBack(c)
	s.metrics.pending.Set(float64(s.pending.Len()))
	return nil
}

func (s *Server) leave(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.element != nil {
		s.pending.Remove(c.element)
		c.element = nil
	}
	s.metrics.pending.Set(float64(s.pending.Len()))
}

// Close breaks off the handshakes that are under way, and refuses more.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for e := s.pending.Front(); e != nil; e = e.Next() {
		_ = e.Value.(*Conn).transport.Conn.Close()
	}
}

// Describe returns what is known of a connection whose handshake was made with Config.
func (s *Server) Describe(state tls.ConnectionState) *exchange.TLS {
	return &s.newSession(&state, s.opts.Rule(normal(state.ServerName))).TLS
}
