package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"hansa.dev/hansa/internal/identity"
)

// Identity is how a node proves itself and knows others: *identity.Control or *identity.Member.
type Identity interface {
	// Certificate returns the certificate in force; it is asked at every handshake. The error is
	// identity.ErrNotEnrolled for a node that has none.
	Certificate() (*tls.Certificate, error)
	// Verify checks the certificate of the other end.
	Verify(chain []*x509.Certificate, now time.Time) (identity.Peer, error)
}

// PeerFrom returns who is at the other end of a call, in a server's handler. It is false without a certificate.
func PeerFrom(ctx context.Context) (identity.Node, bool) {
	p, ok := provenPeer(ctx)
	return p.Node, ok
}

func provenPeer(ctx context.Context) (identity.Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Peer{}, false
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok || !info.proven {
		return identity.Peer{}, false
	}
	return info.peer, true
}

// authInfo is what a handshake found out.
type authInfo struct {
	credentials.CommonAuthInfo
	peer   identity.Peer
	proven bool
}

// AuthType implements credentials.AuthInfo.
func (authInfo) AuthType() string { return "hansa" }

func newAuthInfo(p identity.Peer, proven bool) authInfo {
	return authInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, peer: p, proven: proven}
}

const alpn = "h2"

// clientCredentials makes the client's end of TLS. The server is known by the node that its certificate names, not
// by the address that was dialled, so that balancers, tunnels and dialling inward need no special certificates.
type clientCredentials struct {
	identity Identity
	role     identity.Role // that the other end must have
	timeout  time.Duration
	now      func() time.Time
	// observe, if not nil, is told how each handshake went: the raw connection, whether the own certificate had
	// expired, and the error.
	observe func(raw net.Conn, expired bool, err error)
}

var _ credentials.TransportCredentials = (*clientCredentials)(nil)

// ClientHandshake implements credentials.TransportCredentials.
func (c *clientCredentials) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var server identity.Peer
	own, err := c.identity.Certificate()
	if errors.Is(err, identity.ErrNotEnrolled) {
		own, err = &tls.Certificate{}, nil // who has no certificate sends none
	}
	if err != nil {
		return nil, nil, err
	}
	config := &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{alpn},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
		// The library would compare host names; VerifyConnection compares what counts here instead.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			server, err = c.verify(state)
			return err
		},
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no TLS handshake within %s", c.timeout))
	defer cancel()
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(ctx)
	if ctxErr := context.Cause(ctx); err != nil && ctxErr != nil {
		err = ctxErr
	}
	if c.observe != nil {
		c.observe(raw, own.Leaf != nil && c.now().After(own.Leaf.NotAfter), err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return conn, newAuthInfo(server, true), nil
}

func (c *clientCredentials) verify(state tls.ConnectionState) (identity.Peer, error) {
	if state.NegotiatedProtocol != alpn {
		return identity.Peer{}, errors.New("the server does not speak HTTP/2 over TLS")
	}
	p, err := c.identity.Verify(state.PeerCertificates, c.now())
	if err != nil {
		return identity.Peer{}, err
	}
	if p.Node.Role != c.role {
		return identity.Peer{}, fmt.Errorf("%s is not a %s node: %w", p.Node, c.role, identity.ErrNotNode)
	}
	if p.Expired {
		return identity.Peer{}, fmt.Errorf("the certificate of %s expired at %s", p.Node, p.NotAfter.UTC().Format(time.RFC3339))
	}
	return p, nil
}

// ServerHandshake implements credentials.TransportCredentials; these are for clients only.
func (c *clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("client credentials on a server")
}

// Info implements credentials.TransportCredentials.
func (c *clientCredentials) Info() credentials.ProtocolInfo { return protocolInfo() }

// Clone implements credentials.TransportCredentials.
func (c *clientCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials; names do not count.
func (c *clientCredentials) OverrideServerName(string) error { return nil }

func protocolInfo() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// serverCredentials makes the server's end of TLS. A client may come without a certificate; if it shows one, that
// must be good, but for its time.
type serverCredentials struct {
	identity Identity
	timeout  time.Duration
	now      func() time.Time
	// admit takes in a connection whose handshake is done, or refuses it.
	admit func(conn net.Conn, info authInfo) (net.Conn, error)
	// refused is told of handshakes that came to nothing.
	refused func(remote net.Addr, err error)
}

var _ credentials.TransportCredentials = (*serverCredentials)(nil)

// ServerHandshake implements credentials.TransportCredentials.
func (s *serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := newAuthInfo(identity.Peer{}, false)
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.identity.Certificate() },
		ClientAuth:             tls.RequestClientCert, // VerifyConnection decides
		SessionTicketsDisabled: true,                  // every connection is checked anew
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != alpn {
				return errors.New("the client does not speak HTTP/2 over TLS")
			}
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			p, err := s.identity.Verify(state.PeerCertificates, s.now())
			if err != nil {
				return err
			}
			info = newAuthInfo(p, true)
			return nil
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout) // gRPC passes none; the time-out ends it
	defer cancel()
	tlsConn := tls.Server(raw, config)
	err := tlsConn.HandshakeContext(ctx)
	var conn net.Conn
	if err == nil {
		conn, err = s.admit(tlsConn, info)
	}
	if err != nil {
		s.refused(raw.RemoteAddr(), err)
		return nil, nil, errors.Join(err, raw.Close())
	}
	return conn, info, nil
}

// ClientHandshake implements credentials.TransportCredentials; these are for servers only.
func (s *serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("server credentials on a client")
}

// Info implements credentials.TransportCredentials.
func (s *serverCredentials) Info() credentials.ProtocolInfo { return protocolInfo() }

// Clone implements credentials.TransportCredentials.
func (s *serverCredentials) Clone() credentials.TransportCredentials { return s }

// OverrideServerName implements credentials.TransportCredentials; names do not count.
func (s *serverCredentials) OverrideServerName(string) error { return nil }
