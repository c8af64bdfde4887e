package linktest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hansa.dev/hansa/internal/link"
)

// Fabric is what the suite runs over.
type Fabric struct {
	// Listener is where the server listens, Address what clients dial, with Dial.
	Listener net.Listener
	Address  string
	Dial     func(ctx context.Context, address string) (net.Conn, error)
	// Faults are those of the network between.
	Faults *Faults
	// Again listens where the server is to come back, once Listener is closed.
	Again func(t *testing.T) net.Listener
	// Delay is the long delay each way: 30 s where time costs nothing.
	Delay time.Duration
	// Slack is how much longer than the network what is to be prompt may take: none where time is virtual, and as long as
	// a machine may be busy with other things where it is real.
	Slack time.Duration
	// Idle is how long an idle link is watched.
	Idle time.Duration
	// Timeouts are for both ends.
	Timeouts link.Timeouts
}

// Memory returns a fabric in memory with the default times. It is made for testing/synctest.
func Memory(t *testing.T) Fabric {
	n := NewNetwork(t)
	const address = "control:8091"
	listen := func(*testing.T) net.Listener { return n.Listen(address) }
	return Fabric{
		Listener: listen(t), Address: address, Dial: n.Dial, Faults: n.Faults, Again: listen,
		Delay: 30 * time.Second, Idle: time.Hour,
	}
}

