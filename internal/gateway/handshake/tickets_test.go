package handshake

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/snapshot"
)

// clock is one that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// TestResume resumes sessions on another gateway of the group.
func TestResume(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "client root")
	alice := ca.IssueAs(t, certstest.Request{Name: "alice", NotAfter: time.Now().Add(100 * 24 * time.Hour)})
	content := snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(ca.PEM)}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			var time1, time2 clock
			secret := func() [][]byte { return [][]byte{[]byte("a secret of the group, 32 bytes.")} }
			rules := map[string]*Rule{"b.example": rule(t, "b", content)}
			one := newRig(t, Options{MinVersion: version, Secrets: secret, Now: time1.now})
			two := newRig(t, Options{MinVersion: version, Secrets: secret, Now: time2.now})
			stranger := newRig(t, Options{MinVersion: version})
			one.setRules(rules)
			two.setRules(rules)
			stranger.setRules(rules)
			cache := tls.NewLRUClientSessionCache(10)
			resumes := func(r *rig, name string, want bool) {
				t.Helper()
				c := r.mustDial(t, name, func(c *tls.Config) {
					c.ClientSessionCache, c.MaxVersion = cache, version
					if name == "b.example" {
						c.Certificates = []tls.Certificate{alice.TLS}
					}
				})
				part := "anonymous"
				if name == "b.example" {
					part = "CN=alice"
				}
				c.expect(t, name, 200, part) // which also reads the ticket
				if got := c.ConnectionState().DidResume; got != want {
					t.Errorf("%s: resumed: %t, want %t", name, got, want)
				}
			}
			for _, name := range []string{"a.example", "b.example"} {
				resumes(one, name, false)
				resumes(one, name, true)
				resumes(two, name, true)
				// After the keys have changed, on either.
				time2.advance(window)
				resumes(two, name, true)
				time1.advance(window)
				resumes(one, name, true)
				resumes(stranger, name, false)
				resumes(one, name, false)
				// One clock is ahead.
				time1.advance(window)
				resumes(one, name, true)
				resumes(two, name, true)
				time2.advance(window)
			}
			// A session does not outlive its keys.
			resumes(one, "a.example", false)
			time1.advance(2 * window)
			time2.advance(2 * window)
			resumes(two, "a.example", false)
		})
	}
}

// TestResumeUnderOtherRules tries to get past a change of the rules with a ticket.
func TestResumeUnderOtherRules(t *testing.T) {
	t.Parallel()
	one, other := certstest.NewAuthority(t, "one"), certstest.NewAuthority(t, "other")
	alice := one.IssueAs(t, certstest.Request{Name: "alice"})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{MinVersion: version})
			cache := tls.NewLRUClientSessionCache(10)
			try := func(name string, resumed bool, status int, part string) {
				t.Helper()
				c := r.mustDial(t, name, func(c *tls.Config) {
					c.ClientSessionCache, c.MaxVersion, c.Certificates = cache, version, []tls.Certificate{alice.TLS}
				})
				c.expect(t, name, status, part)
				if got := c.ConnectionState().DidResume; got != resumed {
					t.Errorf("%s: resumed: %t, want %t", name, got, resumed)
				}
			}
			set := func(c snapshot.HostTLS) { r.setRules(map[string]*Rule{"a.example": rule(t, "a", c)}) }
			try("a.example", false, 200, "anonymous")
			try("a.example", true, 200, "anonymous")
			content := snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(one.PEM)}
			set(content)
			try("a.example", false, 200, "CN=alice")
			try("a.example", true, 200, "CN=alice")
			content.ForwardClient = "certificate"
			set(content)
			try("a.example", true, 200, "Client-Cert: ")
			content.ClientCA = string(other.PEM) // which alice is not signed by, so that a full handshake shows nothing of her
			set(content)
			try("a.example", false, 403, "client-certificate")
			content.ClientCA = string(one.PEM) + string(other.PEM)
			set(content)
			try("a.example", false, 200, "CN=alice")
		})
	}
}

// TestTicketOfAnotherName: a ticket is good for the name that it was given under.
func TestTicketOfAnotherName(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	cache := oneSession{tls.NewLRUClientSessionCache(1)}
	for _, test := range []struct {
		name string
		want bool
	}{{"a.example", false}, {"a.example", true}, {"b.example", false}, {"b.example", true}} {
		c := r.mustDial(t, test.name, func(c *tls.Config) { c.ClientSessionCache = cache })
		c.expect(t, test.name, 200, "anonymous")
		if got := c.ConnectionState().DidResume; got != test.want {
			t.Errorf("%s: resumed: %t, want %t", test.name, got, test.want)
		}
	}
}

// oneSession offers the same session for every name.
type oneSession struct{ tls.ClientSessionCache }

func (o oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.ClientSessionCache.Get("x") }
func (o oneSession) Put(_ string, s *tls.ClientSessionState)    { o.ClientSessionCache.Put("x", s) }

// TestSecretsChange has tickets of an older secret opened as long as it is there, and of a new one at once.
func TestSecretsChange(t *testing.T) {
	t.Parallel()
	var secrets atomic.Pointer[[][]byte]
	secrets.Store(&[][]byte{[]byte("one")})
	var c clock // it stands still
	r := newRig(t, Options{Secrets: func() [][]byte { return *secrets.Load() }, Now: c.now})
	set := func(all ...[]byte) { secrets.Store(&all) }
	cache := tls.NewLRUClientSessionCache(10)
	resumes := func(want bool) {
		t.Helper()
		c := r.mustDial(t, "a.example", func(c *tls.Config) { c.ClientSessionCache = cache })
		c.expect(t, "a.example", 200, "anonymous")
		if got := c.ConnectionState().DidResume; got != want {
			t.Errorf("resumed: %t, want %t", got, want)
		}
	}
	resumes(false)
	set([]byte("two"), []byte("one"))
	resumes(true)
	set([]byte("two"))
	resumes(true) // the last ticket was sealed with two
	set([]byte("three"))
	resumes(false)
}

// FuzzUnwrap opens tickets that clients may have made up.
func FuzzUnwrap(f *testing.F) {
	t := newTickets(nil, time.Now)
	var digest [16]byte
	f.Add([]byte{})
	f.Add(make([]byte, 48))
	f.Add(make([]byte, 500))
	f.Fuzz(func(tt *testing.T, ticket []byte) {
		if s, err := t.unwrap(digest)(ticket, tls.ConnectionState{}); s != nil || err != nil {
			tt.Errorf("a made-up ticket is opened: %v, %v", s, err)
		}
	})
}

// TestAdmitAllocations: what every request passes costs nothing to the collector.
func TestAdmitAllocations(t *testing.T) {
	ca := certstest.NewAuthority(t, "root")
	r := rule(t, "a", snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(ca.PEM), ForwardClient: "chain"})
	alice := ca.IssueAs(t, certstest.Request{Name: "alice"})
	certificates, _ := store(t)
	s, err := New(Options{Certificates: certificates})
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{ServerName: "x.wild.example", PeerCertificates: []*x509.Certificate{alice.Cert}}
	session := s.newSession(&state, r)
	x := new(exchange.Exchange)
	host := exchange.View("y.wild.example")
	for _, r := range []*Rule{nil, r} {
		if n := testing.AllocsPerRun(100, func() {
			x.Reset()
			x.Start, x.TLS, x.Host = time.Now(), &session.TLS, host
			if Admit(x, r) != exchange.Continue {
				t.Fatal(x.Code, x.Detail)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
