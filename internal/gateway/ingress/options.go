package ingress

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/x/sweep"
)

// Options are what the engines for connections of TCP, http1 and http2, have in common.
type Options struct {
	// Handler serves the exchanges. Required.
	Handler exchange.Handler
	// Sweeper keeps the deadlines. Whoever made it runs it. Required.
	Sweeper *sweep.Sweeper
	// Bodies is buffers for bodies, best shared with the backends. Default: its own.
	Bodies *h1.Pool
	// Log receives what happens to connections. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
	// Limits bound the head of a request. Default: h1.DefaultLimits.
	Limits h1.Limits
	// Timeouts bound waiting.
	Timeouts Timeouts
	// Rules tell what of a client is believed and what backends are told of it.
	Rules
}

// Timeouts bound what a client may take its time for. Zero values mean the defaults.
type Timeouts struct {
	// Idle is how long a connection may be without a request. Default: 75s.
	Idle time.Duration
	// Head is how long a head, or a frame of HTTP/2, may take from its first byte to its last. Default: 10s.
	Head time.Duration
	// Body is how long a request's body may be silent. Default: 30s.
	Body time.Duration
	// MinRate is how many bytes a second of a request's body must come on average once Body has passed; time in which the
	// backend is waited for does not count. Default: 128; negative: any rate will do.
	MinRate int
	// Write is how long the client may take to accept a piece of the response, or to open a window for it. Default: 30s.
	Write time.Duration
	// Park is how long an idle connection keeps its buffers where it cannot give them back at once. Default: 5s.
	Park time.Duration
}

// Patience is how long the client may take for the next piece of a request's body: as long as it may be silent, but no more than
// what it has sent, received bytes, and the time that it has been waited for so far leave it.
func (t *Timeouts) Patience(received int64, waited time.Duration) time.Duration {
	if t.MinRate <= 0 {
		return t.Body
	}
	rate := int64(t.MinRate)
	earned := time.Duration(min(received/rate, 1<<32))*time.Second + time.Duration(received%rate)*time.Second/time.Duration(rate)
	return max(min(t.Body, t.Body+earned-waited), 1)
}

// reservedFields is how many fields an engine adds to a head at most.
const reservedFields = 10

// SetDefaults fills in what is not said. It returns an error if something required is missing or a limit exceeds what an
// engine can do.
func (o *Options) SetDefaults() error {
	if o.Handler == nil || o.Sweeper == nil {
		return errors.New("the options need a Handler and a Sweeper")
	}
	if o.Bodies == nil {
		o.Bodies = new(h1.Pool)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := SetLimits(&o.Limits); err != nil {
		return err
	}
	t := &o.Timeouts
	t.Idle = cmp.Or(t.Idle, 75*time.Second)
	t.Head = cmp.Or(t.Head, 10*time.Second)
	t.Body = cmp.Or(t.Body, 30*time.Second)
	t.MinRate = cmp.Or(t.MinRate, 128)
	t.Write = cmp.Or(t.Write, 30*time.Second)
	t.Park = cmp.Or(t.Park, 5*time.Second)
	return nil
}

// SetLimits fills in what l does not say. It returns an error if a limit exceeds what an engine can do.
func SetLimits(l *h1.Limits) error {
	d := h1.DefaultLimits
	l.Target = cmp.Or(l.Target, d.Target)
	l.Head = cmp.Or(l.Head, d.Head)
	l.Fields = cmp.Or(l.Fields, d.Fields)
	if l.Fields > exchange.MaxFields-reservedFields || l.Head > 1<<20 {
		return errors.New("the limits of heads exceed what the engine can do: 240 fields, 1 MiB")
	}
	return nil
}
