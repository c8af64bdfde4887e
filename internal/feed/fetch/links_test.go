package fetch

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/snapshot"
)

// TestCutLink cuts the link again and again while changes are made; every change gets through before the next cut. With
// HANSA_SLOW=1 there is a cut every second for a minute.
func TestCutLink(t *testing.T) {
	t.Parallel()
	cuts, every := 20, time.Duration(0)
	if os.Getenv("HANSA_SLOW") != "" {
		cuts, every = 60, time.Second
	}
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials(credentials(0, 100)...)
	c.change(apis(t, 0, 1000, "/a"))
	p := newProxy(t, c.addr)
	g := newGateway(t, a, t.TempDir())
	g.run(p.addr)
	var cp, ccp snapshot.Checkpoint
	for i := range cuts {
		next := time.After(every)
		for j := range 5 {
			from := rand.IntN(1000)
			cp = c.change(apis(t, from, from+1+rand.IntN(50), fmt.Sprint("/", i, j)))
			ccp = c.changeCredentials(credentials(i*10+j, i*10+j+5)...)
		}
		g.sink.waitFor(t, cp) // it gets through between two cuts
		g.sink.waitFor(t, ccp)
		<-next
		p.cut()
	}
	g.sink.waitFor(t, c.change(apis(t, 0, 1, "/z")))
	if g.sink.set.Root() != c.set.Root() || g.sink.table.Root() != c.table.Root() {
		t.Error("the gateway has something else than the control node")
	}
}

// TestFirstSyncIsResumed breaks the first transfer of a large content many times: what has arrived must not be sent
// again.
func TestFirstSyncIsResumed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials(credentials(0, 30_000)...)
	var puts []snapshot.Entry
	for i := range 10_000 {
		e, err := snapshot.NewEntry(fmt.Sprintf("api/acme/prod/api-%05d", i), 1, 1, true, fmt.Sprint(snapshot.HashCredential(fmt.Append(nil, i))))
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, e)
	}
	cp := c.change(puts)
	whole := newProxy(t, c.addr)
	g := newGateway(t, a, t.TempDir())
	g.run(whole.addr)
	g.sink.waitFor(t, cp)
	g.stop()

	p := newProxy(t, c.addr)
	p.every = 300 << 10
	g = newGateway(t, a, t.TempDir())
	g.run(p.addr)
	g.sink.waitFor(t, cp)
	if got, limit := p.down.Load(), 2*whole.down.Load(); p.cuts.Load() < 3 || got > limit {
		t.Errorf("with %d cuts %d bytes were sent, without any %d; want at most %d", p.cuts.Load(), got, whole.down.Load(), limit)
	}
}

// TestMissedChanges leaves a gateway away for 1,000 changes. It must catch up by what differs: with the control node
// that made them, which still knows the names, and with one that was started anew and compares.
func TestMissedChanges(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials(credentials(0, 10_000)...)
	c.change(apis(t, 0, 10_000, "/a"))
	for _, restarted := range []bool{false, true} {
		first := newProxy(t, c.addr)
		g := newGateway(t, a, t.TempDir())
		stop := g.run(first.addr)
		g.sink.waitFor(t, c.change(apis(t, 0, 1, "/first")))
		g.sink.waitFor(t, c.changeCredentials(credentials(0, 1)...))
		stop()
		full := first.down.Load()

		var cp, ccp snapshot.Checkpoint
		for i := range 1000 {
			cp = c.change(apis(t, 2*i, 2*i+1, fmt.Sprint("/", restarted, i)))
			ccp = c.changeCredentials(credentials(10_000+i, 10_001+i)...)
		}
		node := c
		if restarted {
			node = newControl(t, a, serve.Options{})
			for _, publish := range []func() error{
				func() error { return node.server.Publish(cp, c.set) },
				func() error { return node.server.PublishCredentials(ccp, c.table) },
			} {
				if err := publish(); err != nil {
					t.Fatal(err)
				}
			}
		}
		p := newProxy(t, node.addr)
		begin := time.Now()
		g.run(p.addr)
		g.sink.waitFor(t, cp)
		g.sink.waitFor(t, ccp)
		took, sent := time.Since(begin), p.down.Load()
		t.Logf("restarted %v: 1,000 changes of configuration and of credentials caught up in %v with %d bytes; the whole took %d", restarted, took, sent, full)
		if sent > full/2 {
			t.Errorf("restarted %v: caught up with %d bytes, the whole takes %d", restarted, sent, full)
		}
		g.stop()
	}
}

// TestSlowGateway holds up one gateway's link; the others must not notice.
func TestSlowGateway(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials()
	slow := newGateway(t, a, t.TempDir())
	slow.name = "slow"
	block := make(chan struct{})
	slow.sink.setRefuse(func(s *snapshot.Set) error {
		if s.Len() > 0 {
			<-block
		}
		return nil
	})
	slow.run(c.addr)
	fast := newGateway(t, a, t.TempDir())
	fast.run(c.addr)
	var cp snapshot.Checkpoint
	for i := range 300 {
		cp = c.change(apis(t, 0, 60, fmt.Sprint("/", i)))
		fast.sink.waitFor(t, cp)
	}
	close(block)
	slow.sink.waitFor(t, cp)
	slow.sink.mu.Lock()
	defer slow.sink.mu.Unlock()
	if slow.sink.applies > 290 {
		t.Errorf("the slow gateway applied %d of 300 versions one by one, want skips", slow.sink.applies)
	}
}

// TestAnyHistory drives a gateway through random changes, cuts and restarts of either end.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	steps := 60
	if os.Getenv("HANSA_SLOW") != "" {
		steps = 2000
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{Window: serve.Window{Changes: 40}})
	p := newProxy(t, c.addr)
	dir := t.TempDir()
	g := newGateway(t, a, dir)
	g.run(p.addr)
	for step := range steps {
		for range rnd.IntN(8) {
			from := rnd.IntN(200)
			c.change(apis(t, from, from+rnd.IntN(30), fmt.Sprint("/", rnd.IntN(4))), fmt.Sprintf("api/acme/prod/api-%05d", rnd.IntN(200)))
			var changes []snapshot.CredentialChange
			for _, x := range credentials(from, from+rnd.IntN(30)) {
				x.Remove = rnd.IntN(3) == 0
				changes = append(changes, x)
			}
			c.changeCredentials(changes...)
		}
		switch rnd.IntN(6) {
		case 0:
			p.cut()
		case 1:
			g.stop()
			g = newGateway(t, a, dir)
			g.run(p.addr)
		case 2:
			next := newControl(t, a, serve.Options{Window: serve.Window{Changes: 40}})
			next.set, next.table, next.epoch, next.seq = c.set, c.table, c.epoch, c.seq
			next.change(nil)
			next.changeCredentials()
			p.retarget(next.addr)
			c.stop()
			c = next
		}
		if rnd.IntN(3) == 0 {
			c.mu.Lock()
			set, table := c.set.Root(), c.table.Root()
			c.mu.Unlock()
			g.sink.wait(t, fmt.Sprintf("step %d of seed %d", step, seed), func(s *memorySink) bool {
				return s.set.Root() == set && s.table.Root() == table
			})
		}
	}
}
