package http1_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/sweep"
)

// fake is an engine on one connection in memory, in fake time.
type fake struct {
	*handler
	server  *http1.Server
	metrics *prometheus.Registry
	client  net.Conn
	r       *bufio.Reader
	ended   chan struct{}
}

func startFake(t *testing.T, serve func(*exchange.Exchange, exchange.Down)) *fake {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	sw := sweep.New()
	swept := make(chan struct{})
	go func() { defer close(swept); _ = sw.Run(ctx) }()
	f := &fake{metrics: prometheus.NewRegistry(), ended: make(chan struct{})}
	f.handler = &handler{route: &exchange.Route{Flow: &exchange.Flow{}}, serve: func(x *exchange.Exchange, d exchange.Down) bool {
		serve(x, d)
		return true
	}}
	server, err := http1.New(http1.Options{Options: ingress.Options{Handler: f.handler, Sweeper: sw, Registerer: f.metrics}})
	if err != nil {
		t.Fatal(err)
	}
	f.server = server
	here, there := net.Pipe()
	f.client, f.r = there, bufio.NewReader(there)
	go func() { defer close(f.ended); server.Serve(http1.Conn{Net: here}) }()
	t.Cleanup(func() {
		there.Close()
		<-f.ended
		cancel()
		<-swept
	})
	return f
}

func hello(x *exchange.Exchange, d exchange.Down) {
	x.Answer(200, []byte("hello"))
	d.Respond(x, nil)
}

func (f *fake) receive(t *testing.T) response {
	t.Helper()
	res, err := http.ReadResponse(f.r, nil)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	return response{res, string(body), err}
}

func (f *fake) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(f.client, text); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// endsAfter checks when the engine closes the connection.
func (f *fake) endsAfter(t *testing.T, begin time.Time, want time.Duration) {
	t.Helper()
	if _, err := f.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection does not end: %v", err)
	}
	<-f.ended
	if took := time.Since(begin); took < want || took > want+3*sweep.Tick {
		t.Errorf("the connection ended after %v, want %v", took, want)
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t, hello)
		parked := func() float64 {
			n, err := testutil.GatherAndCount(f.metrics, "hansa_http1_parked_connections")
			if err != nil || n != 1 {
				t.Fatal(n, err)
			}
			got, err := f.metrics.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range got {
				if m.GetName() == "hansa_http1_parked_connections" {
					return m.GetMetric()[0].GetGauge().GetValue()
				}
			}
			return -1
		}
		time.Sleep(4 * time.Second)
		if parked() != 0 {
			t.Error("parked too early")
		}
		for _, request := range []string{
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /" + strings.Repeat("x", 300) + " HTTP/1.1\r\nHost: a\r\n\r\n", // more than a parked connection reads at once
		} {
			time.Sleep(10 * time.Second)
			if parked() != 1 {
				t.Error("not parked")
			}
			f.send(t, request)
			f.receive(t).check(t, 200, "")
			synctest.Wait()
			if parked() != 0 {
				t.Error("still parked")
			}
		}
		f.endsAfter(t, time.Now(), 75*time.Second)
		if parked() != 0 {
			t.Error("parked after its end")
		}
	})
}

func TestSlowHead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t, hello)
		f.send(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		f.receive(t).check(t, 200, "")
		time.Sleep(3 * time.Second)
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for { // a byte a second does not help
				if _, err := f.client.Write([]byte("G")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		res := f.receive(t)
		if took := time.Since(begin); took < 10*time.Second || took > 10*time.Second+3*sweep.Tick {
			t.Errorf("answered after %v, want 10s", took)
		}
		if res.check(t, 408, "bad-request-timeout"); !res.Close {
			t.Error("the response does not say that the connection ends")
		}
		f.client.Close()
		<-done
	})
}

// slowBodies are requests whose body is collected, is not, and has no length.
var slowBodies = []string{"Content-Length: 30000\r\n\r\n", "Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n10000\r\n"}

