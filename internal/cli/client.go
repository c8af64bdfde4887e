package cli

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
)

// clientFlags are what a gateway lets clients send, and take their time for.
func clientFlags(f *pflag.FlagSet, o *app.GatewayOptions) {
	l, t := &o.Limits, &o.Timeouts
	f.BoolVar(&o.Forwarded, "forwarded", false, "send the Forwarded field (RFC 7239) to backends beside X-Forwarded-*")
	f.StringVar(&o.Via, "via", "", `name of the gateway in Via, by which it knows a request that has come round in a circle; "off" for none (default: one of the process's own)`)
	f.IntVar(&l.Target, "max-target-bytes", h1.DefaultLimits.Target, "length of a request's target")
	f.IntVar(&l.Head, "max-header-bytes", h1.DefaultLimits.Head, "size of a request's head, first line and fields")
	f.IntVar(&l.Fields, "max-header-fields", h1.DefaultLimits.Fields, "number of a request's fields")
	f.DurationVar(&t.Idle, "client-idle-timeout", 75*time.Second, "how long a connection may wait for a request")
	f.DurationVar(&t.Head, "client-header-timeout", 10*time.Second, "how long a request's head may take from its first byte to its last; also a TLS handshake")
	f.DurationVar(&t.Body, "client-body-timeout", 30*time.Second, "how long a request's body may be silent")
	f.IntVar(&t.MinRate, "client-min-rate", 128, "bytes a second that a request's body must come at on average once --client-body-timeout has passed; -1 for any")
	f.DurationVar(&t.Write, "client-write-timeout", 30*time.Second, "how long the client may take to accept a piece of the response (at most 64 KiB)")
}

// maxFields leaves room for the fields that the gateway adds.
const maxFields = exchange.MaxFields - 10

// checkClientFlags returns what is wrong with the values of clientFlags.
func checkClientFlags(o *app.GatewayOptions) error {
	l, t := &o.Limits, &o.Timeouts
	for _, n := range []struct {
		flag            string
		value, min, max int
	}{
		{"max-target-bytes", l.Target, 1, l.Head},
		{"max-header-bytes", l.Head, 256, 1 << 20},
		{"max-header-fields", l.Fields, 1, maxFields},
		{"client-min-rate", t.MinRate, -1, 1 << 30},
	} {
		if n.value < n.min || n.value > n.max || n.value == 0 {
			return fmt.Errorf("--%s: %d is out of range; write %d to %d", n.flag, n.value, n.min, n.max)
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"client-idle-timeout", t.Idle}, {"client-header-timeout", t.Head}, {"client-body-timeout", t.Body}, {"client-write-timeout", t.Write},
	} {
		if d.value < 100*time.Millisecond || d.value > 24*time.Hour {
			return fmt.Errorf("--%s: %v is out of range; write 100ms to 24h", d.flag, d.value)
		}
	}
	if o.Via != "" && !h1.Token(o.Via) {
		return fmt.Errorf("--via: %q is not a token: letters, digits, \"-\", \".\" and \"_\"", o.Via)
	}
	return nil
}
