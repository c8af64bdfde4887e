package fetch

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/snapshot"
)

func fastReconnect() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           grpcbackoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 100 * time.Millisecond},
		MinConnectTimeout: 2 * time.Minute,
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials(credentials(0, 100)...)
	c.change(apis(t, 0, 50, "/a"))
	g := newGateway(t, a, t.TempDir())
	g.run(c.addr)
	g.sink.wait(t, "the first version", func(s *memorySink) bool { return s.set.Len() == 50 && s.table.Len() == 100 })

	for i := range 20 {
		g.sink.waitFor(t, c.change(apis(t, i, i+1, fmt.Sprint("/b", i)), fmt.Sprintf("api/acme/prod/api-%05d", 30+i)))
	}
	ccp := c.changeCredentials(append(credentials(100, 110), snapshot.CredentialChange{Credential: credential(3), Remove: true})...)
	g.sink.waitFor(t, ccp)
	if missing := c.server.WaitApplied(t.Context(), []string{snapshot.ConfigView(testOrg, testGroup)}, c.epoch, c.seq); len(missing) > 0 {
		t.Errorf("WaitApplied misses %v", missing)
	}
	if _, ok := g.sink.table.Lookup(credential(3).Hash); ok || g.sink.table.Len() != 109 {
		t.Errorf("the gateway has %d credentials, the removed one among them: %v", g.sink.table.Len(), ok)
	}
	gateways := c.server.Gateways()
	if len(gateways) != 1 || !gateways[0].Link || !gateways[0].Current || gateways[0].Digest != c.set.Root() || gateways[0].LastRefusal != nil {
		t.Errorf("Gateways() = %+v", gateways)
	}
	st := g.fetcher.Status()
	if !st.Configuration.Link || st.Configuration.Generation == 0 || st.Configuration.Degraded != "" {
		t.Errorf("Status() = %+v", st.Configuration)
	}
}

func TestRefusedVersionIsShown(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials()
	good := c.change(apis(t, 0, 5, "/a"))
	dir := t.TempDir()
	g := newGateway(t, a, dir)
	g.sink.setRefuse(func(s *snapshot.Set) error {
		if _, ok := s.Get("api/acme/prod/api-00007"); ok {
			return fmt.Errorf("build: %w", &snapshot.Refusal{Code: snapshot.RefusedCannotRun, Entry: "api/acme/prod/api-00007", Field: "basePath", Detail: "no"})
		}
		return nil
	})
	g.run(c.addr)
	g.sink.waitFor(t, good)
	c.change(apis(t, 7, 8, "/bad"))
	view := []string{snapshot.ConfigView(testOrg, testGroup)}
	if missing := c.server.WaitApplied(t.Context(), view, c.epoch, c.seq); len(missing) != 1 || missing[0] != "gw-1" {
		t.Errorf("WaitApplied misses %v, want gw-1", missing)
	}
	gw := c.server.Gateways()[0]
	if gw.LastRefusal == nil || gw.LastRefusal.Entry != "api/acme/prod/api-00007" || gw.LastRefusal.Field != "basePath" || gw.Seq != good.Seq {
		t.Errorf("Gateways() = %+v, refusal %+v", gw, gw.LastRefusal)
	}
	// What was refused must not come back from the disk.
	g.stop()
	again := newGateway(t, a, dir)
	if again.sink.cp.Root != good.Root {
		t.Errorf("a restart begins with root %.8s, want the last good %.8s", again.sink.cp.Root, good.Root)
	}
	again.stop()

	// The next good version is taken and clears the refusal.
	g = newGateway(t, a, dir)
	g.run(c.addr)
	g.sink.waitFor(t, c.change(nil, "api/acme/prod/api-00007"))
	if missing := c.server.WaitApplied(t.Context(), view, c.epoch, c.seq); len(missing) != 0 {
		t.Errorf("WaitApplied misses %v", missing)
	}
	if gw := c.server.Gateways()[0]; gw.LastRefusal != nil {
		t.Errorf("the refusal stays: %+v", gw.LastRefusal)
	}
}

func TestRetryableRefusalIsRetried(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{StateInterval: time.Second})
	c.changeCredentials()
	g := newGateway(t, a, t.TempDir())
	calls := 0
	g.sink.setRefuse(func(*snapshot.Set) error {
		if calls++; calls < 2 {
			return errors.New("the port is in use")
		}
		return nil
	})
	g.run(c.addr)
	g.sink.waitFor(t, c.change(apis(t, 0, 5, "/a")))
}
