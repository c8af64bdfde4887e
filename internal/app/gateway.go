package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/x/fdpass"
	"hansa.dev/hansa/internal/x/secret"
)

// GatewayOptions configure a gateway.
type GatewayOptions struct {
	// Data is the data folder; it is made if it does not exist. Required.
	Data string
	// Adopt accepts a data folder that was copied or moved; the original must be gone for good.
	Adopt bool
	// Keys gives the key that seals the data folder. Default: the file <Data>.key, made at the first start.
	Keys keys.Provider
	// Name is the name that the gateway asks for when it joins. Default: the host's name.
	Name string
	// HTTPAddr and AdminAddr are the listeners. Defaults: ":8080" and "127.0.0.1:8085".
	HTTPAddr, AdminAddr string
	// HTTPSAddr, if set, takes requests over TLS. CertFile and KeyFile are the default certificate; it may come from
	// elsewhere, too.
	HTTPSAddr, CertFile, KeyFile string
	// HTTP3 has HTTPSAddr take HTTP/3 too, on the UDP port of the same number.
	HTTP3 bool
	// TLS is what holds for TLS on all listeners.
	TLS gateway.TLSOptions
	// Trusted are the proxies whose X-Forwarded-* fields are believed. Default: none.
	Trusted []netip.Prefix
	// Proxies are the load balancers whose connections begin with a header of the PROXY protocol. Default: none.
	Proxies []netip.Prefix
	// Forwarded sends the field of RFC 7239 to backends, Via is the gateway's name in Via: see gateway.Options.
	Forwarded bool
	Via       string
	// Limits and Timeouts bound what clients may send and take their time for. Zero values mean the defaults.
	Limits   h1.Limits
	Timeouts ingress.Timeouts
	// Control are the link addresses (host:port) of control nodes. May be empty.
	Control []string
	// JoinToken is what the gateway joins with, as long as it has not.
	JoinToken secret.Bytes
	// Bundle is a bundle to start from, Passphrase what it is sealed with.
	Bundle     string
	Passphrase secret.Bytes
	// Listeners are further places where requests come in.
	Listeners []gateway.Listener
	// AccessLog is a file, "-" for standard output or "off". Default: "-".
	AccessLog string
	// DrainDelay is how long the health checks say "draining" before the gateway stops taking connections. Default: 0.
	DrainDelay time.Duration
	// RetireLimit is how long connections may go on whose listener was removed or handed over. Default: 1 h.
	RetireLimit time.Duration
	// ReadyFile, if set, is written when the listeners are bound.
	ReadyFile string
	// Reload reads again what may change while the gateway runs. Default: nothing may.
	Reload func() (Settings, error)
	// Level is the level of Log. Default: it cannot be changed.
	Level *slog.LevelVar
	// Successor makes the command that starts a program, the running one if it is "", as this one was started, for
	// Upgrade. Default: this process cannot hand over.
	Successor func(program string) (*exec.Cmd, error)
	// Predecessor is the end of a conversation with the process that hands over to this one; it is closed by the
	// gateway. Default: there is none.
	Predecessor *fdpass.Conn
	// Version is the version of the binary.
	Version string
	// Log is required.
	Log *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// ErrSetting: a setting has a value that the gateway cannot run with.
var ErrSetting = errors.New("a setting is wrong")

// drainLimit is how long requests under way may take when the gateway stops.
const drainLimit = 30 * time.Second

// Gateway is a gateway.
type Gateway struct {
	opts GatewayOptions
	*process

	registry *prometheus.Registry
	folder   *identity.Folder
	sealer   *keys.Sealer
	traffic  *gateway.Gateway
	sink     *sink
	ready    Ready
	pred     *predecessor // nil: none
	stopping sync.Once

	tenancy
	operating

	configured chan struct{} // closed by the first configuration
}

// StartGateway starts a gateway and returns when its listeners are bound, which is before it has a configuration if the
// disk has none. The caller must call Stop, also after Wait. An error leaves nothing running.
func StartGateway(ctx context.Context, opts GatewayOptions) (*Gateway, error) {
	if opts.Data == "" {
		return nil, errors.New("the gateway needs a data folder")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Keys == nil {
		opts.Keys = keys.FileProvider{Path: absolute(opts.Data) + ".key", Outside: opts.Data, Generate: true}
	}
	if opts.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name of the gateway: %w", err)
		}
		opts.Name = nodeName(host)
	}
	opts.HTTPAddr, opts.AdminAddr = orDefault(opts.HTTPAddr, ":8080"), orDefault(opts.AdminAddr, "127.0.0.1:8085")
	if opts.AccessLog = orDefault(opts.AccessLog, "-"); opts.AccessLog == "off" {
		opts.AccessLog = "" // which is nowhere for the data plane
	}
	g := &Gateway{opts: opts, process: newProcess(opts.Log), configured: make(chan struct{})}
	g.retired = make(chan struct{})
	if err := g.start(ctx); err != nil {
		return nil, errors.Join(err, g.stop(context.WithoutCancel(ctx)))
	}
	return g, nil
}