// readBody answers when the body has been read.
func readBody(x *exchange.Exchange, d exchange.Down) {
	for {
		c, err := x.Body.Next()
		if err != nil {
			x.Refuse(exchange.BadRequestTimeout, err.Error())
			break
		}
		if c.End {
			x.Answer(200, nil)
			break
		}
	}
	d.Respond(x, nil)
}

func TestSlowBody(t *testing.T) {
	t.Parallel()
	for _, framing := range slowBodies {
		synctest.Test(t, func(t *testing.T) {
			f := startFake(t, readBody)
			f.send(t, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			for range 5 { // silence is what is bounded, not the whole
				time.Sleep(25 * time.Second)
				f.send(t, strings.Repeat("x", 4000))
			}
			begin := time.Now()
			res := f.receive(t)
			if took := time.Since(begin); took < 30*time.Second || took > 30*time.Second+3*sweep.Tick {
				t.Errorf("answered after %v, want 30s", took)
			}
			if res.check(t, 408, "bad-request-timeout"); !res.Close {
				t.Error("the response does not say that the connection ends")
			}
		})
	}
}

// TestSlowRate has a body come that is never silent and yet has no end.
func TestSlowRate(t *testing.T) {
	t.Parallel()
	for _, framing := range slowBodies {
		synctest.Test(t, func(t *testing.T) {
			f := startFake(t, readBody)
			f.send(t, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			begin := time.Now()
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					time.Sleep(time.Second)
					if _, err := io.WriteString(f.client, "x"); err != nil {
						return
					}
				}
			}()
			f.receive(t).check(t, 408, "bad-request-timeout")
			if took := time.Since(begin); took < 28*time.Second || took > 32*time.Second {
				t.Errorf("answered after %v, want 30s", took)
			}
			f.client.Close()
			<-stopped
		})
	}
}

// TestSlowHandler shows that who reads the body slowly is not taken for a client that sends it slowly.
func TestSlowHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t, func(x *exchange.Exchange, d exchange.Down) {
			time.Sleep(time.Hour)
			readBody(x, d)
		})
		go func() {
			_, _ = io.WriteString(f.client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100000))
		}()
		f.receive(t).check(t, 200, "")
	})
}

func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t, hello)
		f.send(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		begin := time.Now()
		<-f.ended // a pipe takes nothing that is not read
		if took := time.Since(begin); took < 30*time.Second || took > 30*time.Second+3*sweep.Tick {
			t.Errorf("the connection ended after %v, want 30s", took)
		}
		if got := f.records(t, 1)[0]; got.code != "client-gone" {
			t.Errorf("recorded %q", got.code)
		}
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"idle", "parked", "busy", "stuck"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				f := startFake(t, func(x *exchange.Exchange, d exchange.Down) {
					<-release
					hello(x, d)
				})
				switch state {
				case "idle":
				case "parked":
					time.Sleep(10 * time.Second)
				default:
					f.send(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				defer cancel()
				drained := make(chan error, 1)
				begin := time.Now()
				go func() { drained <- f.server.Drain(ctx) }()
				synctest.Wait()
				switch state {
				case "busy":
					close(release)
					if res := f.receive(t); !res.Close || res.StatusCode != 200 {
						t.Errorf("%d, close %t", res.StatusCode, res.Close)
					}
				case "stuck":
					time.Sleep(8 * time.Second)
					close(release)
				}
				err := <-drained
				if want := state == "stuck"; errors.Is(err, context.DeadlineExceeded) != want || err != nil && !want {
					t.Errorf("Drain: %v", err)
				}
				if took := time.Since(begin); state != "stuck" && took > sweep.Tick {
					t.Errorf("Drain took %v", took)
				}
				<-f.ended
				if !f.server.Draining() {
					t.Error("Draining is false")
				}
				here, there := net.Pipe()
				f.server.Serve(http1.Conn{Net: here}) // nothing is served any more
				if _, err := there.Read(make([]byte, 1)); err == nil {
					t.Error("a drained server takes connections")
				}
			})
		})
	}
}
