package upstream

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// FuzzHTTP2Backend has a backend answer with whatever may come, and then close the connection. The call comes to an end in one
// way or another, and nothing is left of it.
func FuzzHTTP2Backend(f *testing.F) {
	add := func(write func(fr *framed)) {
		var b bytes.Buffer
		write(&framed{Framer: xhttp2.NewFramer(&b, nil)})
		f.Add(b.Bytes(), uint8(b.Len()/2))
	}
	add(func(fr *framed) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
		fr.answer(1, "hi")
	})
	add(func(fr *framed) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0})
		fr.headers(1, false, ":status", "103", "link", "x")
		fr.headers(1, false, ":status", "200", "content-length", "5", "trailer", "x-sum")
		_ = fr.WriteDataPadded(1, false, []byte("hello"), []byte{0, 0})
		_ = fr.WriteWindowUpdate(0, 100)
		_ = fr.WriteWindowUpdate(1, 100)
		fr.headers(1, true, "x-sum", "1")
		_ = fr.WriteRSTStream(1, xhttp2.ErrCodeNo)
		_ = fr.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3})
		_ = fr.WritePing(false, [8]byte{})
		_ = fr.WriteGoAway(1, xhttp2.ErrCodeNo, []byte("bye"))
	})
	add(func(fr *framed) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "304")})
		_ = fr.WriteContinuation(1, true, head("etag", "x"))
		_ = fr.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream)
	})
	var answer []byte
	var cut int
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	sw := sweep.New()
	r, err := New(Options{Sweeper: sw, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		wg.Go(func() {
			defer there.Close()
			drained := make(chan struct{})
			begun := make(chan struct{}, 1)
			go func() {
				defer close(drained)
				buf := make([]byte, 4<<10)
				for {
					if _, err := there.Read(buf); err != nil {
						return
					}
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			}()
			<-begun // the preface, with the request or before it
			_, _ = there.Write(answer[:cut])
			_, _ = there.Write(answer[cut:])
			there.Close()
			<-drained
		})
		return here, nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = sw.Run(ctx) })
	running.Go(func() { _ = r.Run(ctx) })
	f.Cleanup(func() { cancel(); running.Wait() })
	plan, err := r.Prepare("", []snapshot.Backend{{
		Organization: "acme", Name: "catalog", Endpoints: snapshot.Endpoints("h:1"), HTTPVersion: "2", ResponseMillis: 60_000, IdleMillis: 60_000,
	}})
	if err != nil {
		f.Fatal(err)
	}
	plan.Commit()
	b := plan.Backend("acme", "catalog")
	f.Fuzz(func(t *testing.T, in []byte, at uint8) {
		answer, cut = in, min(int(at), len(in))
		begin := time.Now()
		_ = outcome(b, get("/"), new(down))
		wg.Wait()
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("the call took %v", took)
		}
		for _, p := range b.current().places {
			if n := p.active.Load(); n != 0 {
				t.Errorf("%d calls are under way", n)
			}
		}
	})
}
