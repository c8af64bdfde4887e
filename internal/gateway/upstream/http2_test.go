package upstream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// framed is the backend's end of a connection of HTTP/2.
type framed struct {
	*xhttp2.Framer
	conn int // how many connections came before
	n    int // how many requests came before on this one

	pongs bool   // answers pings; set by the script
	ping  func() // is called for each; set by the script
	ended bool   // the request that the script is called for has no body
}

// head makes a header block of names and values.
func head(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// headers sends a header block.
func (f *framed) headers(id uint32, end bool, fields ...string) {
	_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: head(fields...), EndStream: end, EndHeaders: true})
}

// answer sends a response.
func (f *framed) answer(id uint32, body string) {
	f.headers(id, false, ":status", "200")
	_ = f.WriteData(id, true, []byte(body))
}

// frames serves connections of HTTP/2 whose requests are answered by script; after an error of it the connection is closed.
func frames(script func(f *framed, id uint32) error) func(net.Conn) {
	var conns atomic.Int32
	return func(c net.Conn) {
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, len(xhttp2.ClientPreface))); err != nil {
			return
		}
		f := &framed{Framer: xhttp2.NewFramer(c, c), conn: int(conns.Add(1)) - 1}
		if f.WriteSettings() != nil {
			return
		}
		for {
			in, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch in := in.(type) {
			case *xhttp2.SettingsFrame:
				if !in.IsAck() {
					err = f.WriteSettingsAck()
				}
			case *xhttp2.HeadersFrame:
				f.ended = in.StreamEnded()
				err = script(f, in.StreamID)
				f.n++
			case *xhttp2.PingFrame:
				if f.ping != nil {
					f.ping()
				}
				if f.pongs && !in.IsAck() {
					err = f.WritePing(true, in.Data)
				}
			}
			if err != nil {
				return
			}
		}
	}
}

var errEnough = errors.New("enough")

// TestHTTP2Backends shows what becomes of a request to a backend that does not do as it should.
func TestHTTP2Backends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script func(f *framed, id uint32) error
		want   string
		dials  int
	}{
		"good": {func(f *framed, id uint32) error {
			f.answer(id, "hi")
			return nil
		}, "200 hi", 1},
		"refuses once": {func(f *framed, id uint32) error {
			if f.n == 0 {
				return f.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream)
			}
			f.answer(id, "hi")
			return nil
		}, "200 hi", 1},
		"refuses for ever": {func(f *framed, id uint32) error {
			return f.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream)
		}, "upstream-reset", 1},
		"goes away without the request": {func(f *framed, id uint32) error {
			if f.conn == 0 {
				return f.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
			}
			f.answer(id, "hi")
			return nil
		}, "200 hi", 2},
		"goes away with the request": {func(f *framed, id uint32) error {
			if err := f.WriteGoAway(id, xhttp2.ErrCodeNo, nil); err != nil {
				return err
			}
			f.answer(id, "hi")
			return nil
		}, "200 hi", 1},
		"breaks off the stream": {func(f *framed, id uint32) error {
			return f.WriteRSTStream(id, xhttp2.ErrCodeInternal)
		}, "upstream-reset", 1},
		"breaks off the body": {func(f *framed, id uint32) error {
			f.headers(id, false, ":status", "200")
			_ = f.WriteData(id, false, []byte("some"))
			return f.WriteRSTStream(id, xhttp2.ErrCodeInternal)
		}, "200 broken: upstream-reset", 1},
		"closes within the body": {func(f *framed, id uint32) error {
			f.headers(id, false, ":status", "200")
			_ = f.WriteData(id, false, []byte("some"))
			return errEnough
		}, "200 broken: upstream-reset", 1},
		"closes instead of an answer": {func(*framed, uint32) error {
			return errEnough
		}, "upstream-reset", 1},
		"body shorter than said": {func(f *framed, id uint32) error {
			f.headers(id, false, ":status", "200", "content-length", "9")
			return f.WriteData(id, true, []byte("some"))
		}, "200 broken: upstream-protocol", 1},
		"body longer than said": {func(f *framed, id uint32) error {
			f.headers(id, false, ":status", "200", "content-length", "2")
			return f.WriteData(id, true, []byte("some"))
		}, "200 broken: upstream-protocol", 1},
		"no status": {func(f *framed, id uint32) error {
			f.headers(id, true, "server", "x")
			return nil
		}, "upstream-protocol", 1},
		"a status that is none": {func(f *framed, id uint32) error {
			f.headers(id, true, ":status", "2x0")
			return nil
		}, "upstream-protocol", 1},
		"field of the connection": {func(f *framed, id uint32) error {
			f.headers(id, true, ":status", "200", "connection", "close")
			return nil
		}, "upstream-protocol", 1},
		"compression that is none": {func(f *framed, id uint32) error {
			return f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndStream: true, EndHeaders: true})
		}, "upstream-protocol", 1},
		"head in pieces": {func(f *framed, id uint32) error {
			block := head(":status", "200", "x-long", strings.Repeat("v", 100))
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block[:10]})
			_ = f.WriteContinuation(id, false, block[10:20])
			_ = f.WriteContinuation(id, true, block[20:])
			return f.WriteData(id, true, []byte("hi"))
		}, "200 hi", 1},
		"a frame within the head": {func(f *framed, id uint32) error {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: head(":status", "200")})
			return f.WritePing(false, [8]byte{})
		}, "upstream-protocol", 1},
		"a head without end": {func(f *framed, id uint32) error {
			piece := head("x-long", strings.Repeat("v", 10_000))
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: head(":status", "200")})
			for range 10_000 {
				if err := f.WriteContinuation(id, false, piece); err != nil {
					return err
				}
			}
			return nil
		}, "upstream-protocol", 1},
		"pushes": {func(f *framed, id uint32) error {
			return f.WritePushPromise(xhttp2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: head(":status", "200"), EndHeaders: true})
		}, "upstream-protocol", 1},
		"a stream that nobody opened": {func(f *framed, id uint32) error {
			f.headers(id+2, true, ":status", "200")
			return nil
		}, "upstream-protocol", 1},
		"pings without end": {func(f *framed, _ uint32) error {
			for range 100_000 {
				if err := f.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
			return nil
		}, "upstream-protocol", 1},
		"says nothing": {func(*framed, uint32) error {
			return nil
		}, "upstream-timeout", 1},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, r *rig) {
				r.serve["h:1"] = frames(c.script)
				b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2", ResponseMillis: 5000, IdleMillis: 5000})
				began := time.Now()
				check(t, outcome(b, get("/"), new(down)), c.want)
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("it took %v", took)
				}
				if n := r.dials("h:1"); n != c.dials {
					t.Errorf("%d connections were made, want %d", n, c.dials)
				}
			})
		})
	}
}

