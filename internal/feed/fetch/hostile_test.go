package fetch

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/snapshot"
)

// TestHostileControl connects a gateway that has a good version to a control node that offers it something else, and
// then to a good one again.
func TestHostileControl(t *testing.T) {
	t.Parallel()
	view := snapshot.ConfigView(testOrg, testGroup)
	good := newAuthority(t)
	stranger := newAuthority(t)
	tests := []struct {
		name   string
		offer  func(*testing.T, *snapshot.Set) snapshot.Checkpoint
		code   string
		frozen bool
	}{
		{"forged", func(t *testing.T, s *snapshot.Set) snapshot.Checkpoint { return stranger.sign(t, view, 1, 9, s) }, snapshot.RefusedSignature, false},
		{"tampered", func(t *testing.T, s *snapshot.Set) snapshot.Checkpoint {
			c := good.sign(t, view, 1, 9, snapshot.NewSet())
			c.Describe(s)
			return c
		}, snapshot.RefusedSignature, false},
		{"foreign", func(t *testing.T, s *snapshot.Set) snapshot.Checkpoint {
			c := snapshot.Checkpoint{Cluster: "cluster-2", Epoch: 1, Seq: 9, View: view}
			c.Describe(s)
			return c
		}, snapshot.RefusedCluster, false},
		{"older seq", func(t *testing.T, s *snapshot.Set) snapshot.Checkpoint { return good.sign(t, view, 2, 3, s) }, snapshot.RefusedOlder, false},
		{"older epoch", func(t *testing.T, s *snapshot.Set) snapshot.Checkpoint { return good.sign(t, view, 1, 900, s) }, snapshot.RefusedOlder, false},
		{"forked", func(t *testing.T, s *snapshot.Set) snapshot.Checkpoint { return good.sign(t, view, 2, 4, s) }, snapshot.RefusedForked, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newControl(t, good, serve.Options{})
			c.epoch, c.seq = 2, 3
			c.change(apis(t, 0, 10, "/a")) // 2.4
			c.changeCredentials()
			g := newGateway(t, good, t.TempDir())
			stop := g.run(c.addr)
			g.sink.wait(t, "2.4", func(s *memorySink) bool { return s.cp.Seq == 4 })
			stop()

			bad := newControl(t, good, serve.Options{})
			set := snapshot.NewSet().With(apis(t, 0, 3, "/evil"), nil)
			if err := bad.server.Publish(tt.offer(t, set), set); err != nil {
				t.Fatal(err)
			}
			g.connectUntil(bad, "a refusal", func(st ViewStatus) bool { return st.Refusal != nil })
			st := g.fetcher.Status().Configuration
			if st.Refusal.Code != tt.code || st.Frozen != tt.frozen || g.sink.cp.Seq != 4 || g.sink.set.Len() != 10 {
				t.Errorf("status %+v, refusal %v, serves %d.%d", st, st.Refusal, g.sink.cp.Epoch, g.sink.cp.Seq)
			}
			shown := bad.server.Gateways()
			if len(shown) != 1 || shown[0].LastRefusal == nil || shown[0].LastRefusal.Code != tt.code || shown[0].Frozen != tt.frozen {
				t.Errorf("Gateways() = %+v", shown)
			}
			if n := testutil.CollectAndCount(g.registry, "hansa_fetch_refusals_total"); n != 1 {
				t.Errorf("%d series of refusals, want 1", n)
			}

			// Frozen, it does not even take a good higher version of the same epoch.
			c.change(apis(t, 0, 10, "/b"))
			if tt.frozen {
				g.connectUntil(c, "a refusal of the good one", func(st ViewStatus) bool { return st.Refusal != nil && st.Link })
				if g.sink.cp.Seq != 4 {
					t.Errorf("the frozen gateway took %d.%d", g.sink.cp.Epoch, g.sink.cp.Seq)
				}
				c.epoch++
			}
			g.run(c.addr)
			g.sink.waitFor(t, c.change(apis(t, 0, 10, "/c")))
			poll(t, "the status to say that all is well", func() bool { // it follows what the sink was given
				st := g.fetcher.Status().Configuration
				return !st.Frozen && st.Refusal == nil
			})
		})
	}
}

