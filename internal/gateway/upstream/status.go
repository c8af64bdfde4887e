package upstream

import "time"

// BackendStatus is how a backend does, as this gateway sees it.
type BackendStatus struct {
	Organization string `json:"organization"`
	Name         string `json:"name"`
	// Discovered says that DNS names the endpoints.
	Discovered bool             `json:"discovered,omitempty"`
	Pending    int64            `json:"pending"`
	Endpoints  []EndpointStatus `json:"endpoints"`
}

// EndpointStatus is how an endpoint does.
type EndpointStatus struct {
	Address string `json:"address"`
	// Name is what it was found by, if that is not its address.
	Name   string `json:"name,omitempty"`
	Rank   int    `json:"rank"`
	Weight int    `json:"weight"`
	// State is healthy, unchecked, unhealthy (by health checks), ejected (as an outlier) or refused (it could not be
	// connected to just now).
	State string `json:"state"`
	// ForSeconds is how long it stays ejected or passed over.
	ForSeconds  float64 `json:"forSeconds,omitempty"`
	Requests    int64   `json:"requests"` // under way
	Connections int     `json:"connections"`
	Idle        int     `json:"idle"`
}

// Available tells whether the endpoint takes requests.
func (s *EndpointStatus) Available() bool { return s.State == "healthy" || s.State == "unchecked" }

// Status returns how all backends do, in order of organization and name.
func (r *Registry) Status() []BackendStatus {
	now := r.opts.Sweeper.Now()
	all := []BackendStatus{}
	for _, b := range r.list() {
		t := b.table.Load()
		s := BackendStatus{
			Organization: b.key.organization, Name: b.key.name, Discovered: t.settings.content.Discovery != nil,
			Pending: b.pending.Load(), Endpoints: []EndpointStatus{},
		}
		for _, p := range t.places {
			s.Endpoints = append(s.Endpoints, p.status(t.settings, now))
		}
		all = append(all, s)
	}
	return all
}

func (p *place) status(s *settings, now time.Duration) EndpointStatus {
	used, idle := p.pool.counts()
	es := EndpointStatus{
		Address: p.address, Rank: p.rank, Weight: p.weight, State: "healthy",
		Requests: p.active.Load(), Connections: used + idle, Idle: idle,
	}
	if p.name != p.address {
		es.Name = p.name
	}
	st := p.stateAt(now)
	switch {
	case p.verdict.Load() == unhealthy:
		es.State = "unhealthy"
	case !st.healthy:
		es.State = "ejected"
	case st.refused:
		es.State = "refused"
	case s.content.HealthCheck != nil && p.verdict.Load() == unchecked:
		es.State = "unchecked"
	}
	if st.next != never && !es.Available() {
		es.ForSeconds = (st.next - now).Seconds()
	}
	return es
}
