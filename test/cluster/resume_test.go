package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// TestSessionsResumeElsewhere obtains TLS sessions from one gateway and resumes them on another: with the keys that the
// control node hands out, after they were rotated, in the process that an upgrade has started, and after a restart
// without control node. Nobody else can resume them. Two implementations of TLS are the client.
func TestSessionsResumeElsewhere(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t))
	c.apply(t, `
apiVersion: hansa.dev/v1
kind: GatewayGroup
metadata: {name: elsewhere}
spec: {site: local}
---
kind: Environment
metadata: {name: prod}
spec: {placements: [{gatewayGroup: local}, {gatewayGroup: elsewhere}]}
---
`+certificateDocument(t, 1))
	a, b := startGatewayProcess(t, c, "a", "local"), startGatewayProcess(t, c, "b", "local")
	other := startGatewayProcess(t, c, "other", "elsewhere")
	shows := func(number int64) {
		t.Helper()
		for _, p := range []*gatewayProcess{a, b, other} {
			eventually(t, patience, func() error {
				got, err := shown(ctx, p.address("https"))
				if err == nil && got != number {
					err = fmt.Errorf("certificate %d is shown, want %d", got, number)
				}
				return err
			})
		}
	}
	shows(1)
	clients := tlsClients(t)
	sessions := make(map[string]tlsSession) // by client and when it was obtained
	obtain := func(when string) {
		t.Helper()
		for name, client := range clients {
			s := client()
			if resumed, err := s.ask(ctx, a.address("https"), false); err != nil || resumed {
				t.Fatalf("%s: a new session: resumed: %t, %v", name, resumed, err)
			}
			sessions[name+", obtained "+when] = s
		}
	}
	resume := func(when string, p *gatewayProcess, want bool) {
		t.Helper()
		for name, s := range sessions {
			if resumed, err := s.ask(ctx, p.address("https"), true); err != nil || resumed != want {
				t.Errorf("%s: %s: resumed: %t, want %t: %v", when, name, resumed, want, err)
			}
		}
	}
	obtain("first")
	resume("on the same gateway", a, true)
	resume("on the other gateway", b, true)
	resume("in another group", other, false)

	if _, err := c.RotateGroupKey(ctx, v1.DefaultOrganization, "local"); err != nil {
		t.Fatal(err)
	}
	c.apply(t, certificateDocument(t, 2)) // its key is sealed to the new key of the group: who shows it has that
	shows(2)
	obtain("after the rotation")
	resume("after the rotation", b, true)
	resume("in another group, after the rotation", other, false)

	if old := b.upgrade(); old == 0 {
		t.Error("nobody has handed over")
	}
	resume("after the upgrade", b, true)

	stopNow(t, c.Stop)
	b.stop()
	b.start()
	resume("after a restart without control node", b, true)
	resume("in another group, without control node", other, false)
}

// tlsSession is a client that has, or will have, a session of TLS.
type tlsSession interface {
	// ask sends a request, with the session that the first call has obtained if it is to be resumed, and tells whether it was.
	ask(ctx context.Context, address string, resume bool) (resumed bool, err error)
}

// tlsClients returns who makes sessions, by name.
func tlsClients(t testing.TB) map[string]func() tlsSession {
	t.Helper()
	clients := make(map[string]func() tlsSession)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		clients["crypto/tls, "+tls.VersionName(version)] = func() tlsSession { return &goSession{version: version} }
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("openssl is not installed: crypto/tls is the only client")
		return clients
	}
	for name, flag := range map[string]string{"TLS 1.2": "-tls1_2", "TLS 1.3": "-tls1_3"} {
		clients["OpenSSL, "+name] = func() tlsSession {
			return &opensslSession{program: openssl, flag: flag, file: filepath.Join(t.TempDir(), "session")}
		}
	}
	return clients
}

const sessionRequest = "GET /catalog/v1/items HTTP/1.1\r\nHost: " + secureHost + "\r\nConnection: close\r\n\r\n"

// goSession is a session of crypto/tls. It is a cache that keeps what comes first.
type goSession struct {
	version uint16
	state   *tls.ClientSessionState
	resume  bool
}

// Get implements tls.ClientSessionCache.
func (s *goSession) Get(string) (*tls.ClientSessionState, bool) { return s.state, s.resume }

// Put implements tls.ClientSessionCache.
func (s *goSession) Put(_ string, state *tls.ClientSessionState) {
	if s.state == nil {
		s.state = state
	}
}

func (s *goSession) ask(ctx context.Context, address string, resume bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.resume = resume
	d := tls.Dialer{NetDialer: new(net.Dialer), Config: &tls.Config{
		ServerName: secureHost, InsecureSkipVerify: true, ClientSessionCache: s, // the certificate signs itself
		MinVersion: s.version, MaxVersion: s.version,
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return false, err
	}
	if _, err := io.WriteString(conn, sessionRequest); err != nil {
		return false, err
	}
	answer, err := io.ReadAll(conn) // which also reads the ticket
	if err == nil {
		err = answered(string(answer))
	}
	if err == nil && s.state == nil {
		err = errors.New("there was no ticket")
	}
	return conn.(*tls.Conn).ConnectionState().DidResume, err
}

// answered returns an error unless an answer is good.
func answered(text string) error {
	if !strings.Contains(text, "HTTP/1.1 200 OK") {
		return fmt.Errorf("answered with %q", text)
	}
	return nil
}

// opensslSession is a session of openssl s_client, in a file.
type opensslSession struct{ program, flag, file string }

func (s *opensslSession) ask(ctx context.Context, address string, resume bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	direction := "-sess_out"
	if resume {
		direction = "-sess_in"
	}
	cmd := exec.CommandContext(ctx, s.program, "s_client", "-connect", address, "-servername", secureHost, "-ign_eof", s.flag, direction, s.file)
	cmd.Stdin = strings.NewReader(sessionRequest)
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %s", err, text)
	case strings.Contains(text, "Reused, TLSv1"):
		return true, answered(text)
	case strings.Contains(text, "New, TLSv1"):
		return false, answered(text)
	}
	return false, fmt.Errorf("s_client tells nothing of the session: %s", text)
}