// Loopback returns a fabric of TCP on the loopback interface through a Proxy, with the default times.
func Loopback(t *testing.T, delay time.Duration) Fabric {
	listen := func(t *testing.T) net.Listener {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := listen(t)
	p := NewProxy(t, l.Addr().String())
	return Fabric{
		Listener: l, Address: p.Addr(), Dial: (&link.Dialer{Timeout: 75 * time.Second}).Dial, Faults: p.Faults,
		Again: func(t *testing.T) net.Listener { // at another port: somebody may have taken the one before
			t.Helper()
			l := listen(t)
			p.SetTarget(l.Addr().String())
			return l
		},
		Delay: delay, Slack: 30 * time.Second, Idle: 4 * delay,
	}
}

// Behaviour is one thing that a link must do over any fabric.
type Behaviour struct {
	Name string
	Run  func(t *testing.T, f Fabric)
	// Slow behaviours take as long as the keepalive's times, at least 10 s where time is real.
	Slow bool
}

// Behaviours returns the suite.
func Behaviours() []Behaviour {
	return []Behaviour{
		{Name: "comes up and measures the round trip", Run: comesUp},
		{Name: "works over a long round trip", Run: longRoundTrip},
		{Name: "a push takes one trip", Run: pushTakesOneTrip},
		{Name: "comes back at once after a cut", Run: cutComesBack},
		{Name: "bears cuts again and again", Run: cutAgainAndAgain},
		{Name: "comes back after a refusal", Run: refusal},
		{Name: "a short stall costs no connection", Run: shortStall},
		{Name: "notices a dead peer", Run: deadPeer, Slow: true},
		{Name: "bulk does not delay events", Run: bulkDoesNotDelayEvents},
		{Name: "the server can restart", Run: serverRestarts},
		{Name: "close ends calls", Run: closeEndsCalls},
	}
}

// setUp serves the test service and dials it.
type setUp struct {
	Fabric
	cluster *Cluster
	service *Service
	link    *link.Link
	stop    func() // the server
}

func begin(t *testing.T, f Fabric) *setUp {
	t.Helper()
	s := &setUp{Fabric: f, cluster: NewCluster(t), service: &Service{}}
	s.serve(t, f.Listener)
	s.link = s.cluster.Dial(t, link.Options{
		Addresses: []string{f.Address}, Identity: s.cluster.Gateway(t, "gw-1"),
		Dial: f.Dial, Timeouts: f.Timeouts,
	})
	return s
}

func (s *setUp) serve(t *testing.T, l net.Listener) {
	t.Helper()
	_, s.stop = s.cluster.Serve(t, l, link.ServerOptions{Timeouts: s.Timeouts, Permissions: s.service.Permissions()}, s.service.Register)
}

// within returns a context for something that must be done in that time, and some more on slow machines.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d+30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// letPass lets time pass, where it is the point of a behaviour that nothing happens meanwhile.
func letPass(t *testing.T, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

func (s *setUp) waitUp(t *testing.T, d time.Duration) {
	t.Helper()
	if err := s.link.Wait(within(t, d), link.State.Up); err != nil {
		t.Fatalf("link is not up: %v; %+v", err, s.link.State())
	}
}

func (s *setUp) echo(ctx context.Context, class link.Class) error {
	return Echo(ctx, s.link.Conn(class), []byte("ping"))
}

func comesUp(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	for _, class := range []link.Class{link.Control, link.Events, link.Bulk} {
		if err := s.echo(within(t, time.Second), class); err != nil {
			t.Errorf("call over %s: %v", class, err)
		}
	}
	if n := f.Faults.Connections(); n != 3 {
		t.Errorf("%d connections, want one for each of 3 classes", n)
	}
	err := s.link.Wait(within(t, time.Second), func(st link.State) bool {
		return st.Classes[link.Control].RTT > 0 || f.Delay == 30*time.Second // in memory a trip takes no time
	})
	if err != nil {
		t.Errorf("the round trip was not measured: %v", err)
	}
}

func longRoundTrip(t *testing.T, f Fabric) {
	f.Faults.SetDelay(f.Delay)
	s := begin(t, f)
	trip := 2 * f.Delay
	s.waitUp(t, 6*trip) // a dial and a handshake take some trips
	begun := time.Now()
	if err := s.echo(within(t, 2*trip), link.Control); err != nil {
		t.Fatalf("call: %v", err)
	}
	if took := time.Since(begun); took < trip || took > trip+2*time.Second+f.Slack {
		t.Errorf("a call took %s, want one round trip of %s", took, trip)
	}
	err := s.link.Wait(within(t, 10*trip), func(st link.State) bool { return st.Classes[link.Events].RTT >= trip })
	if err != nil {
		t.Errorf("the round trip was not measured: %+v", s.link.State())
	}
	// The keepalive must be content with such trips: no connection is made again in all that time.
	letPass(t, f.Idle)
	for class, st := range s.link.State().Classes {
		if !st.Up || st.Connects != 1 {
			t.Errorf("%s after some idle trips: %+v, want the first connection to stand", link.Class(class), st)
		}
	}
}

func pushTakesOneTrip(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	received := make(chan time.Time, 16)
	go func() {
		_ = Subscribe(t.Context(), s.link.Conn(link.Events), func([]byte) { received <- time.Now() }) // ends with the test
	}()
	s.service.WaitSubscribers(within(t, time.Second), 1)
	f.Faults.SetDelay(f.Delay)
	sent := time.Now()
	s.service.Push([]byte("revoked"))
	select {
	case at := <-received:
		if took := at.Sub(sent); took < f.Delay || took > f.Delay+time.Second+f.Slack {
			t.Errorf("the push took %s, want one trip of %s", took, f.Delay)
		}
	case <-within(t, 2*f.Delay).Done():
		t.Error("the push did not arrive")
	}
}

func cutComesBack(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	if n := f.Faults.Cut(); n != 3 {
		t.Fatalf("cut %d connections, want 3", n)
	}
	begun := time.Now()
	for _, class := range []link.Class{link.Control, link.Events, link.Bulk} {
		// A call on a connection that is just breaking may fail; the next one must not.
		for err := s.echo(within(t, time.Second), class); err != nil; err = s.echo(within(t, time.Second), class) {
			if status.Code(err) != codes.Unavailable || time.Since(begun) > 3*time.Second+f.Slack {
				t.Fatalf("call over %s after a cut: %v", class, err)
			}
		}
	}
	if took := time.Since(begun); took > time.Second+f.Slack {
		t.Errorf("it took %s until calls worked, want at most a second", took)
	}
}

func cutAgainAndAgain(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	every, times := time.Second, 60
	if f.Delay < time.Second {
		every, times = 100*time.Millisecond, 20
	}
	good := 0
	for range times {
		f.Faults.Cut()
		begun := time.Now()
		for time.Since(begun) < every+f.Slack {
			if err := s.echo(within(t, time.Second), link.Control); err == nil {
				good++
				break
			}
			letPass(t, every/100)
		}
		letPass(t, every-time.Since(begun))
	}
	if good < times*9/10 {
		t.Errorf("calls worked between %d of %d cuts", good, times)
	}
	s.waitUp(t, 2*time.Second)
	if c := s.link.State().Classes[link.Control].Connects; c < uint64(times*9/10) {
		t.Errorf("%d connections were made over %d cuts", c, times)
	}
}

func refusal(t *testing.T, f Fabric) {
	f.Faults.Refuse(true)
	s := begin(t, f)
	err := s.link.Wait(within(t, 10*time.Second), func(st link.State) bool { return st.Classes[link.Bulk].Failures >= 3 })
	if err != nil {
		t.Fatalf("%v; %+v", err, s.link.State())
	}
	st := s.link.State().Classes[link.Bulk]
	if st.Up || st.LastErr == "" {
		t.Errorf("state = %+v, want down with a reason", st)
	}
	f.Faults.Refuse(false)
	s.waitUp(t, 16*time.Second) // the longest pause
}

func shortStall(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	f.Faults.Blackhole(true)
	result := make(chan error, 1)
	go func() { result <- s.echo(within(t, 4*f.Delay), link.Control) }()
	letPass(t, 2*f.Delay)
	select {
	case err := <-result:
		t.Errorf("a call ended while nothing got through: %v", err)
	default:
	}
	f.Faults.Blackhole(false)
	if err := <-result; err != nil {
		t.Errorf("call after the stall: %v", err)
	}
	if st := s.link.State().Classes[link.Control]; !st.Up || st.Connects != 1 {
		t.Errorf("state = %+v, want the first connection to stand", st)
	}
}

func deadPeer(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	f.Faults.Blackhole(true)
	patience := max(f.Timeouts.Keepalive, 20*time.Second) + max(f.Timeouts.KeepaliveTimeout, 75*time.Second)
	err := s.link.Wait(within(t, patience), func(st link.State) bool {
		for _, c := range st.Classes {
			if c.Up {
				return false
			}
		}
		return true
	})
	if err != nil {
		t.Fatalf("the dead peer was not noticed: %+v", s.link.State())
	}
	letPass(t, f.Delay)
	f.Faults.Blackhole(false)
	s.waitUp(t, 20*time.Second)
	if err := s.echo(within(t, time.Second), link.Control); err != nil {
		t.Errorf("call afterwards: %v", err)
	}
}

func bulkDoesNotDelayEvents(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	f.Faults.SetBandwidth(64 << 10)
	var arrived atomic.Int64
	first, done := make(chan struct{}), make(chan error, 1)
	flows := sync.OnceFunc(func() { close(first) })
	go func() {
		done <- Download(t.Context(), s.link.Conn(link.Bulk), 6<<20, func(n int) {
			arrived.Add(int64(n))
			flows()
		})
	}()
	<-first
	worst := time.Duration(0)
	for range 20 {
		begun := time.Now()
		if err := s.echo(within(t, time.Second), link.Events); err != nil {
			t.Fatalf("call: %v", err)
		}
		worst = max(worst, time.Since(begun))
	}
	if n := arrived.Load(); n >= 6<<20 {
		t.Errorf("the transfer was over before the calls")
	}
	if worst > 500*time.Millisecond+f.Slack {
		t.Errorf("a call took %s beside a transfer that fills its connection for 96 s", worst)
	}
	f.Faults.SetBandwidth(0)
	if err := <-done; err != nil {
		t.Errorf("transfer: %v", err)
	}
}

func serverRestarts(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	s.stop()
	err := s.link.Wait(within(t, time.Second), func(st link.State) bool { return !st.Classes[link.Control].Up })
	if err != nil {
		t.Fatalf("the end of the server was not noticed: %+v", s.link.State())
	}
	s.serve(t, f.Again(t))
	s.waitUp(t, 16*time.Second)
	if err := s.echo(within(t, time.Second), link.Control); err != nil {
		t.Errorf("call after the restart: %v", err)
	}
}

func closeEndsCalls(t *testing.T, f Fabric) {
	s := begin(t, f)
	s.waitUp(t, time.Second)
	ended := make(chan error, 1)
	go func() { ended <- Subscribe(t.Context(), s.link.Conn(link.Events), func([]byte) {}) }()
	s.service.WaitSubscribers(within(t, time.Second), 1)
	if err := s.link.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("stream ended with %v, want Canceled", err)
	}
	if st := s.link.State(); st.Classes[link.Control].Up {
		t.Errorf("state after Close = %+v, want down", st)
	}
}

// Service is a gRPC service for tests: it echoes, pushes and sends bulk.
type Service struct {
	subscribers subscribers
}

const serviceName = "hansa.test.Service"

// The methods of the service.
const (
	EchoMethod      = "/" + serviceName + "/Echo"
	SubscribeMethod = "/" + serviceName + "/Subscribe"
	DownloadMethod  = "/" + serviceName + "/Download"
)

// Permissions lets gateways call everything.
func (s *Service) Permissions() map[string]link.Access {
	return map[string]link.Access{EchoMethod: link.Gateways, SubscribeMethod: link.Gateways, DownloadMethod: link.Gateways}
}

// Register registers the service.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			handle := func(_ context.Context, req any) (any, error) { return req, nil }
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: s, FullMethod: EchoMethod}, handle)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Subscribe", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return s.subscribe(stream) }},
			{StreamName: "Download", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return download(stream) }},
		},
	}, s)
}

// Echo calls Echo and checks the answer.
func Echo(ctx context.Context, cc grpc.ClientConnInterface, b []byte) error {
	out := new(wrapperspb.BytesValue)
	if err := cc.Invoke(ctx, EchoMethod, wrapperspb.Bytes(b), out); err != nil {
		return err
	}
	if string(out.GetValue()) != string(b) {
		return status.Error(codes.DataLoss, "the echo differs")
	}
	return nil
}

// Subscribe gives f everything that is pushed until the context or the stream ends.
func Subscribe(ctx context.Context, cc grpc.ClientConnInterface, f func([]byte)) error {
	return read(ctx, cc, SubscribeMethod, wrapperspb.Bytes(nil), f)
}

// Download gets so many bytes in pieces.
func Download(ctx context.Context, cc grpc.ClientConnInterface, size int64, f func(n int)) error {
	return read(ctx, cc, DownloadMethod, durationpb.New(time.Duration(size)), func(b []byte) { f(len(b)) })
}

func read(ctx context.Context, cc grpc.ClientConnInterface, method string, request any, f func([]byte)) error {
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		out := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(out); err != nil {
			return notEOF(err)
		}
		f(out.GetValue())
	}
}
