package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The sizes of conns.
const (
	idleConns   = 10_000
	activeConns = 200
	// openAtOnce is how many connections are being opened at a time.
	openAtOnce = 32
	// restTime is what a program gets to give back memory after the last request.
	restTime = 10 * time.Second
)

// idleLoad is the load of wrk while many connections are idle. They are opened anew for every round.
type idleLoad struct {
	*wrkLoad
	addr string
	held []net.Conn
}

// before implements preparer.
func (l *idleLoad) before(ctx context.Context) (err error) {
	l.held, err = openIdle(ctx, l.addr, nil, idleConns)
	return err
}

// after implements preparer.
func (l *idleLoad) after() {
	closeAll(l.held)
	l.held = nil
}

// openIdle opens connections, over TLS if there is a configuration for it, and has each answer one request.
func openIdle(ctx context.Context, addr string, cfg *tls.Config, n int) ([]net.Conn, error) {
	if err := raiseFileLimit(n + 1000); err != nil {
		return nil, err
	}
	conns, errs := make([]net.Conn, n), make([]error, openAtOnce)
	var wait sync.WaitGroup
	for w := range openAtOnce {
		wait.Go(func() {
			for i := w; i < n && errs[w] == nil; i += openAtOnce {
				conns[i], errs[w] = openOne(ctx, addr, cfg)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(conns)
		return nil, fmt.Errorf("open %d idle connections: %w", n, err)
	}
	return conns, nil
}

// openOne opens a connection and makes one request on it.
func openOne(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		conn = tls.Client(conn, cfg)
	}
	err = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err == nil {
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", plainPath, proxyHost)
	}
	var buf [4096]byte
	for n, done := 0, false; err == nil && !done; {
		var m int
		m, err = conn.Read(buf[n:])
		if n += m; m > 0 {
			var status int
			if status, done, err = responseDone(buf[:n]); err == nil && done && status != 200 {
				err = fmt.Errorf("status %d", status)
			}
		} else if err == nil {
			err = io.ErrNoProgress
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// raiseFileLimit makes room for n open files, for this program and those that it starts from now on.
func raiseFileLimit(n int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	l.Cur = l.Max
	if l.Max < uint64(n) {
		return fmt.Errorf("%d files may be open, %d are needed: raise the limit with ulimit -n", l.Max, n)
	}
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l))
}

// The figures of idle connections, in bytes of resident memory for one.
const (
	figureIdle    = "idle_connection_bytes"
	figureIdleTLS = "idle_tls_connection_bytes"
)

// idleMemory adds to s what an idle connection costs its program, without and over TLS, each of a program that has just
// been started and been under load for a moment.
func (r *rig) idleMemory(ctx context.Context, s *subject) error {
	s.figures = map[string]float64{}
	for _, name := range []string{figureIdle, figureIdleTLS} {
		fresh, stop, err := r.fresh(ctx, s, strings.ReplaceAll("of-"+s.name+"-"+name, "_", "-"))
		if err != nil {
			return err
		}
		addr, cfg := fresh.at.addr, (*tls.Config)(nil)
		if name == figureIdleTLS {
			addr, cfg = fresh.at.tls, clientTLS()
		}
		s.figures[name], err = idleBytes(ctx, fresh.process, addr, cfg)
		stop()
		if err != nil {
			return err
		}
		r.o.progress("%s: %s = %s", s.name, name, number(s.figures[name]))
	}
	return nil
}

// fresh starts another process of what s is.
func (r *rig) fresh(ctx context.Context, s *subject, name string) (*subject, func(), error) {
	fresh := &subject{proxyCase: s.proxyCase, name: s.name}
	if s.name == subjectHansa {
		g, err := r.hansas.gateway(ctx, name, "off")
		if err != nil {
			return nil, nil, err
		}
		fresh.process, fresh.at = g.process, place{addr: g.addr, tls: g.tls}
		return fresh, g.stop, nil
	}
	i := slices.IndexFunc(r.peers, func(p peerSpec) bool { return p.name == s.name })
	p, err := startServer(ctx, filepath.Join(r.o.dir, name), r.peers[i], r.params)
	if err != nil {
		return nil, nil, err
	}
	fresh.process, fresh.at = p.process, place{addr: p.addr, tls: p.tls}
	return fresh, p.stop, nil
}

// idleBytes returns by how much the resident memory of p grows for each idle connection.
func idleBytes(ctx context.Context, p *process, addr string, cfg *tls.Config) (float64, error) {
	warm, err := openIdle(ctx, addr, cfg, activeConns) // for what is there once, however many connections there are
	if err != nil {
		return 0, err
	}
	closeAll(warm)
	before, err := rested(ctx, p)
	if err != nil {
		return 0, err
	}
	conns, err := openIdle(ctx, addr, cfg, idleConns)
	if err != nil {
		return 0, err
	}
	after, err := rested(ctx, p)
	closeAll(conns)
	return float64(after-before) / idleConns, err
}

// rested waits for restTime and returns what p holds then.
func rested(ctx context.Context, p *process) (int64, error) {
	timer := time.NewTimer(restTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-timer.C:
	}
	u, err := p.usage()
	return u.rss, err
}
