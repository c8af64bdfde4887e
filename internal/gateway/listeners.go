package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/handshake"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/http2"
	"hansa.dev/hansa/internal/gateway/http3"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/gateway/listen"
)

// Listener describes a place where requests come in. Each has settings, connections and an end of its own.
type Listener struct {
	// Name tells it from others, in logs and metrics too: up to 40 of a-z, 0-9 and "-".
	Name string `json:"name"`
	// Address is host:port. Port 0 takes a free one.
	Address string `json:"address"`
	// CertFile and KeyFile, in PEM, make it speak TLS. They may be replaced while it runs.
	CertFile string `json:"tlsCertFile,omitempty"`
	KeyFile  string `json:"tlsKeyFile,omitempty"`
	// TLS makes it speak TLS with the certificates of the gateway. With CertFile it need not be set.
	TLS bool `json:"tls,omitempty"`
	// HTTP3 has it speak HTTP/3 too, on the UDP port of the same number. It needs TLS.
	HTTP3 bool `json:"http3,omitempty"`
	// TLSMinVersion is the lowest version of TLS: 1.2 or 1.3. "": that of the gateway.
	TLSMinVersion string `json:"tlsMinVersion,omitempty"`
	// TLSCiphers are the names of the cipher suites of TLS 1.2. None: those of the gateway.
	TLSCiphers []string `json:"tlsCiphers,omitempty"`
	// MaxConns bounds its connections. 0: the bound of the gateway.
	MaxConns int `json:"maxConns,omitempty"`
	// Proxies are the networks of load balancers whose connections begin with a PROXY header, which tells the client's
	// address. None: those of the gateway.
	Proxies []netip.Prefix `json:"proxyProtocol,omitempty"`
	// Trusted are the proxies whose X-Forwarded fields are believed here. None: those of the gateway.
	Trusted []netip.Prefix `json:"trustedProxies,omitempty"`
}

// adminName is the name under which the admin listener appears beside the others.
const adminName = "admin"

var listenerName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// Validate returns what is wrong with l.
func (l *Listener) Validate() error {
	var faults []error
	fault := func(format string, v ...any) {
		faults = append(faults, fmt.Errorf("listener %q: "+format, append([]any{l.Name}, v...)...))
	}
	if !listenerName.MatchString(l.Name) || l.Name == adminName {
		fault("name must be up to 40 of a-z, 0-9 and \"-\", and not %q", adminName)
	}
	if _, _, err := net.SplitHostPort(l.Address); err != nil {
		fault("address %q must be host:port", l.Address)
	}
	if (l.CertFile == "") != (l.KeyFile == "") {
		fault("tlsCertFile and tlsKeyFile must be given together")
	}
	t := TLSOptions{MinVersion: l.TLSMinVersion, Ciphers: l.TLSCiphers}
	if err := t.Validate(); err != nil {
		fault("%w", err)
	}
	if l.HTTP3 && !l.TLS && l.CertFile == "" {
		fault("http3 needs tls or tlsCertFile")
	}
	if l.MaxConns < 0 {
		fault("maxConns must not be negative, as %d is", l.MaxConns)
	}
	return errors.Join(faults...)
}

// What changes of listeners are refused for.
var (
	// ErrNoListener: there is no listener of that name.
	ErrNoListener = errors.New("there is no such listener")
	// ErrListenerExists: there is one already.
	ErrListenerExists = errors.New("there is a listener of that name already")
)

// Socket is a socket that listens.
type Socket struct {
	// Name and Address are those that it was bound for.
	Name, Address string
	Listener      net.Listener
}

// door is one listener with the engine behind it.
type door struct {
	spec     Listener
	listener *listen.Listener
	engine   *http1.Server
	http2    *http2.Server
	http3    *http3.Server      // nil: it does not speak that
	secure   *secure            // nil: it speaks no TLS
	stop     context.CancelFunc // ends accepting; set when it is open

	announcer    *announcer    // nil without http3
	adopts       bool          // http3 is that of the door before, until this one comes into force
	http3Options http3.Options // that it is to have then
}

