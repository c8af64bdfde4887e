package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// counter passes TCP connections on to another address and counts the bytes of both directions.
type counter struct {
	listener net.Listener
	target   string
	bytes    atomic.Int64
	wait     sync.WaitGroup

	mu     sync.Mutex // guards conns and closed
	conns  map[net.Conn]struct{}
	closed bool
}

func newCounter(target string) (*counter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &counter{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	c.wait.Go(c.accept)
	return c, nil
}

func (c *counter) addr() string { return c.listener.Addr().String() }

// close ends all connections and waits for their goroutines.
func (c *counter) close() {
	c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.wait.Wait()
}

func (c *counter) accept() {
	for {
		down, err := c.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		up, err := net.Dial("tcp", c.target)
		if err != nil {
			down.Close()
			continue
		}
		if !c.track(down, up) {
			return
		}
		c.wait.Go(func() { c.pass(down, up) })
		c.wait.Go(func() { c.pass(up, down) })
	}
}

// track remembers a pair of connections, or closes them and returns false if the counter is closed.
func (c *counter) track(pair ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range pair {
		if c.closed {
			conn.Close()
			continue
		}
		c.conns[conn] = struct{}{}
	}
	return !c.closed
}

// pass copies from one connection to the other until either ends, and then ends both.
func (c *counter) pass(to, from net.Conn) {
	_, _ = io.Copy(to, io.TeeReader(from, c)) // the end of a connection, whatever the reason
	for _, conn := range []net.Conn{to, from} {
		conn.Close()
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
	}
}

// Write counts what passes.
func (c *counter) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return len(p), nil
}