// connectUntil connects the gateway, waits for its status and for the control node to know, and disconnects.
func (g *gateway) connectUntil(c *control, what string, ok func(ViewStatus) bool) {
	g.tb.Helper()
	stop := g.run(c.addr)
	defer stop()
	poll(g.tb, what, func() bool {
		gateways := c.server.Gateways()
		return ok(g.fetcher.Status().Configuration) && len(gateways) == 1 && gateways[0].LastRefusal != nil
	})
}

// TestChangesThatDoNotFit has the control node push changes that lead somewhere else than its checkpoint says, as a
// fault in either end would: the gateway finds the right content by comparing.
func TestChangesThatDoNotFit(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials()
	first := c.change(apis(t, 0, 500, "/a"))
	dir := t.TempDir()
	g := newGateway(t, a, dir)
	stop := g.run(c.addr)
	g.sink.waitFor(t, first)
	stop()

	// The gateway claims the first version, but one of its entries has gone wrong.
	g.fetcher.config.content = g.fetcher.config.content.With(apis(t, 7, 8, "/rotten"), nil)
	g.run(c.addr)
	g.sink.waitFor(t, c.change(apis(t, 9, 10, "/b")))
	if g.sink.set.Root() != c.set.Root() {
		t.Errorf("root %.8s, want %.8s", g.sink.set.Root(), c.set.Root())
	}
}

func TestEntriesOfNewerForm(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials()
	g := newGateway(t, a, t.TempDir())
	g.run(c.addr)
	newer := func(critical bool, content string) []snapshot.Entry {
		e, err := snapshot.NewEntry("fancy/acme/x", 1, snapshot.ReaderVersion+1, critical, content)
		if err != nil {
			t.Fatal(err)
		}
		return []snapshot.Entry{e}
	}
	g.sink.waitFor(t, c.change(append(apis(t, 0, 3, "/a"), newer(false, "kept")...)))
	c.change(newer(true, "critical"))
	poll(t, "a refusal", func() bool {
		r := g.fetcher.Status().Configuration.Refusal
		return r != nil && r.Code == snapshot.RefusedReader && r.Entry == "fancy/acme/x"
	})
	if g.sink.set.Len() != 4 {
		t.Errorf("%d entries in force, want the 4 of the version before", g.sink.set.Len())
	}
	g.sink.waitFor(t, c.change(nil, "fancy/acme/x"))
}

func TestLargeChangeComesInBulk(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials()
	g := newGateway(t, a, t.TempDir())
	g.run(c.addr)
	g.sink.waitFor(t, c.change(apis(t, 0, 10, "/a")))
	var puts []snapshot.Entry
	for i := range 40 {
		var noise strings.Builder
		for j := range 4000 {
			noise.WriteString(fmt.Sprint(snapshot.HashCredential(fmt.Append(nil, i, j))[0]))
		}
		e, err := snapshot.NewEntry(fmt.Sprintf("api/acme/prod/large-%d", i), 1, 1, true, noise.String())
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, e)
	}
	g.sink.waitFor(t, c.change(puts))
	// The next small change is pushed again.
	before := g.fetcher.config.bytes("inline")
	g.sink.waitFor(t, c.change(apis(t, 0, 1, "/b")))
	if n := g.fetcher.config.bytes("inline") - before; n == 0 || n > 1000 {
		t.Errorf("the change after a large one took %d bytes inline, want a few hundred", n)
	}
	if n := g.fetcher.config.bytes("bulk"); n < 32<<10 {
		t.Errorf("%d bytes in bulk, want the large change", n)
	}
}

func (f *follower[C]) bytes(part string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received[part]
}
