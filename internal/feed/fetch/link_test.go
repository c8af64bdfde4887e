package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/link/linktest"
	"hansa.dev/hansa/internal/snapshot"
)

// TestOverTheLink runs the feed over a real link, with certificates and a trust document, on a network in memory where a
// round trip takes 30 s. A change must be in force after one way, and after a cut as soon as the link is back.
func TestOverTheLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const oneWay = 15 * time.Second
		fabric, cluster := linktest.Memory(t), linktest.NewCluster(t)
		discard := slog.New(slog.DiscardHandler)
		server, err := serve.New(serve.Options{Peer: serve.LinkPeer, Logger: discard, Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		server.SetTrust(cluster.Control.Trust().Encoded())
		cluster.Serve(t, fabric.Listener, link.ServerOptions{Permissions: serve.Permissions(), Timeouts: fabric.Timeouts}, server.Register)
		member := cluster.Gateway(t, "gw-1")
		l := cluster.Dial(t, link.Options{Identity: member, Addresses: []string{fabric.Address}, Dial: fabric.Dial, Timeouts: fabric.Timeouts})
		fabric.Faults.SetDelay(oneWay)

		sink, disk := newMemorySink(), openDisk(t, t.TempDir())
		defer disk.Close()
		opts := testOptions(&authority{}, sink, prometheus.NewRegistry())
		opts.Cluster, opts.Disk = cluster.Control.Trust().Cluster, disk
		opts.Verify, opts.Learn = TrustVerifier(member.Trust, cluster.Now), member.UpdateTrust
		f, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, LinkConnections(l)) }()
		defer func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v, want context.Canceled", err)
			}
		}()

		p := linkPublisher{t: t, cluster: cluster, server: server, set: snapshot.NewSet()}
		p.credentials()
		p.change("/first")
		p.wait(sink, 30*time.Minute)
		for i := range 3 {
			p.change(fmt.Sprint("/change", i))
			if took := p.wait(sink, time.Minute); took > oneWay+time.Second {
				t.Errorf("a change took %v over a link of %v each way", took, oneWay)
			}
		}
		for i := range 5 {
			fabric.Faults.Cut()
			p.change(fmt.Sprint("/cut", i))
			// TCP's, TLS's and HTTP/2's round trips, and that of the call.
			if took := p.wait(sink, 10*time.Minute); took > 12*oneWay {
				t.Errorf("after a cut a change took %v over a link of %v each way", took, oneWay)
			}
		}
		time.Sleep(2 * oneWay) // for the acknowledgement
		if gw := server.Gateways(); len(gw) != 1 || gw[0].Name != "gw-1" || gw[0].Seq != p.seq || !gw[0].Current {
			t.Errorf("Gateways() = %+v", gw)
		}
	})
}

// linkPublisher publishes what a control node's own keys sign.
type linkPublisher struct {
	t       *testing.T
	cluster *linktest.Cluster
	server  *serve.Server
	set     *snapshot.Set
	seq     uint64
	at      time.Time
	head    snapshot.Checkpoint
}

func (p *linkPublisher) sign(view string, content snapshot.Content) snapshot.Checkpoint {
	p.t.Helper()
	p.seq++
	signer, err := p.cluster.Control.Signer(keys.PurposeCheckpoint)
	if err != nil {
		p.t.Fatal(err)
	}
	c := snapshot.Checkpoint{Cluster: p.cluster.Control.Trust().Cluster, Epoch: 1, Seq: p.seq, View: view, IssuedAt: time.Now()}
	c.Describe(content)
	if err := c.Sign(signer.KeyID(), func(m []byte) ([]byte, error) { return signer.Sign(keys.PurposeCheckpoint, m) }); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p *linkPublisher) credentials() {
	p.t.Helper()
	table := snapshot.NewCredentials().With(credentials(0, 10))
	if err := p.server.PublishCredentials(p.sign(snapshot.CredentialView(testOrg), table), table); err != nil {
		p.t.Fatal(err)
	}
}

func (p *linkPublisher) change(content string) {
	p.t.Helper()
	p.set = p.set.With(apis(p.t, 0, 3, content), nil)
	p.head, p.at = p.sign(snapshot.ConfigView(testOrg, testGroup), p.set), time.Now()
	if err := p.server.Publish(p.head, p.set); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits until the sink has the last change and returns how long that took.
func (p *linkPublisher) wait(sink *memorySink, limit time.Duration) time.Duration {
	p.t.Helper()
	deadline := time.After(limit)
	for {
		sink.mu.Lock()
		root, wake := sink.cp.Root, sink.wake
		sink.mu.Unlock()
		if root == p.head.Root {
			return time.Since(p.at)
		}
		select {
		case <-wake:
		case <-deadline:
			p.t.Fatalf("version %d did not arrive within %v; the gateway has %d", p.head.Seq, limit, sink.cp.Seq)
		}
	}
}