func (d *door) engines() []engine {
	all := []engine{d.engine, d.http2}
	if d.http3 != nil {
		all = append(all, d.http3)
	}
	return all
}

// discard gives back the addresses of a door that was not opened.
func (d *door) discard() error {
	err := d.listener.Close()
	if d.http3 != nil && !d.adopts {
		err = errors.Join(err, d.http3.Close())
	}
	return err
}

// adopt takes over from the door before.
func (d *door) adopt(was *door) {
	was.http3 = nil
	d.http3.Reconfigure(d.http3Options)
}

// doors are the listeners of a gateway. Those that were removed stay until their last connection has ended.
type doors struct {
	g *Gateway

	change sync.Mutex // held while doors are made and changed, before mu

	mu       sync.Mutex // guards what follows
	all      map[string]*door
	retiring map[*door]struct{}
	opened   bool
	stopped  bool
	leaving  bool

	serving sync.WaitGroup // loops that accept, and removals
}

// StandardListeners returns the listeners that a gateway has by itself: http, and https if there is an address for it.
func StandardListeners(httpAddr, httpsAddr, certFile, keyFile string, http3 bool) []Listener {
	all := []Listener{{Name: "http", Address: httpAddr}}
	if httpsAddr != "" {
		all = append(all, Listener{Name: "https", Address: httpsAddr, CertFile: certFile, KeyFile: keyFile, TLS: true, HTTP3: http3})
	}
	return all
}

// Bind takes the addresses of the listeners without taking connections. If it fails, nothing is bound.
func (g *Gateway) Bind(ctx context.Context) error {
	if g.adminListener != nil {
		return nil
	}
	o := &g.opts
	err := g.readCertificates()
	if err == nil {
		err = g.SetListeners(ctx, append(StandardListeners(o.HTTPAddr, o.HTTPSAddr, o.CertFile, o.KeyFile, o.HTTP3), o.Listeners...))
	}
	if err == nil {
		if g.adminListener = g.inherited(adminName, o.AdminAddr); g.adminListener == nil {
			g.adminListener, err = new(net.ListenConfig).Listen(ctx, "tcp", o.AdminAddr)
		}
	}
	for _, s := range o.Inherited { // nobody wanted them
		err = errors.Join(err, s.Listener.Close())
	}
	o.Inherited = nil
	if err != nil {
		return fmt.Errorf("start gateway: %w", errors.Join(err, g.doors.close()))
	}
	return nil
}

// inherited takes a socket from those that were inherited; nil if there is none for that address.
func (g *Gateway) inherited(name, address string) net.Listener {
	at := slices.IndexFunc(g.opts.Inherited, func(s Socket) bool { return s.Name == name && s.Address == address })
	if at < 0 {
		return nil
	}
	s := g.opts.Inherited[at]
	g.opts.Inherited = slices.Delete(slices.Clone(g.opts.Inherited), at, at+1)
	return s.Listener
}

// SetListeners makes the listeners those that are given. What stays the same is left alone; what is changed or gone takes
// no more connections, and those that it has may finish within RetireLimit. A listener that stays at its address never
// stops listening. After an error everything is as before.
func (g *Gateway) SetListeners(ctx context.Context, want []Listener) error {
	return g.editListeners(ctx, func([]Listener) ([]Listener, error) { return want, nil })
}

