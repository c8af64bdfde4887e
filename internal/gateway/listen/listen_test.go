package listen

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"hansa.dev/hansa/internal/x/guard"
)

// run starts a listener on loopback and stops it with the test.
func run(t *testing.T, o Options) *Listener {
	t.Helper()
	o.Address = "127.0.0.1:0"
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func echo(c net.Conn) {
	_, _ = io.Copy(c, c)
	c.Close()
}

func TestServe(t *testing.T) {
	t.Parallel()
	l := run(t, Options{Name: "http", Serve: echo})
	for range 3 {
		c := dial(t, l)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	busy := make(chan struct{})
	l := run(t, Options{
		Name: "http", MaxConns: 2, Registerer: metrics,
		Serve: func(c net.Conn) { _, _ = c.Write([]byte("ok")); <-busy; c.Close() },
		Refuse: func(c net.Conn) {
			_, _ = c.Write([]byte("no"))
			c.Close()
		},
	})
	say := func(want string) {
		t.Helper()
		p := make([]byte, 2)
		if _, err := io.ReadFull(dial(t, l), p); err != nil || string(p) != want {
			t.Errorf("%q, %v, want %q", p, err, want)
		}
	}
	say("ok")
	say("ok")
	say("no")
	say("no")
	close(busy)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for l.open.Load() > 0 {
		<-tick.C
	}
	say("ok")
	want := `
		# HELP hansa_listener_connections_total Connections that came in, by what became of them: accepted, or refused since there were too many.
		# TYPE hansa_listener_connections_total counter
		hansa_listener_connections_total{listener="http",result="accepted"} 3
		hansa_listener_connections_total{listener="http",result="refused"} 2
	`
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "hansa_listener_connections_total"); err != nil {
		t.Error(err)
	}
	if _, err := New(t.Context(), Options{Name: "https", Address: "127.0.0.1:0", Serve: echo, Registerer: metrics}); err != nil {
		t.Errorf("a second listener with the same registry: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Name: "http"}, {Serve: echo}, {Name: "http", Serve: echo, Address: "nonsense"}} {
		if l, err := New(t.Context(), o); err == nil {
			l.Close()
			t.Errorf("New(%+v): no error", o)
		}
	}
	l, err := New(t.Context(), Options{Name: "http", Serve: echo, Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run of a closed listener: %v", err)
	}
}

// starved is a listener that runs out of file descriptors for a while.
type starved struct {
	net.Listener
	fails int
	calls atomic.Int32
	more  chan net.Conn
}

func (s *starved) Accept() (net.Conn, error) {
	if int(s.calls.Add(1)) <= s.fails {
		return nil, os.NewSyscallError("accept4", syscall.EMFILE)
	}
	c, ok := <-s.more
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (s *starved) Close() error { close(s.more); return nil }

func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(nil, "http")
		s := &starved{fails: 12, more: make(chan net.Conn)}
		l := &Listener{opts: Options{Name: "http", MaxConns: 1, Serve: echo, Log: slog.New(slog.DiscardHandler)}, listener: s, metrics: m, stopped: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		begin := time.Now()
		here, there := net.Pipe()
		s.more <- here
		if took := time.Since(begin); took < time.Second || took > 10*time.Second {
			t.Errorf("12 failures took %v", took)
		}
		there.Close()
		if n := testutil.ToFloat64(m.failed); n != 12 {
			t.Errorf("%v failures are counted, want 12", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestPanic has serving a connection panic: it is closed, and others are served.
func TestPanic(t *testing.T) {
	t.Parallel()
	var panicked atomic.Bool
	l := run(t, Options{Name: "http", MaxConns: 1, Guard: guard.New(slog.New(slog.DiscardHandler), nil), Serve: func(c net.Conn) {
		if panicked.CompareAndSwap(false, true) {
			panic("on purpose")
		}
		echo(c)
	}})
	if n, err := dial(t, l).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v", n, err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); l.Connections() > 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the connection is still counted")
		}
	}
	c := dial(t, l)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	c.Close()
}
