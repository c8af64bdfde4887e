package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/identity"
)

// Access says who may call a method; several may be joined with "|".
type Access uint8

// Who may call. Gateways and ControlNodes need a certificate in its time, unless Expired is added; Anonymous needs
// none. Revoked nodes may never.
const (
	Gateways Access = 1 << iota
	ControlNodes
	Expired
	Anonymous
)

// ServerOptions are for NewServer.
type ServerOptions struct {
	// Identity proves the own end and checks the other. Required.
	Identity Identity
	// Permissions says for every method ("/hansa.link.v1.Feed/Follow") who may call it. A method that is registered
	// and not named here makes Serve fail.
	Permissions map[string]Access
	// Revoked tells whether a node is shut out, although its certificate is good. It is asked at every call and must
	// be quick. nil: nobody is.
	Revoked func(identity.Peer) bool
	// Enrolment, if set, lets new gateways join.
	Enrolment *Enrolment
	// Timeouts: Handshake, Keepalive and KeepaliveTimeout count. A handshake may take twice its time here, because a
	// proxy near the server connects long before the client's first byte is there. The keepalive of clients may be as
	// often as 5 s.
	Timeouts Timeouts
	// MaxMessage is the largest message that is accepted, in bytes. 0: DefaultMaxMessage.
	MaxMessage int
	// MaxConnections bounds the open connections; more are closed as they come. 0: 16384.
	MaxConnections int
	// MaxAnonymous bounds those of them that have shown no certificate. 0: 256.
	MaxAnonymous int
	// Drain is how long calls may still run when Serve is to end. 0: 1 s.
	Drain time.Duration
	// Logger and Registerer are required.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock for certificates. nil: time.Now.
	Now func() time.Time
}

const (
	defaultMaxConnections = 16384
	defaultMaxAnonymous   = 256
	// anonymousLife is how long a connection without certificate may stay: some of the longest round trips.
	anonymousLife = 10 * time.Minute
	maxStreams    = 128
)

func (o *ServerOptions) complete() error {
	if o.Identity == nil || o.Logger == nil || o.Registerer == nil {
		return errors.New("the options Identity, Logger and Registerer are required")
	}
	o.Timeouts = o.Timeouts.withDefaults()
	if o.Revoked == nil {
		o.Revoked = func(identity.Peer) bool { return false }
	}
	for field, value := range map[*int]int{
		&o.MaxMessage:     DefaultMaxMessage,
		&o.MaxConnections: defaultMaxConnections,
		&o.MaxAnonymous:   defaultMaxAnonymous,
	} {
		if *field == 0 {
			*field = value
		}
	}
	if o.Drain == 0 {
		o.Drain = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = o.Logger.With("component", "link")
	return nil
}

// Server is the serving end of links.
type Server struct {
	o       ServerOptions
	grpc    *grpc.Server
	allowed map[string]Access
	metrics *serverMetrics
	open    atomic.Int64 // connections, handshakes under way included

	mu        sync.Mutex // guards sessions and anonymous
	sessions  map[*session]struct{}
	anonymous int
}

// session is one connection after its handshake.
type session struct {
	net.Conn
	info authInfo
	end  func()
	life *time.Timer // ends an anonymous connection; nil otherwise
}

// Close ends the connection.
func (s *session) Close() error {
	s.end()
	return s.Conn.Close()
}

// NewServer makes a server. Register services, then Serve.
func NewServer(o ServerOptions) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("link server: %w", err)
	}
	m, err := newServerMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("link server: %w", err)
	}
	s := &Server{o: o, metrics: m, allowed: make(map[string]Access), sessions: make(map[*session]struct{})}
	maps.Copy(s.allowed, o.Permissions)
	s.grpc = grpc.NewServer(
		grpc.Creds(&serverCredentials{identity: o.Identity, timeout: 2 * o.Timeouts.Handshake, now: o.Now, admit: s.admit, refused: s.refused}),
		grpc.ConnectionTimeout(3*o.Timeouts.Handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: o.Timeouts.Keepalive, Timeout: o.Timeouts.KeepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(o.MaxMessage),
		grpc.MaxSendMsgSize(o.MaxMessage),
		grpc.InitialWindowSize(Control.window()),
		grpc.InitialConnWindowSize(2*Control.window()),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	)
	linkv1.RegisterProbeServer(s.grpc, probeServer{})
	s.allowed[linkv1.Probe_Ping_FullMethodName] = Gateways | ControlNodes | Expired
	if o.Enrolment != nil {
		e, err := newEnrolmentServer(*o.Enrolment, o.Logger)
		if err != nil {
			return nil, fmt.Errorf("link server: %w", err)
		}
		linkv1.RegisterEnrolmentServer(s.grpc, e)
		s.allowed[linkv1.Enrolment_Trust_FullMethodName] = Anonymous | Gateways | ControlNodes | Expired
		s.allowed[linkv1.Enrolment_Join_FullMethodName] = Anonymous | Gateways | Expired
		s.allowed[linkv1.Enrolment_Renew_FullMethodName] = Gateways | Expired
		s.allowed[linkv1.Enrolment_GroupKeys_FullMethodName] = Gateways
	}
	return s, nil
}