// editListeners makes the listeners what edit makes of them.
func (g *Gateway) editListeners(ctx context.Context, edit func([]Listener) ([]Listener, error)) error {
	g.doors.change.Lock()
	defer g.doors.change.Unlock()
	want, err := edit(g.Listeners())
	if err != nil {
		return err
	}
	next := make(map[string]*door)
	var made []*door
	var faults []error
	now := g.doors.current()
	for _, l := range want {
		d := now[l.Name]
		err := l.Validate()
		switch {
		case err != nil:
		case next[l.Name] != nil:
			err = fmt.Errorf("listener %q: %w", l.Name, ErrListenerExists)
		case d == nil || !reflect.DeepEqual(d.spec, l):
			if d, err = g.newDoor(ctx, l, d); err == nil {
				made = append(made, d)
			}
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		next[l.Name] = d
	}
	if len(faults) == 0 && !g.doors.swap(next) {
		faults = append(faults, ErrStopping)
	}
	if len(faults) > 0 {
		for _, d := range made {
			faults = append(faults, d.discard())
		}
		return errors.Join(faults...)
	}
	return nil
}

// AddListener opens one more listener. The error is ErrListenerExists if there is one of that name.
func (g *Gateway) AddListener(ctx context.Context, l Listener) error {
	return g.editListeners(ctx, func(all []Listener) ([]Listener, error) { return append(all, l), nil })
}

// RemoveListener closes a listener. Its connections may finish; those of others are not concerned. The error is
// ErrNoListener if there is none of that name.
func (g *Gateway) RemoveListener(ctx context.Context, name string) error {
	return g.editListeners(ctx, func(all []Listener) ([]Listener, error) {
		n := len(all)
		if all = slices.DeleteFunc(all, func(l Listener) bool { return l.Name == name }); len(all) == n {
			return nil, fmt.Errorf("listener %q: %w", name, ErrNoListener)
		}
		return all, nil
	})
}

// Listeners returns the listeners as they were asked for, by name.
func (g *Gateway) Listeners() []Listener {
	var all []Listener
	for _, d := range g.doors.current() {
		all = append(all, d.spec)
	}
	slices.SortFunc(all, func(a, b Listener) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Addresses returns what the gateway listens on, by name: those of the listeners, and admin.
func (g *Gateway) Addresses() map[string]string {
	all := map[string]string{adminName: g.adminListener.Addr().String()}
	for name, d := range g.doors.current() {
		all[name] = d.listener.Addr().String()
	}
	return all
}

// Sockets returns the sockets of all listeners once more, for another process to listen on. The caller closes them.
func (g *Gateway) Sockets() (names, addresses []string, files []*os.File, err error) {
	add := func(name, address string, file func() (*os.File, error)) {
		f, fileErr := file()
		if fileErr != nil {
			err = errors.Join(err, fmt.Errorf("share the socket of listener %q: %w", name, fileErr))
			return
		}
		names, addresses, files = append(names, name), append(addresses, address), append(files, f)
	}
	for name, d := range g.doors.current() {
		add(name, d.spec.Address, d.listener.File)
	}
	if l, ok := g.adminListener.(*net.TCPListener); ok {
		add(adminName, g.opts.AdminAddr, l.File)
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, nil, nil, err
	}
	return names, addresses, files, nil
}

// newDoor binds a listener. If was has the same address, its socket is used.
func (g *Gateway) newDoor(ctx context.Context, spec Listener, was *door) (*door, error) {
	o := &g.opts
	trusted, proxies := spec.Trusted, spec.Proxies
	if len(trusted) == 0 {
		trusted = o.Trusted
	}
	if len(proxies) == 0 {
		proxies = o.Proxies
	}
	d := &door{spec: spec}
	var handler exchange.Handler = g.core
	if spec.HTTP3 {
		d.announcer = &announcer{Handler: g.core}
		handler = d.announcer
	}
	rules := ingress.Rules{Trusted: trusted, Forwarded: o.Forwarded, Via: o.Via}
	engine := func(name string) ingress.Options {
		return ingress.Options{
			Handler: handler, Sweeper: g.sweeper, Bodies: g.bodies, Log: o.Log.With("component", "gateway."+name), Registerer: o.Metrics,
			Timeouts: o.Timeouts, Limits: o.Limits, Rules: rules,
		}
	}
	var err error
	d.http2, err = http2.New(http2.Options{Options: engine("http2")})
	if err != nil {
		return nil, err
	}
	d.engine, err = http1.New(http1.Options{Options: engine("http1"), HTTP2: func(h http1.HandOver) {
		d.http2.Serve(http2.Conn{TCP: h.TCP, Stream: h.Stream, Read: h.Read, Scheme: h.Scheme, Peer: h.Peer})
	}})
	if err != nil {
		return nil, err
	}
	lo := listen.Options{
		Name: spec.Name, Address: spec.Address, MaxConns: cmp.Or(spec.MaxConns, o.MaxConns), Proxies: proxies,
		Guard:  g.core.guard,
		Serve:  func(c net.Conn) { d.engine.Serve(http1.Conn{Net: c}) },
		Refuse: func(c net.Conn) { d.engine.Refuse(http1.Conn{Net: c}) },
		Log:    o.Log.With("component", "gateway.listen"), Registerer: o.Metrics,
		Inherited: g.inherited(spec.Name, spec.Address),
	}
	if spec.TLS || spec.CertFile != "" {
		if d.secure, err = g.newSecure(&spec, []string{handshake.HTTP2, handshake.HTTP1}); err != nil {
			return nil, err
		}
		lo.Serve, lo.Refuse = func(c net.Conn) { g.serveTLS(d, c) }, nil
	}
	if was != nil && was.spec.Address == spec.Address {
		if lo.Inherited, err = was.dup(); err != nil {
			return nil, err
		}
	}
	return d, g.bind(ctx, d, was, lo, rules)
}

// portTries is how often the system is asked for a port of TCP until that of UDP with the same number is free, too.
const portTries = 20

// bind gives a door its sockets.
func (g *Gateway) bind(ctx context.Context, d, was *door, lo listen.Options, rules ingress.Rules) (err error) {
	inherited := lo.Inherited != nil
	_, port, _ := net.SplitHostPort(lo.Address)
	for tries := 1; ; tries++ {
		if d.listener, err = listen.New(ctx, lo); err != nil || !d.spec.HTTP3 {
			return err
		}
		if err = g.addHTTP3(ctx, d, was, rules, inherited); err == nil {
			return nil
		}
		err = errors.Join(err, d.listener.Close())
		if inherited || port != "0" || tries == portTries {
			return err
		}
	}
}

// dup returns the socket of d once more.
func (d *door) dup() (net.Listener, error) {
	f, err := d.listener.File()
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	return l, errors.Join(err, f.Close())
}

// current returns the doors by name.
func (ds *doors) current() map[string]*door {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.all
}

// engines returns those of all doors, of those that were removed too.
func (ds *doors) engines() (all []engine) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.all {
		all = append(all, d.engines()...)
	}
	for d := range ds.retiring {
		all = append(all, d.engines()...)
	}
	return all
}

// leave tells all engines, and those to come, whether responses end their connections. Those of doors that were removed
// know already.
func (ds *doors) leave(on bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.leaving = on
	for _, d := range ds.all {
		for _, e := range d.engines() {
			e.Leave(on)
		}
	}
}

// swap brings doors into force, opens those that are new and retires those that are gone. It tells whether that could be.
func (ds *doors) swap(next map[string]*door) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.stopped {
		return false
	}
	was := ds.all
	ds.all = next
	for name, d := range next {
		if was[name] == d {
			continue
		}
		for _, e := range d.engines() {
			e.Leave(ds.leaving)
		}
		if d.adopts {
			d.adopt(was[name])
		}
		if ds.opened {
			ds.openLocked(d)
		}
	}
	for name, d := range was {
		if next[name] != d {
			ds.retireLocked(d)
		}
	}
	return true
}

// open begins to take connections.
func (ds *doors) open() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.opened = true
	for _, d := range ds.all {
		ds.openLocked(d)
	}
}

