package fetch

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is a link between gateways and a control node that delays both directions, can be cut, and counts what the
// control node sends.
type proxy struct {
	addr  string
	delay time.Duration
	down  atomic.Int64 // bytes from the control node

	mu     sync.Mutex // target, conns
	target string
	conns  map[net.Conn]bool
}

func newProxy(tb testing.TB, target string, delay time.Duration) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), delay: delay, target: target, conns: make(map[net.Conn]bool)}
	var workers sync.WaitGroup
	workers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			workers.Go(func() { p.serve(c) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		p.cut()
		workers.Wait()
	})
	return p
}

func (p *proxy) serve(down net.Conn) {
	defer down.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer up.Close()
	p.mu.Lock()
	p.conns[down], p.conns[up] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, down)
		delete(p.conns, up)
	}()
	var both sync.WaitGroup
	both.Go(func() { p.carry(up, down, nil) })
	both.Go(func() { p.carry(down, up, &p.down) })
	both.Wait()
}

// carry copies with the delay, whatever is under way in the meantime.
func (p *proxy) carry(dst, src net.Conn, count *atomic.Int64) {
	type parcel struct {
		bytes []byte
		due   time.Time
	}
	road := make(chan parcel, 1<<14) // what is under way during one delay
	var unloading sync.WaitGroup
	unloading.Go(func() {
		for x := range road {
			<-time.After(time.Until(x.due))
			if _, err := dst.Write(x.bytes); err != nil {
				_ = src.Close()
			}
		}
		_ = dst.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if count != nil {
			count.Add(int64(n))
		}
		road <- parcel{append([]byte(nil), buf[:n]...), time.Now().Add(p.delay)}
		if err != nil {
			if err != io.EOF {
				_ = dst.Close()
			}
			break
		}
	}
	close(road)
	unloading.Wait()
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) retarget(addr string) {
	p.mu.Lock()
	p.target = addr
	p.mu.Unlock()
	p.cut()
}