// Register lets f register services, before Serve.
func (s *Server) Register(f func(grpc.ServiceRegistrar)) { f(s.grpc) }

// Serve answers calls on a listener, which it closes, until the context ends; then calls under way have a moment to
// finish. It returns nil after that.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.checkPermissions(); err != nil {
		return errors.Join(fmt.Errorf("link server: %w", err), l.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- s.grpc.Serve(&listener{Listener: l, server: s}) }()
	select {
	case err := <-ended:
		s.grpc.Stop()
		return fmt.Errorf("link server on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	patience := time.NewTimer(s.o.Drain)
	defer patience.Stop()
	select {
	case <-drained:
	case <-patience.C:
		s.grpc.Stop()
		<-drained
	}
	<-ended
	return nil
}

// checkPermissions compares the table with what is registered: a method without a line could never be called, and a
// line without a method is a misspelt one.
func (s *Server) checkPermissions() error {
	var faults []error
	registered := make(map[string]bool)
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			method := "/" + service + "/" + m.Name
			registered[method] = true
			if _, ok := s.allowed[method]; !ok {
				faults = append(faults, fmt.Errorf("permissions do not say who may call %s", method))
			}
		}
	}
	for method := range s.allowed {
		if !registered[method] {
			faults = append(faults, fmt.Errorf("permissions speak of %s, which is not registered", method))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return slices.Compare([]byte(a.Error()), []byte(b.Error())) })
	return errors.Join(faults...)
}

// Disconnect ends the connections of the nodes that the function names, for instance because they have been revoked,
// and returns how many there were.
func (s *Server) Disconnect(which func(identity.Peer) bool) int {
	s.mu.Lock()
	var gone []*session
	for c := range s.sessions {
		if c.info.proven && which(c.info.peer) {
			gone = append(gone, c)
		}
	}
	s.mu.Unlock()
	for _, c := range gone {
		_ = c.Close() // it is gone one way or the other
	}
	return len(gone)
}

// DropRevoked ends the connections of revoked nodes. Whoever changes the list calls it.
func (s *Server) DropRevoked() int { return s.Disconnect(s.o.Revoked) }

// Connected returns the nodes that have a connection open, each once.
func (s *Server) Connected() []identity.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[identity.Node]bool)
	var out []identity.Peer
	for c := range s.sessions {
		if c.info.proven && !seen[c.info.peer.Node] {
			seen[c.info.peer.Node] = true
			out = append(out, c.info.peer)
		}
	}
	return out
}

// errTooMany refuses a connection.
var errTooMany = errors.New("too many connections without a certificate")

