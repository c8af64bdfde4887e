package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hansa.dev/hansa/internal/gateway/upstream"
	"hansa.dev/hansa/internal/snapshot"
)

// TestSplitAndMirror sends the requests of one API to two backends by weight and copies to a third, and shows how their
// endpoints do.
func TestSplitAndMirror(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, nil)
	var hits [3]atomic.Int32
	w := n.world()
	for i, name := range []string{"stable", "canary", "shadow"} {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				rw.WriteHeader(http.StatusTeapot)
				return
			}
			hits[i].Add(1)
			fmt.Fprint(rw, name)
		}))
		t.Cleanup(s.Close)
		b := snapshot.Backend{Organization: "acme", Name: name, Endpoints: snapshot.Endpoints(s.Listener.Addr().String())}
		if name == "shadow" {
			b.HealthCheck = &snapshot.HealthCheck{
				Type: "http", Method: "GET", Path: "/healthz", Statuses: [][2]int{{200, 299}},
				IntervalMillis: 100, TimeoutMillis: 1000, HealthyAfter: 1, UnhealthyAfter: 1,
			}
		}
		w.put(b)
	}
	w.put(snapshot.API{
		Organization: "acme", Environment: "prod", Name: "split", BasePath: "/split", BackendPath: "/",
		Split: &snapshot.Split{
			Backends: []snapshot.SplitBackend{{Backend: "stable", Weight: 80}, {Backend: "canary", Weight: 20}},
			StickBy:  &snapshot.HashBy{Header: "X-User"},
		},
		Mirror: &snapshot.Mirror{Backend: "shadow", Percent: 100},
	})
	n.apply(w)
	const requests = 200
	for i := range requests {
		user := fmt.Sprint("user", i/2)
		_, body := n.get("/split/x", "X-User", user)
		if _, again := n.get("/split/x", "X-User", user); again != body {
			t.Fatalf("%s went to %s, then to %s", user, body, again)
		}
	}
	if stable, canary := hits[0].Load(), hits[1].Load(); stable+canary != 2*requests || canary < 40 || canary > 140 {
		t.Errorf("%d and %d requests, want about 4 to 1", stable, canary)
	}
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var all []upstream.BackendStatus
	for {
		_, body := n.get(n.admin + "/backends")
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		_, ready := n.get(n.admin + "/readyz?verbose")
		if hits[2].Load() == 2*requests && strings.Contains(ready, "is unhealthy") && strings.Contains(ready, "[!] backends: acme/shadow") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d copies of %d; %s\n%s", hits[2].Load(), 2*requests, body, ready)
		}
		<-tick.C
	}
	states := map[string]string{}
	for _, b := range all {
		states[b.Name] = b.Endpoints[0].State
	}
	if states["stable"] != "healthy" || len(all) != 4 {
		t.Errorf("backends: %+v", all)
	}
	// A configuration that takes a part of the split away is refused.
	c := snapshot.Checkpoint{Epoch: 1, Seq: n.seq + 1}
	delete(w, "backend/acme/canary")
	set := w.set(t)
	c.Describe(set)
	if err := n.Apply(t.Context(), c, set, nil); err == nil || !strings.Contains(err.Error(), "backend/acme/canary") {
		t.Errorf("Apply without a part: %v", err)
	}
}