// start brings the parts up. The listeners come last but for the link: with a configuration on the disk the first
// connection is served, and not refused.
func (g *Gateway) start(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"predecessor", g.meetPredecessor},
		{"data folder", g.openData},
		{"data plane", g.makeTraffic},
		{"configuration", g.openMembership},
		{"listeners", g.bindTraffic},
		{"handover", g.awaitTraffic},
		{"traffic", g.startTraffic},
		{"administration", g.startOperating},
		{"ready file", g.announce},
		{"takeover", g.takeOver},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("start %s: %w", step.name, err)
		}
		g.log.DebugContext(ctx, "started", "step", step.name, "took", time.Since(began))
	}
	g.followAgain()
	return nil
}

func (g *Gateway) openData(ctx context.Context) (err error) {
	if g.registry, err = telemetry.NewRegistry(g.opts.Version, "gateway"); err != nil {
		return err
	}
	g.folder, err = identity.OpenFolder(identity.FolderOptions{Dir: g.opts.Data, Adopt: g.opts.Adopt, Lock: g.pred.folderLock()})
	if err != nil {
		return err
	}
	g.onStop("data folder", 5*time.Second, func(context.Context) error { return g.leaveFolder() })
	if g.sealer, err = keys.OpenSealer(ctx, g.opts.Keys); err != nil {
		return err
	}
	return g.openDisk(g.pred.diskLock())
}

// makeTraffic makes the data plane, which takes configurations from now on and requests after startTraffic.
func (g *Gateway) makeTraffic(context.Context) (err error) {
	g.traffic, err = gateway.New(gateway.Options{
		HTTPAddr: g.opts.HTTPAddr, HTTPSAddr: g.opts.HTTPSAddr, HTTP3: g.opts.HTTP3, CertFile: g.opts.CertFile, KeyFile: g.opts.KeyFile, TLS: g.opts.TLS,
		Trusted: g.opts.Trusted, Proxies: g.opts.Proxies, Forwarded: g.opts.Forwarded, Via: g.opts.Via,
		Limits: g.opts.Limits, Timeouts: g.opts.Timeouts, AdminAddr: g.opts.AdminAddr, AccessLog: g.opts.AccessLog, DrainDelay: g.opts.DrainDelay,
		Listeners: append(slices.Clone(g.opts.Listeners), g.pred.added(g.opts.Listeners)...), Inherited: g.pred.takeSockets(),
		RetireLimit: g.opts.RetireLimit, CountsFile: g.folder.Path("counts"), Version: g.opts.Version, Log: g.log, Metrics: g.registry,
		GroupKeys:      func() keys.GroupKeys { return g.membership().member.GroupKeys() },
		FetchGroupKeys: func(ctx context.Context) error { return g.membership().fetchGroupKeys(ctx) },
		Checks: []gateway.Check{
			{Name: "link", Optional: true, Run: g.linkFault},
			{Name: "disk", Optional: true, Run: g.diskFault},
			{Name: "secrets", Optional: true, Run: func() error { return g.traffic.SecretsFault() }},
		},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetting, err)
	}
	g.onStop("data plane", drainLimit, g.stopTraffic)
	g.sink = &sink{Gateway: g.traffic, done: g.configured, trimmer: newTrimmer(g.traffic.Connections)}
	g.run("trimmer", g.sink.trimmer.run)
	return nil
}

