package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hansa.dev/hansa/internal/gateway/upstream"
)

// Check is something that /readyz asks.
type Check struct {
	// Name is what it is called: "link".
	Name string
	// Optional checks are shown and do not make the gateway unready: it goes on without a control node.
	Optional bool
	// Run returns what is wrong, or nil. It must be quick and may be called by any goroutine.
	Run func() error
}

// newAdmin makes the server of the admin address. It shows and changes nothing: everybody on the machine reaches loopback.
// What changes a gateway is package operate's.
func newAdmin(g *Gateway) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", g.readyz)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, g.Status()) })
	mux.HandleFunc("GET /backends", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, g.pool.Status()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.opts.Metrics, promhttp.HandlerOpts{ErrorLog: errorLog{g}}))
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
}

// errorLog logs what goes wrong in making up metrics.
type errorLog struct{ g *Gateway }

func (l errorLog) Println(v ...any) { l.g.opts.Log.Error("collect metrics", "err", fmt.Sprint(v...)) }

// CheckResult is what came of a check.
type CheckResult struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Optional bool   `json:"optional,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Ready tells whether the gateway can serve, and what came of each check.
func (g *Gateway) Ready() (bool, []CheckResult) {
	own := []Check{
		{Name: "configuration", Run: func() error {
			if g.core.plan.Load() == nil {
				return fmt.Errorf("there is none yet")
			}
			return nil
		}},
		{Name: "credentials", Run: func() error {
			if !g.core.creds.Loaded() {
				return fmt.Errorf("there are none yet")
			}
			return nil
		}},
		{Name: "draining", Run: func() error {
			if g.core.health.Draining() {
				return fmt.Errorf("the gateway goes out of service")
			}
			return nil
		}},
		{Name: "backends", Optional: true, Run: func() error { return backendsFault(g.pool.Status()) }},
		{Name: "accesslog", Optional: true, Run: func() error {
			if fault := g.access.Fault(); fault != "" {
				return fmt.Errorf("lines are lost: %s", fault)
			}
			return nil
		}},
	}
	ready := true
	var results []CheckResult
	for _, c := range append(own, g.opts.Checks...) {
		r := CheckResult{Name: c.Name, OK: true, Optional: c.Optional}
		if err := c.Run(); err != nil {
			r.OK, r.Error = false, err.Error()
			ready = ready && c.Optional
		}
		results = append(results, r)
	}
	return ready, results
}

// backendsFault names the endpoints that take no requests. A gateway is ready all the same: it would be no better
// elsewhere.
func backendsFault(backends []upstream.BackendStatus) error {
	const most = 10 // named
	var out []string
	for _, b := range backends {
		for _, e := range b.Endpoints {
			if !e.Available() {
				out = append(out, fmt.Sprintf("%s/%s %s is %s", b.Organization, b.Name, e.Address, e.State))
			}
		}
		if len(b.Endpoints) == 0 {
			out = append(out, fmt.Sprintf("%s/%s has no endpoint", b.Organization, b.Name))
		}
	}
	switch n := len(out); {
	case n == 0:
		return nil
	case n > most:
		return fmt.Errorf("%s, and %d more", strings.Join(out[:most], ", "), n-most)
	}
	return fmt.Errorf("%s", strings.Join(out, ", "))
}

// readyz answers 200 or 503; with ?verbose it names the checks, as lines or, if that is asked for, as JSON.
func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	ready, results := g.Ready()
	status, word := http.StatusOK, "ok"
	if !ready {
		status, word = http.StatusServiceUnavailable, "not ready"
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, status, map[string]any{"ready": ready, "checks": results})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if r.URL.Query().Has("verbose") {
		for _, c := range results {
			switch {
			case c.OK:
				fmt.Fprintf(w, "[+] %s: ok\n", c.Name)
			case c.Optional:
				fmt.Fprintf(w, "[!] %s: %s\n", c.Name, c.Error)
			default:
				fmt.Fprintf(w, "[-] %s: %s\n", c.Name, c.Error)
			}
		}
	}
	fmt.Fprintln(w, word)
}

// Status is what the gateway runs.
type Status struct {
	Version string `json:"version,omitempty"`
	Site    string `json:"site,omitempty"`
	// Generation counts the configurations that came into force since the gateway started. 0: none.
	Generation uint64 `json:"generation"`
	Epoch      uint64 `json:"epoch"`
	Seq        uint64 `json:"seq"`
	// Digest is the root of the configuration, in hexadecimal.
	Digest string `json:"digest,omitempty"`
	// IssuedAt is when the control node signed the configuration, AppliedAt when it came into force here, AgeSeconds
	// the time since the former.
	IssuedAt   time.Time `json:"issuedAt,omitzero"`
	AppliedAt  time.Time `json:"appliedAt,omitzero"`
	AgeSeconds float64   `json:"ageSeconds,omitempty"`
	APIs       int       `json:"apis"`
	// Credentials is how many there are, CredentialSeq the change set up to which.
	Credentials   int       `json:"credentials"`
	CredentialSeq uint64    `json:"credentialSeq"`
	Streams       int       `json:"streams"`
	Connections   int       `json:"connections"`
	Maintenance   bool      `json:"maintenance"`
	Draining      bool      `json:"draining"`
	StartedAt     time.Time `json:"startedAt,omitzero"`
	// LastRefusal is the last configuration that could not be run, if there was one.
	LastRefusal *Refused `json:"lastRefusal,omitempty"`
}

// Status returns what the gateway runs at present.
func (g *Gateway) Status() Status {
	c := g.core
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{
		Version: g.opts.Version, Generation: c.generation, APIs: len(c.builder.parts.apis),
		Credentials: c.creds.Len(), CredentialSeq: c.credentials.Seq, Streams: c.streams.count(), Connections: g.Connections(),
		Maintenance: c.health.Maintenance(), Draining: c.health.Draining(), StartedAt: g.started, LastRefusal: c.lastRefusal,
	}
	if p := c.plan.Load(); p != nil {
		s.Site, s.Epoch, s.Seq, s.Digest = p.site, p.checkpoint.Epoch, p.checkpoint.Seq, p.checkpoint.Root.String()
		s.AppliedAt = c.applied
		if at := p.checkpoint.IssuedAt; !at.IsZero() {
			s.IssuedAt, s.AgeSeconds = at, c.now().Sub(at).Seconds()
		}
	}
	return s
}

func writeJSON(w http.ResponseWriter, status int, content any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(content) // the client may be gone
}
