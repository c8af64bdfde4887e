package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// authority makes a certificate of its own for a name, and the PEM that verifies it.
func authority(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestTLS calls backends over TLS, on real sockets.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, ca := authority(t, "catalog.internal")
	_, otherCA := authority(t, "catalog.internal")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	handshakes := make(chan bool, 100)
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				tc := c.(*tls.Conn)
				if tc.Handshake() == nil {
					handshakes <- tc.ConnectionState().DidResume
					answering(strings.Repeat("x", 100_000))(c)
				}
			})
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	sw := sweep.New()
	wg.Go(func() { _ = sw.Run(ctx) })
	r, err := New(Options{Sweeper: sw})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })

	f := func(s snapshot.Backend, want string) {
		t.Helper()
		s.Organization, s.Name, s.TLS, s.Endpoints = "acme", "catalog", true, snapshot.Endpoints(l.Addr().String())
		p, err := r.Prepare("", []snapshot.Backend{s})
		if err != nil {
			t.Fatal(err)
		}
		p.Commit()
		for range 3 {
			if got := outcome(p.Backend("acme", "catalog"), get("/"), new(down)); got != want {
				t.Errorf("%.100q, want %.100q", got, want)
			}
		}
	}
	ok := "200 " + strings.Repeat("x", 100_000)
	f(snapshot.Backend{CA: ca, ServerName: "catalog.internal"}, ok)
	if len(handshakes) != 1 {
		t.Errorf("%d handshakes for 3 requests", len(handshakes))
	}
	f(snapshot.Backend{CA: ca, ServerName: "other.internal"}, "upstream-connect")
	f(snapshot.Backend{CA: ca}, "upstream-connect") // the host of the endpoint
	f(snapshot.Backend{CA: otherCA, ServerName: "catalog.internal"}, "upstream-connect")
	f(snapshot.Backend{ServerName: "catalog.internal"}, "upstream-connect")
}

// TestReset closes connections the hard way, on real sockets.
func TestReset(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				times(1, "a")(c)
				_ = c.(*net.TCPConn).SetLinger(0)
			})
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	sw := sweep.New()
	wg.Go(func() { _ = sw.Run(ctx) })
	r, err := New(Options{Sweeper: sw})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	p, err := r.Prepare("", []snapshot.Backend{{Organization: "acme", Name: "catalog", Endpoints: snapshot.Endpoints(l.Addr().String())}})
	if err != nil {
		t.Fatal(err)
	}
	p.Commit()
	for range 200 {
		check(t, outcome(p.Backend("acme", "catalog"), get("/"), new(down)), "200 a")
	}
}
