package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// askOn sends a request on a connection and returns the answer.
func askOn(c net.Conn, r *bufio.Reader) (*http.Response, error) {
	if _, err := fmt.Fprint(c, "GET /open/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// dialTo connects to an address of the gateway.
func dialTo(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// A listener that is removed takes no more connections and lets those that it has finish; those of others do not notice.
func TestListenersComeAndGo(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, nil)
	n.apply(n.world())
	ctx := t.Context()
	if err := n.AddListener(ctx, Listener{Name: "partner", Address: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	partner := n.Addresses()["partner"]
	one, oneReader := dialTo(t, partner)
	other, otherReader := dialTo(t, n.Addresses()["http"])
	for range 2 {
		for c, r := range map[net.Conn]*bufio.Reader{one: oneReader, other: otherReader} {
			if resp, err := askOn(c, r); err != nil || resp.StatusCode != 200 || resp.Close {
				t.Fatalf("%v, %v", resp, err)
			}
		}
	}
	if err := n.RemoveListener(ctx, "partner"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		c, err := net.Dial("tcp", partner)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if resp, err := askOn(one, oneReader); err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("a connection of the removed listener: %v, %v", resp, err)
	}
	if resp, err := askOn(other, otherReader); err != nil || resp.StatusCode != 200 || resp.Close {
		t.Errorf("a connection of another listener: %v, %v", resp, err)
	}
	if _, err := oneReader.ReadByte(); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
	for name, f := range map[string]struct {
		err  error
		want error
	}{
		"unknown":    {n.RemoveListener(ctx, "partner"), ErrNoListener},
		"name taken": {n.AddListener(ctx, Listener{Name: "http", Address: "127.0.0.1:0"}), ErrListenerExists},
	} {
		if !errors.Is(f.err, f.want) {
			t.Errorf("%s: %v", name, f.err)
		}
	}
	for _, l := range []Listener{
		{Name: "admin", Address: "127.0.0.1:0"},
		{Name: "Upper", Address: "127.0.0.1:0"},
		{Name: "x", Address: "127.0.0.1"},
		{Name: "x", Address: "127.0.0.1:0", CertFile: "cert.pem"},
		{Name: "x", Address: "127.0.0.1:0", CertFile: "missing.pem", KeyFile: "missing.pem"},
		{Name: "x", Address: "127.0.0.1:0", MaxConns: -1},
		{Name: "x", Address: n.Addresses()["http"]},
	} {
		if err := n.AddListener(ctx, l); err == nil {
			t.Errorf("%+v was added", l)
		}
	}
	if got := len(n.Listeners()); got != 1 {
		t.Errorf("%d listeners are left", got)
	}
}

// The settings of a listener change while clients come and go: it never stops listening, and nobody loses a request.
func TestListenerChangesUnderLoad(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, nil)
	n.apply(n.world())
	addr := n.Addresses()["http"]
	var asked, failed atomic.Int64
	var first atomic.Pointer[string]
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for range 3 {
		done.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				if err := session(addr); err != nil {
					failed.Add(1)
					text := err.Error()
					first.CompareAndSwap(nil, &text)
				}
			}
		})
	}
	spec := n.Listeners()[0]
	for i := range 20 {
		was := asked.Load()
		spec.MaxConns = 1000 + i
		if err := n.SetListeners(t.Context(), []Listener{spec}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return asked.Load() > was+10 })
	}
	cancel()
	done.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d sessions failed, the first: %s", failed.Load(), asked.Load(), *first.Load())
	}
}

// session is a connection with three requests on it, or fewer if the gateway says that it ends.
func session(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	for range 3 {
		resp, err := askOn(c, r)
		if err != nil {
			return err
		}
		if resp.StatusCode != 200 {
			return fmt.Errorf("answered with %s", resp.Status)
		}
		if resp.Close {
			return nil
		}
	}
	return nil
}

// A socket that is shared goes on listening when the one who shared it is gone.
func TestSocketsAreInherited(t *testing.T) {
	t.Parallel()
	old := startNode(t, nil, nil)
	names, addresses, files, err := old.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	var sockets []Socket
	for i, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		sockets = append(sockets, Socket{names[i], addresses[i], l})
	}
	was := old.Addresses()
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused := foreign.Addr().String()
	n := startNode(t, nil, func(o *Options) { o.Inherited = append(sockets, Socket{"gone", "127.0.0.1:0", foreign}) })
	n.apply(n.world())
	old.stop()
	for name, addr := range n.Addresses() {
		if addr != was[name] {
			t.Errorf("%s listens on %s, not on %s", name, addr, was[name])
		}
	}
	if resp, _ := n.get("/open/x"); resp.StatusCode != 200 {
		t.Errorf("answered with %s", resp.Status)
	}
	if _, err := net.Dial("tcp", unused); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a socket that nobody wanted: %v", err)
	}
}
