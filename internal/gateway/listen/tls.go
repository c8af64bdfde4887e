package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// Certificate is a certificate with its key, kept in two PEM files that may be replaced while it is used. Make it with
// LoadCertificate.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate // guarded by mu
	stamp   stamp            // guarded by mu
	checked time.Time        // guarded by mu
}

// stamp tells whether the files have been replaced.
type stamp struct{ cert, key time.Time }

// recheck is how often the files are looked at, at most.
const recheck = 10 * time.Second

// LoadCertificate reads the two files.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load must not be called by two goroutines at once.
func (c *Certificate) load() error {
	st, err := c.look()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("load the certificate %q with the key %q: %w", c.certFile, c.keyFile, err)
	}
	c.pair, c.stamp = &pair, st
	return nil
}

func (c *Certificate) look() (stamp, error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return stamp{}, fmt.Errorf("look at the certificate: %w", err)
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return stamp{}, fmt.Errorf("look at the key: %w", err)
	}
	return stamp{cert.ModTime(), key.ModTime()}, nil
}

// get returns the certificate, read anew if the files have changed. If they cannot be read it stays with what it has.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) > recheck {
		c.checked = now
		if st, err := c.look(); err != nil || st != c.stamp {
			if err == nil {
				err = c.load()
			}
			if err != nil {
				c.log.Error("the certificate cannot be renewed from its files", slog.Any("err", err))
			}
		}
	}
	return c.pair, nil
}

// Config returns a configuration for HTTP/2 and HTTP/1.1 with this certificate.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: c.get,
		NextProtos:     []string{"h2", "http/1.1"},
	}
}

// Handshake returns a function that makes TLS of a connection, as engines want it. It takes at most the given time.
func Handshake(cfg *tls.Config, most time.Duration) func(net.Conn) (net.Conn, error) {
	return func(c net.Conn) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), most)
		defer cancel()
		tc := tls.Server(c, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return tc, nil
	}
}