// admit takes a connection into the books after its handshake.
func (s *Server) admit(conn net.Conn, info authInfo) (net.Conn, error) {
	role := "anonymous"
	if info.proven {
		role = string(info.peer.Node.Role)
	}
	c := &session{Conn: conn, info: info}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !info.proven {
		if s.anonymous >= s.o.MaxAnonymous {
			return nil, errTooMany
		}
		s.anonymous++
		c.life = time.AfterFunc(anonymousLife, func() { _ = c.Close() }) // it is gone one way or the other
	}
	s.sessions[c] = struct{}{}
	gauge := s.metrics.connections.WithLabelValues(role)
	gauge.Inc()
	c.end = sync.OnceFunc(func() {
		gauge.Dec()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, c)
		if c.life != nil {
			c.life.Stop()
			s.anonymous--
		}
	})
	return c, nil
}

// refused is told of connections whose handshake failed.
func (s *Server) refused(remote net.Addr, err error) {
	reason := "handshake"
	switch {
	case errors.Is(err, errTooMany):
		reason = "too_many"
	case errors.Is(err, identity.ErrUnknownAuthority), errors.Is(err, identity.ErrNotNode):
		reason = "certificate"
	}
	s.metrics.refusedConnections.WithLabelValues(reason).Inc()
	s.o.Logger.Debug("connection refused", "remote", remote.String(), "reason", reason, "err", err)
}

// listener bounds and counts connections.
type listener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection that is not too many.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.server.open.Add(1) > int64(l.server.o.MaxConnections) {
			l.server.open.Add(-1)
			l.server.refused(conn.RemoteAddr(), errTooMany)
			_ = conn.Close() // there is nobody to tell
			continue
		}
		counted := &countingConn{Conn: conn, received: l.server.metrics.received, sent: l.server.metrics.sent}
		return &accepted{Conn: counted, end: sync.OnceFunc(func() { l.server.open.Add(-1) })}, nil
	}
}

type accepted struct {
	net.Conn
	end func()
}

// Close gives the place back.
func (a *accepted) Close() error {
	a.end()
	return a.Conn.Close()
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	defer s.recovered(info.FullMethod, &err)
	if err := s.authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	if err := s.authorize(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}

// recovered makes an answer of a panic: one call must not end the process.
func (s *Server) recovered(method string, err *error) {
	if p := recover(); p != nil {
		s.o.Logger.Error("panic in a call", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error; the log of the node has the cause")
	}
}

// authorize decides on a call. What the table does not allow is refused.
func (s *Server) authorize(ctx context.Context, method string) error {
	access := s.allowed[method]
	p, proven := provenPeer(ctx)
	if !proven {
		if access&Anonymous != 0 {
			return nil
		}
		return s.deny(method, "anonymous", codes.Unauthenticated, "this call needs a node certificate")
	}
	who := map[identity.Role]Access{identity.RoleGateway: Gateways, identity.RoleControl: ControlNodes}[p.Node.Role]
	switch {
	case s.o.Revoked(p):
		return s.deny(method, "revoked", codes.PermissionDenied, "%s is revoked", p.Node)
	case p.Expired && access&Expired == 0:
		return s.deny(method, "expired", codes.Unauthenticated, "the certificate of %s expired at %s: renew it", p.Node, p.NotAfter.UTC().Format(time.RFC3339))
	case access&who == 0:
		return s.deny(method, "role", codes.PermissionDenied, "a %s node may not call %s", p.Node.Role, method)
	}
	return nil
}

func (s *Server) deny(method, reason string, code codes.Code, format string, args ...any) error {
	s.metrics.refusedCalls.WithLabelValues(reason).Inc()
	err := status.Errorf(code, format, args...)
	s.o.Logger.Debug("call refused", "method", method, "reason", reason, "err", err)
	return err
}

type probeServer struct {
	linkv1.UnimplementedProbeServer
}

// Ping answers at once.
func (probeServer) Ping(context.Context, *linkv1.PingRequest) (*linkv1.PingResponse, error) {
	return &linkv1.PingResponse{}, nil
}
