package health

import (
	"testing"

	"hansa.dev/hansa/internal/exchange"
)

func ask(t *testing.T, s *State, method, path string) (status int, contentType, body string) {
	t.Helper()
	x := new(exchange.Exchange)
	x.Method, x.Path = exchange.View(method), exchange.View(path)
	if !s.Answer(x) {
		return 0, "", ""
	}
	src, _ := x.LocalAnswer()
	b, err := exchange.ReadAll(nil, src, 100)
	if err != nil {
		t.Fatal(err)
	}
	return x.Status, string(x.Own.Known(exchange.IDContentType)), string(b)
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	configured := func(s *State) { s.SetConfigured() }
	maintenance := func(s *State) { s.SetConfigured(); s.SetMaintenance(true) }
	over := func(s *State) { maintenance(s); s.SetMaintenance(false) }
	draining := func(s *State) { maintenance(s); s.SetDraining(true) }
	nothing := func(*State) {}
	const ok, none, drain, maint = "<status>ok</status>", "<status>no configuration</status>", "<status>draining</status>", "<status>under maintenance</status>"
	for _, tc := range []struct {
		name, path string
		state      func(*State)
		status     int
		body       string
	}{
		{"healthy", Path, configured, 200, ok},
		{"healthy, load balancer", PathLoadBalancer, configured, 200, ok},
		{"no configuration", Path, nothing, 503, none},
		{"no configuration, load balancer", PathLoadBalancer, nothing, 503, none},
		{"maintenance", Path, maintenance, 200, ok},
		{"maintenance, load balancer", PathLoadBalancer, maintenance, 503, maint},
		{"maintenance is over", PathLoadBalancer, over, 200, ok},
		{"draining", Path, draining, 503, drain},
		{"draining, load balancer", PathLoadBalancer, draining, 503, drain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var s State
			tc.state(&s)
			for _, method := range []string{"GET", "HEAD"} {
				status, contentType, body := ask(t, &s, method, tc.path)
				if status != tc.status || body != tc.body || contentType != "text/xml" {
					t.Errorf("%s %s = %d %q %q, want %d %q", method, tc.path, status, contentType, body, tc.status, tc.body)
				}
			}
		})
	}
}

func TestOthersAreNoHealthChecks(t *testing.T) {
	t.Parallel()
	var s State
	for _, r := range [][2]string{{"POST", Path}, {"GET", "/healthcheck/"}, {"GET", "/"}, {"GET", "/healthcheckl"}, {"GET", "/api/healthcheck"}} {
		if status, _, _ := ask(t, &s, r[0], r[1]); status != 0 {
			t.Errorf("%s %s was answered with %d", r[0], r[1], status)
		}
	}
}
