package sweep

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// pair returns both ends of a TCP connection, the first looked after by a running Sweeper.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(t.Context()) }()
	c := new(Conn)
	s.Add(c, here)
	t.Cleanup(func() { c.Close(); there.Close(); <-done })
	return c, there.(*net.TCPConn)
}

func TestAsk(t *testing.T) {
	t.Parallel()
	c, there := pair(t)
	go func() {
		p := make([]byte, 6)
		for {
			if _, err := io.ReadFull(there, p); err != nil {
				return
			}
			if _, err := there.Write(p[:3]); err != nil {
				return
			}
		}
	}()
	in := make([]byte, 10)
	for i := range 1000 {
		if i%100 == 50 {
			c.Interrupt() // without need
		}
		c.ArmRead(time.Minute)
		n, sent, err := c.Ask([]byte("abcd"), []byte("ef"), in, nil)
		if n != 3 || !sent || err != nil || string(in[:n]) != "abc" {
			t.Fatalf("Ask %d = %q, %t, %v", i, in[:n], sent, err)
		}
	}
}

func TestAskFails(t *testing.T) {
	t.Parallel()
	c, there := pair(t)
	c.ArmRead(time.Millisecond)
	if n, sent, err := c.Ask([]byte("a"), nil, make([]byte, 1), nil); n != 0 || !sent || !errors.Is(err, ErrTimeout) {
		t.Errorf("Ask without an answer = %d, %t, %v, want ErrTimeout", n, sent, err)
	}
	go func() { _, _ = there.Write([]byte("x")) }()
	c.ArmRead(time.Minute)
	p := make([]byte, 2)
	if n, err := c.Read(p); n != 1 || err != nil {
		t.Errorf("Read after that = %d, %v", n, err)
	}
	var owner flag
	owner.Store(true)
	c.Owner = &owner
	go c.Interrupt()
	if n, _, err := c.Ask([]byte("a"), nil, p, nil); n != 0 || !errors.Is(err, ErrCancelled) {
		t.Errorf("Ask of a cancelled owner = %d, %v", n, err)
	}
	c.Owner = nil
	there.Close()
	for range 3 { // the reset may take a moment to arrive
		if n, _, err := c.Ask([]byte("a"), nil, p, nil); n != 0 || err == nil {
			t.Errorf("Ask of who has gone = %d, %v", n, err)
		}
	}
	c.Conn.Close()
	if n, sent, err := c.Ask([]byte("a"), nil, p, nil); n != 0 || sent || err == nil {
		t.Errorf("Ask on a closed connection = %d, %t, %v", n, sent, err)
	}
}

// TestAskLate asks when the deadline has passed already: all is sent, and the answer can be waited for.
func TestAskLate(t *testing.T) {
	t.Parallel()
	c, there := pair(t)
	c.ArmRead(time.Millisecond)
	for c.readBy.Load() > 0 {
		runtime.Gosched()
	}
	if n, sent, err := c.Ask([]byte("a"), []byte("b"), make([]byte, 1), nil); n != 0 || !sent || !errors.Is(err, ErrTimeout) {
		t.Fatalf("Ask = %d, %t, %v, want ErrTimeout and that it is sent", n, sent, err)
	}
	p := make([]byte, 2)
	if _, err := io.ReadFull(there, p); err != nil || string(p) != "ab" {
		t.Fatalf("what arrives is %q, %v", p, err)
	}
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	c.ArmRead(time.Minute)
	if n, err := c.Read(p); n != 1 || err != nil {
		t.Errorf("Read after that = %d, %v", n, err)
	}
}

// TestWaitMissesNothing sends while the handler is at work, after it was given all there was to read. If the poller
// forgot that, Wait would wait for ever.
func TestWaitMissesNothing(t *testing.T) {
	t.Parallel()
	c, there := pair(t)
	c.ArmRead(time.Minute)
	var got bytes.Buffer
	p := make([]byte, 100)
	if _, err := there.Write([]byte("0")); err != nil {
		t.Fatal(err)
	}
	err := c.Loop(nil, func() []byte { return p }, func(n int) Next {
		got.Write(p[:n])
		if got.Len() == 200 {
			return Leave
		}
		if _, err := there.Write([]byte("1")); err != nil {
			t.Error(err)
		}
		for range 1000 { // until it has arrived
			if !c.Quiet() {
				break
			}
		}
		return Wait
	})
	if err != nil || got.Len() != 200 {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}

// TestLoop sends pieces of all sizes into a small buffer.
func TestLoop(t *testing.T) {
	t.Parallel()
	c, there := pair(t)
	var sent, got bytes.Buffer
	var pieces [][]byte
	for i := range 300 {
		pieces = append(pieces, bytes.Repeat([]byte{byte(i)}, 1+i%37))
		sent.Write(pieces[i])
	}
	go func() {
		for _, piece := range pieces {
			if _, err := there.Write(piece); err != nil {
				return
			}
		}
		_ = there.CloseWrite()
	}()
	var p [16]byte
	err := c.Loop(nil, func() []byte { return p[:] }, func(n int) Next {
		got.Write(p[:n])
		if _, err := c.Write([]byte("ok")); err != nil {
			t.Error(err)
		}
		if got.Len()%2 == 0 && got.Len() < sent.Len() { // after the last piece, its end may be there
			return Wait
		}
		return ReadOn
	})
	if !errors.Is(err, io.EOF) || !bytes.Equal(got.Bytes(), sent.Bytes()) {
		t.Errorf("%v, and %d bytes of %d", err, got.Len(), sent.Len())
	}
}

// TestWriteAll writes more than the connection takes at once, in pieces.
func TestWriteAll(t *testing.T) {
	t.Parallel()
	c, there := pair(t)
	pieces := [3][]byte{bytes.Repeat([]byte("a"), 3<<20), nil, bytes.Repeat([]byte("c"), 5<<20)}
	read := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(there)
		read <- all
	}()
	_, _ = there.Write([]byte("x"))
	err := c.Loop(nil, func() []byte { return make([]byte, 10) }, func(int) Next {
		if n, err := c.WriteAll(pieces[0], pieces[1], pieces[2]); n != 8<<20 || err != nil {
			t.Errorf("WriteAll = %d, %v", n, err)
		}
		return Leave
	})
	if err != nil {
		t.Error(err)
	}
	if n, err := c.WriteAll(pieces[2][:10], pieces[0][:10], nil); n != 20 || err != nil { // outside of a loop
		t.Errorf("WriteAll = %d, %v", n, err)
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	want := bytes.Join([][]byte{pieces[0], pieces[2], pieces[2][:10], pieces[0][:10]}, nil)
	if got := <-read; !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d", len(got), len(want))
	}
	if n, err := c.writeAll([]byte("ab"), []byte("cd"), nil, 4); n != 4 || err != nil {
		t.Errorf("writeAll of nothing = %d, %v", n, err)
	}
}
