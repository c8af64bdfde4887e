package gateway

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"hansa.dev/hansa/internal/gateway/certs"
	"hansa.dev/hansa/internal/gateway/challenge"
	"hansa.dev/hansa/internal/snapshot"
)

// TestChallenges answers CAs while they validate, over HTTP before anything is routed and in the handshake, and is as before
// when they have.
func TestChallenges(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	w := s.world()
	w.put(snapshot.API{Organization: "acme", Environment: "prod", Name: "all", Revision: 1, BasePath: "/", Backend: "catalog", BackendPath: "/"})
	s.apply(w)
	get := func(host, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	// shows returns the names of the certificate that is shown to a CA.
	shows := func(name string) []string {
		c, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{certs.ProtocolACME}})
		if err != nil {
			return nil
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].DNSNames
	}
	const backend = "cert= chain=" // what the backend of this test says
	before := func() {
		t.Helper()
		if status, body := get(host, challenge.Prefix+"tok"); status != 200 || body != backend {
			t.Errorf("without a challenge: %d %q, want what the backend says", status, body)
		}
		if got := shows(host); got != nil {
			t.Errorf("without a challenge a CA is shown %q", got)
		}
	}
	before()

	w.put(snapshot.Challenges{Organization: "acme", Certificate: "one", Challenges: []snapshot.Challenge{
		{Type: snapshot.ChallengeHTTP, Hostname: host, Token: "tok", KeyAuthorization: "tok.print"},
	}})
	w.put(snapshot.Challenges{Organization: "acme", Certificate: "two", Challenges: []snapshot.Challenge{
		{Type: snapshot.ChallengeTLSALPN, Hostname: "v2." + host, Token: "tok2", KeyAuthorization: "tok2.print"},
	}})
	s.apply(w)
	s.apply(w) // another version, without a change of these
	for _, test := range []struct{ host, path, want string }{
		{host, challenge.Prefix + "tok", "tok.print"},
		{host, challenge.Prefix + "other", backend},
		{"v2." + host, challenge.Prefix + "tok", backend},
		{"v2." + host, challenge.Prefix + "tok2", backend},
	} {
		if status, body := get(test.host, test.path); status != 200 || body != test.want {
			t.Errorf("%s%s is %d %q, want %q", test.host, test.path, status, body, test.want)
		}
	}
	if got := shows("v2." + host); len(got) != 1 || got[0] != "v2."+host {
		t.Errorf("a CA that asks for v2.%s is shown %q", host, got)
	}
	if got := shows(host); got != nil {
		t.Errorf("a CA that asks for %s is shown %q", host, got)
	}

	delete(w, "challenge/acme/one")
	delete(w, "challenge/acme/two")
	s.apply(w)
	before()
}