func (ds *doors) openLocked(d *door) {
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	ds.serving.Go(func() { ds.g.run(ctx, d.spec.Name, d.listener.Run) })
	if d.secure != nil {
		ds.serving.Go(func() { ds.g.run(ctx, d.spec.Name+" certificates", d.secure.run) })
	}
	if d.http3 != nil && !d.adopts {
		ds.serving.Go(func() { ds.g.run(ctx, d.spec.Name+" http3", d.http3.Run) })
	}
	ds.g.opts.Log.Info("listening", slog.String("listener", d.spec.Name), slog.String("address", d.listener.Addr().String()))
}

// retireLocked closes a door and lets its connections finish.
func (ds *doors) retireLocked(d *door) {
	if d.stop == nil {
		_ = d.discard()
		return
	}
	d.stop()
	if ds.retiring == nil {
		ds.retiring = make(map[*door]struct{})
	}
	ds.retiring[d] = struct{}{}
	ds.serving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), ds.g.opts.RetireLimit)
		defer cancel()
		err := d.leave(ctx, 0)
		ds.mu.Lock()
		delete(ds.retiring, d)
		ds.mu.Unlock()
		if d.secure != nil {
			d.secure.close()
		}
		ds.g.opts.Log.Info("listener removed", slog.String("listener", d.spec.Name), slog.Any("err", err))
	})
}

