package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"hansa.dev/hansa/internal/gateway/certs"
	"hansa.dev/hansa/internal/gateway/handshake"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/http2"
	"hansa.dev/hansa/internal/x/tlsnames"
)

// TLSOptions are what holds for TLS on all listeners.
type TLSOptions struct {
	// CertDir is a folder of pairs NAME.crt and NAME.key, which may change at any time. Default: none.
	CertDir string
	// MinVersion is the lowest version of TLS: 1.2 or 1.3. Default: 1.2.
	MinVersion string
	// Ciphers are the names of the cipher suites of TLS 1.2. Default: those that crypto/tls takes for safe.
	Ciphers []string
	// Strict refuses clients that ask for a name which there is no certificate for, instead of showing them the default.
	Strict bool
	// AnyHost serves requests for hosts that the certificate of their connection is not for.
	AnyHost bool
	// NoStaples asks no OCSP responders. Default: false, they are asked about certificates that name one.
	NoStaples bool
	// Secrets are what the keys of session tickets are derived from; see handshake.Options. Default: tickets are good for
	// this process alone.
	Secrets func() [][]byte
}

// Validate returns what is wrong with o.
func (o *TLSOptions) Validate() error {
	if _, err := tlsnames.Version(o.MinVersion); err != nil {
		return fmt.Errorf("tls-min-version: %w", err)
	}
	if _, err := tlsnames.Ciphers(o.Ciphers); err != nil {
		return fmt.Errorf("tls-ciphers: %w", err)
	}
	return nil
}

// Certificates are what the gateway shows to clients. Sources of certificates put theirs in.
func (g *Gateway) Certificates() *certs.Store { return g.certs }

// makeCertificates makes the store.
func (g *Gateway) makeCertificates() (err error) {
	o := &g.opts
	if err := o.TLS.Validate(); err != nil {
		return err
	}
	g.certs, err = certs.New(certs.Options{
		Strict: o.TLS.Strict, Challenge: g.challenge, Log: o.Log.With("component", "gateway.certs"), Registerer: o.Metrics,
	})
	return err
}

// challenge returns what a CA is shown that validates a hostname in the handshake.
func (g *Gateway) challenge(hostname string) (*tls.Certificate, error) {
	p := g.core.plan.Load()
	if p == nil {
		return nil, errors.New("there is no configuration")
	}
	return p.challenges.Certificate(hostname)
}

// runStaples keeps the OCSP staples of the certificates that all listeners use, until ctx ends.
func (g *Gateway) runStaples(ctx context.Context) error {
	s, err := certs.NewStaples(certs.StaplesOptions{Store: g.certs, Log: g.opts.Log.With("component", "gateway.ocsp")})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// readCertificates reads the files of the certificates that all listeners use.
func (g *Gateway) readCertificates() (err error) {
	o := &g.opts
	var pairs []certs.Pair
	if o.CertFile != "" {
		pairs = append(pairs, certs.Pair{CertFile: o.CertFile, KeyFile: o.KeyFile})
	}
	g.certFiles, err = certs.NewFiles(certs.FilesOptions{
		Store: g.certs, Pairs: pairs, Dir: o.TLS.CertDir, Log: o.Log.With("component", "gateway.certs"),
	})
	return err
}

// secure is the TLS of a door.
type secure struct {
	handshake *handshake.Server
	certs     *certs.Store   // nil: those of the gateway
	files     *certs.Files   // nil: it has none of its own
	staples   *certs.Staples // nil: there are none to keep
}

// newSecure makes the TLS of a listener.
func (g *Gateway) newSecure(spec *Listener, protocols []string) (_ *secure, err error) {
	o := &g.opts
	s := new(secure)
	store := g.certs
	log := o.Log.With("component", "gateway.tls", "listener", spec.Name)
	if spec.CertFile != "" && (spec.CertFile != o.CertFile || spec.KeyFile != o.KeyFile) {
		s.certs, err = certs.New(certs.Options{Strict: o.TLS.Strict, Beneath: g.certs, Name: spec.Name, Challenge: g.challenge, Log: log})
		if err != nil {
			return nil, err
		}
		store = s.certs
		s.files, err = certs.NewFiles(certs.FilesOptions{
			Store: store, Pairs: []certs.Pair{{CertFile: spec.CertFile, KeyFile: spec.KeyFile}}, Log: log,
		})
		if err == nil && !o.TLS.NoStaples {
			s.staples, err = certs.NewStaples(certs.StaplesOptions{Store: store, Log: log})
		}
		if err != nil {
			s.close()
			return nil, err
		}
	}
	ho := handshake.Options{
		Certificates: store, Rule: g.core.rule, Protocols: protocols, AnyHost: o.TLS.AnyHost,
		Secrets: o.TLS.Secrets, Log: log, Registerer: o.Metrics,
	}
	if ho.MinVersion, err = tlsnames.Version(firstOf(spec.TLSMinVersion, o.TLS.MinVersion)); err == nil {
		names := spec.TLSCiphers
		if len(names) == 0 {
			names = o.TLS.Ciphers
		}
		ho.Ciphers, err = tlsnames.Ciphers(names)
	}
	if err == nil {
		s.handshake, err = handshake.New(ho)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (s *secure) close() {
	if s.certs != nil {
		s.certs.Close()
	}
}

// run keeps what only this listener has until ctx ends.
func (s *secure) run(ctx context.Context) error {
	if s.files == nil {
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.staples != nil {
		wg.Go(func() { _ = s.staples.Run(ctx) }) // it only ends with ctx
	}
	return s.files.Run(ctx)
}

// serveTLS makes TLS of a connection and hands it to the engine of the protocol that was negotiated.
func (g *Gateway) serveTLS(d *door, nc net.Conn) {
	c, err := d.secure.handshake.Handshake(nc)
	if err != nil {
		g.opts.Log.Debug("no TLS", slog.String("listener", d.spec.Name), slog.String("peer", nc.RemoteAddr().String()), slog.Any("err", err))
		return
	}
	if c.Protocol() == handshake.HTTP2 {
		d.http2.Serve(http2.Conn{Net: nc, Upgrade: c.Over, Scheme: "https", TLS: c.TLS()})
		return
	}
	d.engine.Serve(http1.Conn{Net: nc, Upgrade: c.Over, Scheme: "https", TLS: c.TLS()})
}

// rule returns what the configuration says of TLS for a hostname.
func (g *core) rule(serverName string) *handshake.Rule {
	p := g.plan.Load()
	if p == nil || p.hosts == nil {
		return nil
	}
	group, ok := p.hosts.Match([]byte(serverName))
	if !ok {
		return nil
	}
	return group.rule
}
