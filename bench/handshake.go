package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// handshakeLoad is load of full handshakes: each request has a connection of its own, without anything of one before. wrk
// cannot do that: it uses its sessions again, and has subjects resume them.
//
// The client takes certificates unseen and agrees on keys by X25519 alone, which all subjects know, so that they all do the
// same.
type handshakeLoad struct {
	addr, host, path string
	connections      int
}

// run implements load.
func (l *handshakeLoad) run(ctx context.Context, d time.Duration) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(d, cancel).Stop() // a deadline of ctx would end dialling a little before ctx itself
	var mu sync.Mutex
	var all sample
	var latencies []time.Duration
	var last error
	began := time.Now()
	var wg sync.WaitGroup
	for range l.connections {
		wg.Go(func() {
			var buf bytes.Buffer
			for ctx.Err() == nil {
				start := time.Now()
				err := l.ask(ctx, &buf)
				if ctx.Err() != nil {
					return // it was under way at the end
				}
				took := time.Since(start)
				mu.Lock()
				if all.Requests++; err != nil {
					all.Errors++
					last = err
				}
				latencies = append(latencies, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if all.Requests == all.Errors {
		return all, fmt.Errorf("no handshake of %d came to an answer: %w", all.Requests, last)
	}
	all.Micros = time.Since(began).Microseconds()
	slices.Sort(latencies)
	all.P50, all.P99 = micros(latencies[len(latencies)/2]), micros(latencies[len(latencies)*99/100])
	return all, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// ask sends one request on a new connection.
func (l *handshakeLoad) ask(ctx context.Context, buf *bytes.Buffer) error {
	d := tls.Dialer{NetDialer: new(net.Dialer), Config: &tls.Config{
		ServerName: l.host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	}}
	conn, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if conn.(*tls.Conn).ConnectionState().DidResume {
		return fmt.Errorf("the handshake with %s was not a full one", l.addr)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l.path, l.host); err != nil {
		return err
	}
	buf.Reset()
	if _, err := io.Copy(buf, conn); err != nil {
		return err
	}
	if !bytes.HasPrefix(buf.Bytes(), []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered with %.40q", buf.Bytes())
	}
	return nil
}