func (g *Gateway) openMembership(ctx context.Context) error {
	m := g.membership()
	m.sink = g.sink
	return m.open(ctx)
}

func (g *Gateway) bindTraffic(ctx context.Context) error {
	if err := g.loadMaintenance(); err != nil {
		return err
	}
	return g.traffic.Bind(ctx)
}

func (g *Gateway) startTraffic(ctx context.Context) error {
	if err := g.traffic.Start(ctx); err != nil {
		return err
	}
	g.ready.Addresses = g.traffic.Addresses()
	return nil
}

// stopTraffic stops the data plane, and waits for it if it is retiring.
func (g *Gateway) stopTraffic(ctx context.Context) error {
	err := g.traffic.Stop(ctx)
	g.retirement.Wait()
	return err
}

// sink is the data plane as what the feed fills. It tells of the first configuration, and the trimmer of large changes.
type sink struct {
	*gateway.Gateway
	trimmer *trimmer
	once    sync.Once
	done    chan struct{} // closed by the first configuration

	table *snapshot.Credentials // in force; the feed applies one at a time
}

// Apply implements fetch.Sink.
func (s *sink) Apply(ctx context.Context, c snapshot.Checkpoint, set *snapshot.Set, changed []string) error {
	err := s.Gateway.Apply(ctx, c, set, changed)
	if err == nil {
		s.once.Do(func() { close(s.done) })
		s.trimmer.note(len(changed), set.Len())
	}
	return err
}

// ApplyCredentials implements fetch.Sink.
func (s *sink) ApplyCredentials(ctx context.Context, c snapshot.Checkpoint, table *snapshot.Credentials) error {
	err := s.Gateway.ApplyCredentials(ctx, c, table)
	if err == nil {
		s.trimmer.note(replaced(s.table, table), table.Len())
		s.table = table
	}
	return err
}

// AwaitConfiguration blocks until the gateway has a configuration, ctx ends or a part of the gateway fails.
func (g *Gateway) AwaitConfiguration(ctx context.Context) error {
	select {
	case <-g.configured:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a configuration: %w", errors.Join(ctx.Err(), g.linkFault()))
	}
}

func (g *Gateway) announce(ctx context.Context) error {
	g.ready.PID = os.Getpid()
	if err := g.writeReady(); err != nil {
		return err
	}
	if g.opts.ReadyFile != "" {
		g.onStop("ready file", time.Second, func(context.Context) error {
			if g.handedOver.Load() {
				return nil // it is the successor's
			}
			return os.Remove(g.opts.ReadyFile)
		})
	}
	g.log.InfoContext(ctx, "gateway listens", "http", g.ready.Addresses["http"], "admin", g.ready.Addresses["admin"])
	return nil
}

func (g *Gateway) writeReady() error {
	if g.opts.ReadyFile == "" {
		return nil
	}
	return writeReady(g.opts.ReadyFile, g.ready)
}

// Ready returns what a script needs to use the gateway.
func (g *Gateway) Ready() Ready { return g.ready }

// Wait blocks until ctx ends (nil), a part of the gateway fails, or the gateway has handed over to another process and its
// last connection has ended (nil).
func (g *Gateway) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer func() { cancel(); <-stop }()
	go func() {
		defer close(stop)
		select {
		case <-g.retired:
			cancel()
		case <-ctx.Done():
		}
	}()
	return g.wait(ctx)
}

// Stop drains and ends the gateway within ctx.
func (g *Gateway) Stop(ctx context.Context) error {
	g.stopping.Do(g.endUpgrade)
	return g.stop(ctx)
}

// nodeName makes a name for a node of a host name: lower case, up to the first dot, what is not allowed left out.
func nodeName(host string) string {
	name := []byte{}
	for _, c := range []byte(host) {
		switch {
		case c == '.':
			return nonEmptyName(name)
		case c >= 'A' && c <= 'Z':
			name = append(name, c+'a'-'A')
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-' && len(name) > 0:
			name = append(name, c)
		}
	}
	return nonEmptyName(name)
}

func nonEmptyName(name []byte) string {
	for len(name) > 0 && name[len(name)-1] == '-' {
		name = name[:len(name)-1]
	}
	if len(name) == 0 {
		return "gateway"
	}
	return string(name[:min(len(name), 63)])
}
