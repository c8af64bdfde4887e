package fetch

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy is a link between gateways and a control node that can be cut and counts what the control node sends.
type proxy struct {
	addr  string
	every int64        // cut whenever that many bytes came from the control node; 0: never
	down  atomic.Int64 // bytes from the control node
	cuts  atomic.Int64

	mu     sync.Mutex // target, conns
	target string
	conns  map[net.Conn]bool
}

func newProxy(tb testing.TB, target string) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), target: target, conns: make(map[net.Conn]bool)}
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
	both.Go(func() { p.carry(up, down, func(int) {}) })
	both.Go(func() { p.carry(down, up, p.count) })
	both.Wait()
}

// count counts bytes from the control node, and cuts when it is time.
func (p *proxy) count(n int) {
	now := p.down.Add(int64(n))
	if p.every > 0 && now/p.every != (now-int64(n))/p.every {
		p.cut()
	}
}

// carry copies until one end closes.
func (p *proxy) carry(dst, src net.Conn, count func(int)) {
	defer dst.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		count(n)
		if _, writeErr := dst.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts.Add(1)
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
