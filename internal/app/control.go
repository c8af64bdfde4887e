package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/acme"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/publish"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/vault"
	"hansa.dev/hansa/internal/x/durable"
	"hansa.dev/hansa/internal/x/secret"
)

// ControlOptions configure a control node.
type ControlOptions struct {
	// Data is the data folder; it is made if it does not exist. Required.
	Data string
	// Adopt accepts a data folder that was copied or moved; the original must be gone for good.
	Adopt bool
	// Name is the name of the node. Default: "control".
	Name string
	// Hosts are names and IP addresses for the certificate of the control API, beside localhost and the host's name.
	Hosts []string
	// RootFile is the root key. Default: root.key among the keys in the data folder.
	RootFile string
	// Keys gives the key that seals the private keys of the node and the secrets in the record. Default: the file
	// <Data>.key, made at the first start.
	Keys keys.Provider
	// APIAddr and LinkAddr are the listeners. Defaults: ":8090" and ":8091".
	APIAddr, LinkAddr string
	// Advertise are the link addresses (host:port) that join tokens carry. Default: none; the gateway is told its own.
	Advertise []string
	// ReadyFile, if set, is written when the node is ready.
	ReadyFile string
	// ACMEDirectories are the only CAs that certificates are ordered from. Default: any.
	ACMEDirectories []string
	// ACMERetry is how long after a CA has refused a certificate it is asked again. Default: acme.DefaultRetry.
	ACMERetry time.Duration
	// Version is the version of the binary.
	Version string
	// Log is required.
	Log *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Control is a control node.
type Control struct {
	opts ControlOptions
	*process

	registry  *prometheus.Registry
	folder    *identity.Folder
	record    *etcd.Store
	sealer    *keys.Sealer
	ids       *identity.Control
	feed      *serve.Server
	publisher *publish.Publisher
	api       *control.Server
	link      *link.Server
	trimmer   *trimmer
	ready     Ready
}

// StartControl starts a control node and returns when it is ready. The caller must call Stop, also after Wait. An
// error leaves nothing running.
func StartControl(ctx context.Context, opts ControlOptions) (*Control, error) {
	if opts.Data == "" {
		return nil, errors.New("the control node needs a data folder")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.APIAddr, opts.LinkAddr = orDefault(opts.APIAddr, ":8090"), orDefault(opts.LinkAddr, ":8091")
	opts.Name = orDefault(opts.Name, "control")
	if opts.Keys == nil {
		opts.Keys = keys.FileProvider{Path: absolute(opts.Data) + ".key", Outside: opts.Data, Generate: true}
	}
	c := &Control{opts: opts, process: newProcess(opts.Log), trimmer: newTrimmer(nil)}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.stop(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// start brings the parts up in the order in which they need each other.
func (c *Control) start(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"data folder", c.openFolder},
		{"record", c.openRecord},
		{"keys", c.openKeys},
		{"feed", c.startFeed},
		{"control API", c.startAPI},
		{"link", c.startLink},
		{"ACME", c.startACME},
		{"ready file", c.announce},
	} {
		began := c.opts.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("start %s: %w", step.name, err)
		}
		c.log.DebugContext(ctx, "started", "step", step.name, "took", c.opts.Now().Sub(began))
	}
	return nil
}

func (c *Control) openFolder(context.Context) (err error) {
	if c.registry, err = telemetry.NewRegistry(c.opts.Version, "control"); err != nil {
		return err
	}
	c.folder, err = identity.OpenFolder(identity.FolderOptions{Dir: c.opts.Data, Adopt: c.opts.Adopt})
	if err != nil {
		return err
	}
	c.onStop("data folder", time.Second, func(context.Context) error { return c.folder.Close() })
	return nil
}

func (c *Control) openRecord(ctx context.Context) (err error) {
	c.record, err = etcd.Open(ctx, etcd.Options{
		Dir: c.folder.Path("record"), Logger: c.log, Registerer: c.registry, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	c.onStop("record", 20*time.Second, func(context.Context) error { return c.record.Close() })
	c.run("record", c.awaitFailure)
	return nil
}

// awaitFailure ends the node when its record can no longer be written or followed. It would answer reads with what is
// old and refuse all else; a new start reads what is on the disk and checks it.
func (c *Control) awaitFailure(ctx context.Context) error {
	select {
	case <-c.record.Failed():
		return c.record.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Control) openKeys(ctx context.Context) (err error) {
	if c.sealer, err = keys.OpenSealer(ctx, c.opts.Keys); err != nil {
		return err
	}
	c.ids, err = identity.OpenControl(identity.ControlOptions{
		Dir: c.folder.Path("keys"), RootFile: c.opts.RootFile, Sealer: c.sealer, Cluster: c.record.Cluster(), Name: c.opts.Name,
		Hosts: c.opts.Hosts, Now: c.opts.Now, Logger: c.log,
	})
	if err != nil {
		return err
	}
	if epoch := c.record.State().Version().Epoch; c.ids.Trust().Epoch < epoch {
		if err := c.ids.AllowEpoch(epoch); err != nil {
			return fmt.Errorf("the record is of epoch %d, which the root key must allow: %w", epoch, err)
		}
	}
	if err := durable.WriteFile(c.caFile(), 0o644, durable.Bytes(c.ids.APIAuthorities())); err != nil {
		return fmt.Errorf("write CA file: %w", err)
	}
	c.run("keys", c.ids.Run)
	return nil
}

func (c *Control) caFile() string    { return c.folder.Path("ca.pem") }
func (c *Control) tokenFile() string { return c.folder.Path("admin.token") }

func (c *Control) startFeed(ctx context.Context) (err error) {
	c.feed, err = serve.New(serve.Options{Peer: serve.LinkPeer, Logger: c.log, Registerer: c.registry, Now: c.opts.Now})
	if err != nil {
		return err
	}
	c.onStop("feed", 5*time.Second, func(context.Context) error { c.feed.Close(); return nil })
	ledger, err := publish.OpenLedger(c.folder.Path("published.json"), c.log)
	if err != nil {
		return err
	}
	// A new trust document reaches gateways before the first checkpoint that is signed by a key of it.
	sign := func() (keys.Signer, error) {
		c.feed.SetTrust(c.ids.Trust().Encoded())
		return c.ids.Signer(keys.PurposeCheckpoint)
	}
	c.publisher, err = publish.New(publish.Options{
		Record: c.record, Feed: c.feed, Ledger: ledger, Version: c.opts.Version,
		Signer: sign, Logger: c.log, Registerer: c.registry, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	c.run("publisher", c.publisher.Run)
	return nil
}

func (c *Control) startAPI(ctx context.Context) (err error) {
	c.api, err = control.New(control.Options{
		Store: c.record, Gateways: c.feed, Join: &control.Join{Root: c.ids.Root(), Addresses: c.opts.Advertise},
		Vault: vault.New(c.sealer), Bundles: c, Compiled: c.publisher.Compiled, Log: c.log, Registerer: c.registry, Gatherer: c.registry,
		Version: c.opts.Version, Now: c.opts.Now,
		Checks: []control.Check{{Name: "publishing", Run: func(context.Context) error { return c.publisher.Err() }}},
	})
	if err != nil {
		return err
	}
	if err := c.api.Bootstrap(ctx, c.tokenFile()); err != nil {
		return err
	}
	if err := c.api.EnsureGroupKeys(ctx); err != nil {
		return err
	}
	l, err := listen(ctx, c.opts.APIAddr)
	if err != nil {
		return err
	}
	srv := c.api.HTTPServer()
	srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.ids.APICertificate}
	c.serveHTTP("control API", srv, l)
	c.address("api", l)
	return nil
}

func (c *Control) startLink(ctx context.Context) (err error) {
	c.link, err = link.NewServer(link.ServerOptions{
		Identity:    c.ids,
		Permissions: serve.Permissions(),
		Revoked:     c.api.Enrolment().Revoked,
		Enrolment:   &link.Enrolment{Authority: c.ids, Store: c.api.Enrolment(), Keys: c.api.Enrolment()},
		Logger:      c.log, Registerer: c.registry, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	c.link.Register(c.feed.Register)
	l, err := listen(ctx, c.opts.LinkAddr)
	if err != nil {
		return err
	}
	c.address("link", l)
	c.run("link", func(ctx context.Context) error { return c.link.Serve(ctx, l) })
	c.run("revocation of gateways", c.dropRevoked)
	c.run("trimmer", c.trimmer.run)
	return nil
}

// startACME starts what has certificates issued. Where several control nodes are, it runs on the one that leads.
func (c *Control) startACME(context.Context) error {
	w, err := acme.New(acme.Options{
		Record: c.record, Control: c.api.Issuance(), Vault: vault.New(c.sealer), Directories: c.opts.ACMEDirectories, Retry: c.opts.ACMERetry,
		Version: c.opts.Version, Log: c.log, Registerer: c.registry, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	c.run("ACME", w.Run)
	return nil
}

// WriteBundle implements control.Bundles.
func (c *Control) WriteBundle(_ context.Context, w io.Writer, organization, group string) (bool, error) {
	config, ok := c.publisher.Current(snapshot.ConfigView(organization, group))
	if !ok {
		return false, nil
	}
	credentials, ok := c.publisher.Current(snapshot.CredentialView(organization))
	if !ok {
		return false, nil
	}
	b := &bundle.Bundle{
		Trust: c.ids.Trust(), Config: config.Checkpoint, Set: config.Set, CredentialConfig: credentials.Checkpoint,
		Credentials: credentials.Credentials, Control: c.opts.Advertise, CreatedAt: c.opts.Now().UTC(),
	}
	signer, err := c.ids.Signer(keys.PurposeBundle)
	if err != nil {
		return false, err
	}
	if err := b.Sign(signer); err != nil {
		return false, err
	}
	return true, bundle.Write(w, b, secret.Bytes{})
}

// dropRevoked ends the connections of gateways as soon as the record says that they are revoked, whichever control
// node was told. It tells the trimmer of large change sets, too.
func (c *Control) dropRevoked(ctx context.Context) error {
	for {
		c.link.DropRevoked()
		for change, err := range c.record.Watch(ctx, c.record.State()) {
			if errors.Is(err, store.ErrCompacted) {
				break
			}
			if err != nil {
				return err
			}
			c.trimmer.note(len(change.Changes)+change.NumCredentials, 0)
			if slices.ContainsFunc(change.Changes, func(ch store.Change) bool { return ch.Key.Kind == v1.KindGateway }) {
				c.link.DropRevoked()
			}
		}
	}
}

func (c *Control) announce(ctx context.Context) error {
	c.ready.PID, c.ready.CAFile, c.ready.TokenFile = os.Getpid(), absolute(c.caFile()), absolute(c.tokenFile())
	if c.opts.ReadyFile != "" {
		if err := writeReady(c.opts.ReadyFile, c.ready); err != nil {
			return err
		}
		c.onStop("ready file", time.Second, func(context.Context) error { return os.Remove(c.opts.ReadyFile) })
	}
	c.log.InfoContext(ctx, "control node ready", "api", c.ready.Addresses["api"], "link", c.ready.Addresses["link"], "cluster", c.record.Cluster())
	return nil
}

// Ready returns what a script needs to use the node.
func (c *Control) Ready() Ready { return c.ready }

// Wait blocks until ctx ends (nil) or a part of the node fails.
func (c *Control) Wait(ctx context.Context) error { return c.wait(ctx) }

// Stop ends the node within ctx.
func (c *Control) Stop(ctx context.Context) error { return c.stop(ctx) }

func (c *Control) address(name string, l net.Listener) {
	if c.ready.Addresses == nil {
		c.ready.Addresses = map[string]string{}
	}
	c.ready.Addresses[name] = l.Addr().String()
}

// serveHTTP runs an HTTP server, with TLS if it is configured, on a listener until the process stops; calls under way may then finish.
func (p *process) serveHTTP(name string, srv *http.Server, l net.Listener) {
	p.run(name, func(ctx context.Context) error {
		stopped := context.AfterFunc(ctx, func() {
			// Watches of the API last as long as the caller likes: after a moment they are cut.
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			if srv.Shutdown(grace) != nil {
				srv.Close()
			}
		})
		defer stopped()
		serve := srv.Serve
		if srv.TLSConfig != nil {
			serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
		}
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// absolute returns the path so that it holds in every working directory, or as it is if that cannot be said.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
