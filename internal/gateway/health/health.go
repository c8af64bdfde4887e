// Package health answers the health checks of load balancers, before anything is routed, and keeps what they tell.
//
// There are two, on every hostname: /healthcheck says whether the gateway can serve, /healthchecklb also whether it
// should be sent traffic at present. A gateway without configuration is never healthy. The answers are fixed: what
// load balancers are set up with must not change.
package health

import (
	"sync/atomic"

	"hansa.dev/hansa/internal/exchange"
)

// The paths of the checks.
const (
	Path             = "/healthcheck"
	PathLoadBalancer = "/healthchecklb"
)

// State is what the checks tell. The zero value is a gateway without configuration.
type State struct {
	configured, draining, maintenance atomic.Bool
}

// SetConfigured says that there is a configuration.
func (s *State) SetConfigured() { s.configured.Store(true) }

// Configured tells whether there is a configuration.
func (s *State) Configured() bool { return s.configured.Load() }

// SetDraining says that the gateway goes out of service, or is back.
func (s *State) SetDraining(on bool) { s.draining.Store(on) }

// Draining tells whether the gateway goes out of service.
func (s *State) Draining() bool { return s.draining.Load() }

// SetMaintenance tells load balancers to send no traffic, or to send some again. It returns what was so before.
func (s *State) SetMaintenance(on bool) (was bool) { return s.maintenance.Swap(on) }

// Maintenance tells whether load balancers are told to send no traffic.
func (s *State) Maintenance() bool { return s.maintenance.Load() }

// Answer answers x if it is a health check, and tells whether it is one.
func (s *State) Answer(x *exchange.Exchange) bool {
	// The length is looked at first: this is asked of every request.
	lb := len(x.Path) == len(PathLoadBalancer) && string(x.Path) == PathLoadBalancer
	if !lb && !(len(x.Path) == len(Path) && string(x.Path) == Path) {
		return false
	}
	if m := string(x.Method); m != "GET" && m != "HEAD" {
		return false
	}
	status, body := 200, "<status>ok</status>"
	switch {
	case s.Draining():
		status, body = 503, "<status>draining</status>"
	case !s.Configured():
		status, body = 503, "<status>no configuration</status>"
	case lb && s.Maintenance():
		status, body = 503, "<status>under maintenance</status>"
	}
	x.Own.AddString(exchange.IDContentType.Name(), "text/xml")
	x.Own.AddString(exchange.IDCacheControl.Name(), "no-store")
	x.Answer(status, x.Scratch([]byte(body)))
	return true
}