// TestHTTP2Window has a backend send more than it was allowed, while nobody pulls the body: the stream is reset, and if the
// backend does not heed that, the connection is closed.
func TestHTTP2Window(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		sent := make(chan int, 1)
		r.serve["h:1"] = frames(func(f *framed, id uint32) error {
			f.headers(id, false, ":status", "200")
			for n := 0; ; n += 16 << 10 {
				if err := f.WriteData(id, false, make([]byte, 16<<10)); err != nil || n > 200<<20 {
					sent <- n
					return errEnough
				}
			}
		})
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2", ResponseMillis: 5000, IdleMillis: 5000})
		x := get("/")
		src, v := b.Call(x, new(down))
		if v != exchange.Continue {
			t.Fatalf("%v %s", v, x.Code)
		}
		if n := <-sent; n > 100<<20 {
			t.Errorf("%d bytes were read and dropped", n)
		}
		if _, err := exchange.ReadAll(nil, src, 1<<25); err == nil || x.Code != exchange.UpstreamProtocol {
			t.Errorf("the body ends with %v and the code %q", err, x.Code)
		}
		src.Close()
	})
}

// TestGRPCDeadlineOfTheBackend has a backend reset a gRPC call, before the client's time is over and just then.
func TestGRPCDeadlineOfTheBackend(t *testing.T) {
	for after, want := range map[time.Duration]string{10 * time.Millisecond: "upstream-reset", 50 * time.Millisecond: "upstream-timeout"} {
		t.Run(want, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, r *rig) {
				r.serve["h:1"] = frames(func(f *framed, id uint32) error {
					time.Sleep(after)
					return f.WriteRSTStream(id, xhttp2.ErrCodeCancel)
				})
				b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2"})
				x := get("/")
				x.Start = time.Now()
				x.Req.AddString(exchange.IDContentType.Name(), "application/grpc")
				x.Req.AddString(exchange.NameOf("Grpc-Timeout"), "50m")
				check(t, outcome(b, x, new(down)), want)
			})
		})
	}
}