// leaveGrace is how long active clients have to leave with a response before idle connections are closed. A client that
// waits longer between two requests must cope with a connection that is closed while it is idle; all of them can.
const leaveGrace = 5 * time.Second

// portGrace is how long requests of HTTP/3 have to end when another process waits for the port, which answers to nobody
// meanwhile. What takes longer is cut: one stream of events would otherwise keep HTTP/3 away for as long as it lasts.
const portGrace = time.Second

// leave lets the connections of a door that was stopped finish: with their next response, and if they are idle after a
// while. Those of HTTP/3 are cut after a time that is not 0.
func (d *door) leave(ctx context.Context, http3Grace time.Duration) error {
	for _, e := range d.engines() {
		e.Leave(true)
	}
	if h3 := d.http3; h3 != nil {
		// Its port cannot be shared: whoever takes over waits for it.
		early, cancel := ctx, context.CancelFunc(func() {})
		if http3Grace > 0 {
			early, cancel = context.WithTimeout(ctx, http3Grace)
		}
		var drained sync.WaitGroup
		drained.Go(func() {
			defer cancel()
			_ = h3.Drain(early) // that it was too slow is as it is to be, that ctx has ended shows below
		})
		defer drained.Wait()
	}
	<-d.listener.Stopped()
	until := time.Now().Add(leaveGrace)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for d.listener.Connections() > 0 && ctx.Err() == nil && time.Now().Before(until) {
		<-tick.C
	}
	return drainEngines(ctx, d.engines())
}

// stop ends accepting for good. It returns the doors that were open until now.
func (ds *doors) stop() (open []*door) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.stopped = true
	for _, d := range ds.all {
		if d.stop != nil {
			d.stop()
			open = append(open, d)
		}
	}
	return open
}

// breakHandshakes ends the handshakes that are under way on a gateway that was stopped: no request can come of them.
func (ds *doors) breakHandshakes() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.all {
		if d.secure != nil {
			d.secure.handshake.Close()
		}
	}
	for d := range ds.retiring {
		if d.secure != nil {
			d.secure.handshake.Close()
		}
	}
}

// wait returns when the last connection of a stopped gateway has ended.
func (ds *doors) wait() { ds.serving.Wait() }

// close gives back the addresses of a gateway that was bound and not started. It may be called again.
func (ds *doors) close() error {
	ds.stop()
	ds.mu.Lock()
	all := ds.all
	ds.all = nil
	ds.mu.Unlock()
	var faults []error
	for _, d := range all {
		faults = append(faults, d.discard())
	}
	if l := ds.g.adminListener; l != nil {
		ds.g.adminListener = nil
		faults = append(faults, l.Close())
	}
	return errors.Join(faults...)
}
