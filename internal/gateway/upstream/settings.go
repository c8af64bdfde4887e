package upstream

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/snapshot"
)

// settings is the content of a backend's entry, ready for use. It never changes.
type settings struct {
	content     snapshot.Backend
	host        string // to send; "" is the request's
	endpointOwn bool   // send the address of the endpoint as host
	tls         *tls.Config
	tls2        *tls.Config // for HTTP/2
	transport   transport
	static      []snapshot.Endpoint
	balance     balance
	retries     retries
	breaker     snapshot.Breaker
	limits      h1.Limits
	http10      bool

	connect, pending, response, idle, tunnel, try, total, idleTimeout, maxAge time.Duration
	maxConns, maxIdle, maxUses                                                int
	maxBytes                                                                  int64
}

// balance is how endpoints are picked.
type balance struct {
	method    method
	key       *keyOf // of requests, for consistentHash
	maxLoad   int64  // percent
	decay     time.Duration
	slowStart time.Duration
	panic     int // percent
}

// retries is which requests are tried again.
type retries struct {
	max                     int
	connect, reset, timeout bool
	statuses                [600]bool
	anyStatus               bool
	methods                 []string
	budgetPercent           int64
	budgetMin               int64
	backoff, maxBackoff     time.Duration
	explicit                bool
}

// defaultRetries is what counts if nothing is said: only what could not be sent is tried again.
func defaultRetries() snapshot.Retries {
	return snapshot.Retries{
		Max: 3, On: []string{"connect"}, Methods: []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"},
		BudgetPercent: 20, BudgetMin: 3, BackoffMillis: 25, MaxBackoffMillis: 250,
	}
}

// newSettings checks the content of an entry. What old has and need not be made anew is taken over.
func newSettings(content *snapshot.Backend, old *settings, o *Options) (*settings, error) {
	s := &settings{
		content:     *content,
		static:      content.Endpoints,
		connect:     millis(content.ConnectMillis, 5*time.Second),
		pending:     millis(content.PendingMillis, 5*time.Second),
		response:    millis(content.ResponseMillis, 30*time.Second),
		idle:        millis(content.IdleMillis, time.Minute),
		tunnel:      millis(content.TunnelMillis, 10*time.Minute),
		try:         millis(content.TryMillis, 0),
		total:       millis(content.TotalMillis, 0),
		idleTimeout: millis(content.IdleTimeoutMillis, 90*time.Second),
		maxAge:      millis(content.MaxAgeMillis, 0),
		maxConns:    cmp.Or(content.MaxConns, 1024),
		maxIdle:     cmp.Or(content.MaxIdleConns, 128),
		maxUses:     content.MaxUses,
		maxBytes:    content.MaxResponseBytes,
		http10:      content.HTTPVersion == "1.0",
		limits:      h1.Limits{Head: cmp.Or(content.MaxHeadBytes, o.Limits.Head), Fields: cmp.Or(content.MaxHeadFields, o.Limits.Fields)},
	}
	if content.Breaker != nil {
		s.breaker = *content.Breaker
	}
	switch content.Host {
	case "endpoint":
		s.endpointOwn = true
	default:
		s.host = content.Host
	}
	var err error
	if s.transport, err = transportOf(content); err != nil {
		return nil, err
	}
	if s.balance, err = newBalance(content.Balance); err != nil {
		return nil, err
	}
	if s.retries, err = newRetries(content.Retries); err != nil {
		return nil, err
	}
	switch {
	case s.sameTLS(old):
		s.tls, s.tls2 = old.tls, old.tls2
	case content.TLS:
		cfg, err := tlsConfig(content, o.Certificates)
		if err != nil {
			return nil, err
		}
		s.tls, s.tls2 = cfg, cfg.Clone()
		s.tls2.NextProtos = []string{"h2"}
		if content.HTTPVersion == "auto" {
			s.tls2.NextProtos = append(s.tls2.NextProtos, "http/1.1")
		}
	}
	for _, e := range content.Endpoints {
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			return nil, fmt.Errorf("endpoint %q is not host:port: %w", e.Address, err)
		}
	}
	return s, nil
}

// sameTLS tells whether connections are secured as old says.
func (s *settings) sameTLS(old *settings) bool {
	return old != nil && old.content.HTTPVersion == s.content.HTTPVersion && sameTLS(&old.content, &s.content)
}

// sameWire tells whether connections that were made as old says can be used further.
func (s *settings) sameWire(old *settings) bool {
	return s.sameTLS(old) && old.content.ProxyProtocol == s.content.ProxyProtocol
}

// sameCheck tells whether endpoints are checked as old says.
func (s *settings) sameCheck(old *settings) bool {
	return s.sameWire(old) && old.content.Host == s.content.Host && reflect.DeepEqual(s.content.HealthCheck, old.content.HealthCheck)
}

// sameDiscovery tells whether endpoints are found as old says.
func (s *settings) sameDiscovery(old *settings) bool {
	return old != nil && reflect.DeepEqual(s.content.Discovery, old.content.Discovery)
}

func newBalance(content *snapshot.Balance) (balance, error) {
	if content == nil {
		return balance{panic: 50}, nil
	}
	b := balance{
		maxLoad: int64(cmp.Or(content.MaxLoadPercent, 125)), decay: millis(content.DecayMillis, 10*time.Second),
		slowStart: millis(content.SlowStartMillis, 0), panic: content.PanicPercent,
	}
	i := slices.Index(methods[:], content.Method)
	if i < 0 {
		return b, fmt.Errorf("there is no method of balancing %q in this gateway", content.Method)
	}
	b.method = method(i)
	if b.method == consistentHash {
		if content.HashBy == nil {
			return b, errors.New("consistentHash does not say what to go by")
		}
		b.key = newKeyOf(content.HashBy)
	}
	return b, nil
}

func newRetries(content *snapshot.Retries) (retries, error) {
	explicit := content != nil
	if !explicit {
		d := defaultRetries()
		content = &d
	}
	r := retries{
		max: content.Max, methods: content.Methods, budgetPercent: int64(content.BudgetPercent), budgetMin: int64(content.BudgetMin),
		backoff: millis(content.BackoffMillis, 25*time.Millisecond), maxBackoff: millis(content.MaxBackoffMillis, 250*time.Millisecond),
		explicit: explicit,
	}
	for _, on := range content.On {
		switch on {
		case "connect":
			r.connect = true
		case "reset":
			r.reset = true
		case "timeout":
			r.timeout = true
		case "gatewayError":
			r.statuses[502], r.statuses[503], r.statuses[504] = true, true, true
		case "5xx":
			for status := 500; status < 600; status++ {
				r.statuses[status] = true
			}
		default:
			status, err := strconv.Atoi(on)
			if err != nil || status < 400 || status > 599 {
				return r, fmt.Errorf("there is no reason to try again called %q in this gateway", on)
			}
			r.statuses[status] = true
		}
	}
	r.anyStatus = slices.Contains(r.statuses[:], true)
	return r, nil
}

// on tells whether a fault calls for trying again.
func (r *retries) on(code exchange.Code) bool {
	switch code {
	case exchange.UpstreamConnect, exchange.UpstreamBusy:
		return r.connect
	case exchange.UpstreamReset:
		return r.reset
	case exchange.UpstreamTimeout:
		return r.timeout
	}
	return false
}

// repeatable tells whether a request of that method may be sent twice.
func (r *retries) repeatable(method []byte) bool {
	return slices.Contains(r.methods, string(method))
}

func millis(ms int64, fallback time.Duration) time.Duration {
	if ms <= 0 {
		return fallback
	}
	return time.Duration(ms) * time.Millisecond
}