// TestHTTP2Pending bounds the requests that wait for a stream.
func TestHTTP2Pending(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.serve["a:1"] = frames(func(f *framed, id uint32) error {
			if f.n == 0 {
				if err := f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1}); err != nil {
					return err
				}
			}
			<-release
			f.answer(id, "ok")
			return nil
		})
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), HTTPVersion: "2", MaxConns: 1, PendingMillis: 60_000, Breaker: &snapshot.Breaker{Pending: 2}})
		done := make(chan string, 10)
		for range 3 {
			go func() { done <- outcome(b, get("/"), new(down)) }()
			synctest.Wait()
		}
		if n := r.values(t, "hansa_upstream_pending_requests")[""]; n != 2 {
			t.Errorf("%v wait, want 2", n)
		}
		x := get("/")
		go func() { done <- outcome(b, x, new(down)) }()
		synctest.Wait()
		select {
		case got := <-done:
			check(t, got, "upstream-busy")
			check(t, x.Detail, "circuitBreaker.maxPending is reached")
		default:
			t.Error("one more request waits")
		}
		close(release)
		for range 3 {
			check(t, <-done, "200 ok")
		}
		if n := b.pending.Load(); n != 0 {
			t.Errorf("%d requests are counted", n)
		}
	})
}

// TestHTTP2GoneSilent has a connection of HTTP/2 say nothing any more, as one does whose other end is gone without a word. Requests
// that come one after the other must not be sent there for long. A backend that is slow, but there, keeps its connection: it is
// asked.
func TestHTTP2GoneSilent(t *testing.T) {
	for name, c := range map[string]struct {
		responseMillis int64
		within         time.Duration // is a request served
		dials          int
	}{
		"gone":                 {2000, 10 * time.Second, 2},
		"gone, long time-outs": {60_000, 21 * time.Second, 2},
		"slow":                 {2000, 0, 1},
	} {
		there := c.within == 0
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, r *rig) {
				r.serve["h:1"] = frames(func(f *framed, id uint32) error {
					f.pongs = there
					if f.n == 0 || f.conn > 0 {
						f.answer(id, "hi")
					}
					return nil
				})
				b := r.commit(t, snapshot.Backend{
					Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2", ResponseMillis: c.responseMillis, IdleMillis: 60_000,
				})
				check(t, outcome(b, get("/"), new(down)), "200 hi")
				began := time.Now()
				served := false
				for !served && time.Since(began) < max(c.within, 12*time.Second) {
					served = outcome(b, get("/"), new(down)) == "200 hi"
				}
				if took := time.Since(began); served == there || served && took > c.within {
					t.Errorf("served: %v, after %v", served, took)
				}
				if n := r.dials("h:1"); n != c.dials {
					t.Errorf("%d connections were made, want %d", n, c.dials)
				}
			})
		})
	}
}

// TestHTTP2SilentMeanwhile has requests go elsewhere while one waits for a backend that has not answered a ping.
func TestHTTP2SilentMeanwhile(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["h:1"] = frames(func(f *framed, id uint32) error {
			if f.conn > 0 {
				f.answer(id, "hi")
			}
			return nil
		})
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2", ResponseMillis: 60_000, IdleMillis: 60_000})
		first := make(chan string)
		go func() { first <- outcome(b, get("/"), new(down)) }()
		<-time.After(pingAfter + 3*time.Second) // of the fake clock
		began := time.Now()
		check(t, outcome(b, get("/"), new(down)), "200 hi")
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		<-first
	})
}

// TestHTTP2PingsSeldom has a response be silent for long, as a subscription of gRPC may be. Servers of gRPC end a connection when a
// third ping comes within five minutes of the one before without a frame of a response in between.
func TestHTTP2PingsSeldom(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var pings []time.Time
		r.serve["h:1"] = frames(func(f *framed, id uint32) error {
			f.pongs, f.ping = true, func() { pings = append(pings, time.Now()) }
			f.headers(id, false, ":status", "200")
			return nil
		})
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2", IdleMillis: 3_600_000})
		check(t, outcome(b, get("/"), new(down)), "200 broken: upstream-timeout")
		strikes := 0
		for i := range pings[1:] {
			if pings[i+1].Sub(pings[i]) < 5*time.Minute {
				strikes++
			}
		}
		if len(pings) < 10 || strikes > 2 {
			t.Errorf("%d pings, of which %d came too soon: %v", len(pings), strikes, pings)
		}
	})
}
