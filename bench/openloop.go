package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// openLoop is load at a fixed rate, whatever the subject does: request i is due at i/rate, and its latency counts from
// then to the last byte of its response. A subject that stalls is charged for every request that it keeps waiting, also
// for those that could not be sent meanwhile since all connections were taken (there is no coordinated omission).
//
// One thread does it all, with epoll, and allocates nothing while it measures, so that the pauses it sees are not its own.
type openLoop struct {
	addr, host, path string
	connections      int
	rate             float64 // requests per second
}

// openConn is one connection of an open loop.
type openConn struct {
	fd   int
	due  time.Duration // of the request under way
	busy bool
	in   []byte // what has been received of the response
}

// openRun is one run.
type openRun struct {
	*openLoop
	request   []byte
	epoll     int
	conns     []openConn
	free      []int // indices of conns
	latencies []time.Duration
	failed    int64
	start     time.Time
}

// run implements load.
func (l *openLoop) run(ctx context.Context, d time.Duration) (sample, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := &openRun{openLoop: l, epoll: -1}
	r.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", l.path, l.host)
	n := int(l.rate * d.Seconds())
	r.latencies = make([]time.Duration, 0, n)
	defer r.close()
	if err := r.connect(); err != nil {
		return sample{}, err
	}
	runtime.GC() // and then not again: nothing is allocated
	if err := r.loop(ctx, n); err != nil {
		return sample{}, err
	}
	slices.Sort(r.latencies)
	at := func(q float64) float64 {
		if len(r.latencies) == 0 {
			return 0
		}
		return float64(r.latencies[int(q*float64(len(r.latencies)-1))]) / 1e3
	}
	return sample{
		Requests: int64(len(r.latencies)), Errors: r.failed, Micros: time.Since(r.start).Microseconds(), P50: at(0.5), P99: at(0.99),
	}, nil
}

// connect opens the connections and has epoll watch them.
func (r *openRun) connect() error {
	addr, err := net.ResolveTCPAddr("tcp4", r.addr)
	if err != nil {
		return err
	}
	to := &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	if r.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	for i := range r.connections {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		r.conns = append(r.conns, openConn{fd: fd, in: make([]byte, 0, 8<<10)})
		r.free = append(r.free, i)
		err = errors.Join(syscall.Connect(fd, to), syscall.SetNonblock(fd, true),
			syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
			syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}))
		if err != nil {
			return fmt.Errorf("connect to %s: %w", r.addr, err)
		}
	}
	return nil
}

func (r *openRun) close() {
	for i := range r.conns {
		_ = syscall.Close(r.conns[i].fd)
	}
	if r.epoll >= 0 {
		_ = syscall.Close(r.epoll)
	}
}

// grace is how long the last responses may take.
const grace = 5 * time.Second

// loop sends n requests when they are due, and receives the responses.
func (r *openRun) loop(ctx context.Context, n int) error {
	r.start = time.Now()
	dueAt := func(i int) time.Duration { return time.Duration(float64(i) / r.rate * float64(time.Second)) }
	end := dueAt(n) + grace
	events := make([]syscall.EpollEvent, len(r.conns))
	for next := 0; next < n || len(r.free) < len(r.conns); {
		now := time.Since(r.start)
		for next < n && len(r.free) > 0 && dueAt(next) <= now {
			if err := r.send(dueAt(next)); err != nil {
				return err
			}
			next++
		}
		if now > end || ctx.Err() != nil {
			return fmt.Errorf("%d of %d requests are not answered in time", n-len(r.latencies), n)
		}
		wait := 10 * time.Millisecond
		if next < n && len(r.free) > 0 {
			wait = max(0, dueAt(next)-time.Since(r.start))
		}
		k, err := epollWait(r.epoll, events, wait)
		if err != nil {
			return err
		}
		for _, e := range events[:k] {
			if err := r.receive(int(e.Fd)); err != nil {
				return err
			}
		}
	}
	return nil
}

// send sends a request that was due at that time, on a free connection.
func (r *openRun) send(due time.Duration) error {
	i := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	c := &r.conns[i]
	c.due, c.busy, c.in = due, true, c.in[:0]
	if n, err := syscall.Write(c.fd, r.request); err != nil || n != len(r.request) {
		return fmt.Errorf("send a request: %d bytes, %w", n, err)
	}
	return nil
}

// receive reads what there is of the response on a connection.
func (r *openRun) receive(i int) error {
	c := &r.conns[i]
	n, err := syscall.Read(c.fd, c.in[len(c.in):cap(c.in)])
	if errors.Is(err, syscall.EAGAIN) {
		return nil
	}
	if err != nil || n <= 0 || !c.busy {
		return fmt.Errorf("the connection ended, or a response came unasked: %d bytes, %w", n, err)
	}
	c.in = c.in[:len(c.in)+n]
	status, done, err := responseDone(c.in)
	if err != nil || !done {
		return err
	}
	r.latencies = append(r.latencies, time.Since(r.start)-c.due)
	if status >= 400 {
		r.failed++
	}
	c.busy = false
	r.free = append(r.free, i)
	return nil
}

// responseDone tells whether b holds a whole response, whose length must be told by Content-Length, and its status.
func responseDone(b []byte) (status int, done bool, err error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return 0, false, nil
	}
	if len(b) < len("HTTP/1.1 200") {
		return 0, false, fmt.Errorf("no response: %q", b)
	}
	if status, err = strconv.Atoi(string(b[9:12])); err != nil {
		return 0, false, err
	}
	for line := range bytes.Lines(b[:head+2]) {
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			size, err := strconv.Atoi(string(bytes.TrimSpace(line[len(name):])))
			return status, err == nil && len(b) >= head+4+size, err
		}
	}
	return 0, false, fmt.Errorf("no Content-Length in %q", b[:head])
}

// epollWait waits for events, to a microsecond where the kernel can do that. It keeps its processor: while the open loop
// runs there is nothing else to do in this program.
func epollWait(epoll int, events []syscall.EpollEvent, most time.Duration) (int, error) {
	const epollPwait2 = 441 // the same on all architectures; since Linux 5.11
	t := syscall.NsecToTimespec(int64(most))
	n, _, errno := syscall.RawSyscall6(epollPwait2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&t)), 0, 0)
	if errno == syscall.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, os.NewSyscallError("epoll_pwait2", errno)
	}
	return int(n), nil
}
