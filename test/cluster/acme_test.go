package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/link/linktest"
)

func clientConfig(a *certstest.Authority) *tls.Config { return &tls.Config{RootCAs: a.Pool()} }

func serverConfig(l *certstest.Leaf) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{l.TLS}}
}

// acmeRig is a cluster whose certificates come from a CA: a control node and two gateways behind a load balancer.
type acmeRig struct {
	*controlNode
	ca       *pebble
	gateways [2]*gatewayNode
	sample   string
	// link stands before the control node, which comes back at another port: somebody may have taken the one before.
	link *linktest.Proxy
}

func startACME(t *testing.T, externalKey string) *acmeRig {
	t.Helper()
	requirePebble(t)
	overHTTP, overTLS := startBalancer(t), startBalancer(t)
	r := &acmeRig{ca: startPebble(t, overHTTP.Addr(), overTLS.Addr(), startResolver(t), externalKey)}
	r.start(t, t.TempDir())
	r.sample = startSample(t)
	r.apply(t, r.sample)
	r.apply(t, `
apiVersion: hansa.dev/v1
kind: EnvironmentGroup
metadata: {name: issued}
spec: {hostnames: ["*.example.com"], environments: [prod]}
`)
	var plain, secure []string
	for i := range r.gateways {
		name := fmt.Sprintf("gw-%d", i)
		r.gateways[i] = startGateway(t, app.GatewayOptions{
			Data: filepath.Join(t.TempDir(), name), Name: name, Control: []string{r.link.Addr()}, JoinToken: r.joinToken(t), HTTPSAddr: "127.0.0.1:0",
		})
		plain, secure = append(plain, r.gateways[i].Ready().Addresses["http"]), append(secure, r.gateways[i].Ready().Addresses["https"])
		eventually(t, patience, func() error { return r.gateways[i].want(t.Context(), "/nothing", "", http.StatusNotFound) })
	}
	overHTTP.set(plain...)
	overTLS.set(secure...)
	return r
}

// start starts a control node that does not wait for long before it asks a CA again.
func (r *acmeRig) start(t *testing.T, dir string) {
	t.Helper()
	c, err := app.StartControl(t.Context(), app.ControlOptions{
		Data: dir, APIAddr: "127.0.0.1:0", LinkAddr: "127.0.0.1:0", ACMERetry: 2 * time.Second, Log: logger("control"),
	})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, c.Stop)
	ready := c.Ready()
	r.controlNode = &controlNode{Control: c, Client: connect(t, ready), dir: dir, link: ready.Addresses["link"]}
	if r.link == nil {
		r.link = linktest.NewProxy(t, r.controlNode.link)
		return
	}
	r.link.SetTarget(r.controlNode.link)
}

// order applies a certificate that the CA is to issue; more are further fields of acme.
func (r *acmeRig) order(t *testing.T, name, more string, hostnames ...string) {
	t.Helper()
	if !strings.Contains(more, "profile:") {
		more += ", profile: long" // the CA would choose any
	}
	r.apply(t, fmt.Sprintf(`
apiVersion: hansa.dev/v1
kind: Certificate
metadata: {name: %s}
spec:
  hostnames: [%s]
  acme: {directory: %q, ca: %q, email: ops@example.com%s}
`, name, strings.Join(hostnames, ", "), r.ca.directory, r.ca.ca, more))
}

// conditions returns the conditions of a certificate.
func (r *acmeRig) conditions(ctx context.Context, name string) (map[string]v1.Condition, error) {
	o, err := r.Get(ctx, v1.Key{Organization: v1.DefaultOrganization, Kind: v1.KindCertificate, Name: name})
	if err != nil {
		return nil, err
	}
	out := map[string]v1.Condition{}
	if o.Status != nil {
		for _, c := range o.Status.Conditions {
			out[c.Type] = c
		}
	}
	return out, nil
}

// says returns an error unless a condition of a certificate has the status and the reason.
func (r *acmeRig) says(t *testing.T, name, condition, status, reason string) func() error {
	return func() error {
		all, err := r.conditions(t.Context(), name)
		if c := all[condition]; err == nil && (c.Status != status || c.Reason != reason) {
			err = fmt.Errorf("certificate %s is %+v, want %s to be %s, %s", name, all, condition, status, reason)
		}
		return err
	}
}

// shownFor returns the certificate that a gateway shows for a hostname.
func (g *gatewayNode) shownFor(ctx context.Context, hostname string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// what is shown is what is asked
	d := tls.Dialer{Config: &tls.Config{ServerName: hostname, InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", g.Ready().Addresses["https"])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// served waits until both gateways show the same certificate of the CA for a hostname, another one than before.
func (r *acmeRig) served(t *testing.T, hostname string, before *x509.Certificate) *x509.Certificate {
	t.Helper()
	var shown *x509.Certificate
	took := eventually(t, 2*patience, func() error {
		shown = nil
		for _, g := range r.gateways {
			c, err := g.shownFor(t.Context(), hostname)
			switch {
			case err != nil:
				return err
			case !strings.Contains(c.Issuer.CommonName, "Pebble") || c.VerifyHostname(hostname) != nil:
				return fmt.Errorf("%s shows %v by %s for %s", g.opts.Name, c.DNSNames, c.Issuer, hostname)
			case before != nil && c.Equal(before):
				return fmt.Errorf("%s shows the certificate before for %s", g.opts.Name, hostname)
			case shown != nil && !c.Equal(shown):
				return fmt.Errorf("the gateways show different certificates for %s", hostname)
			}
			shown = c
		}
		return nil
	})
	t.Logf("%s is served after %v, until %v", hostname, took.Round(time.Millisecond), shown.NotAfter)
	return shown
}

// reasons returns what the audit record says of certificates.
func (r *acmeRig) reasons(t *testing.T) string {
	t.Helper()
	list, err := r.Audit(t.Context(), client.AuditOptions{Organization: v1.DefaultOrganization})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, rec := range list.Items {
		if rec.Principal == "system:acme" {
			out = append(out, rec.Reason)
		}
	}
	return strings.Join(out, "\n")
}

// TestACME has a certificate issued and renewed, through both gateways, by a CA that refuses three nonces of ten.
func TestACME(t *testing.T) {
	t.Parallel()
	r := startACME(t, "")
	r.order(t, "public", ", profile: short", "api.example.com", "www.example.com")
	first := r.served(t, "www.example.com", nil)
	eventually(t, patience, r.says(t, "public", "Issued", "True", "Issued"))
	if all, err := r.conditions(t.Context(), "public"); err != nil || all["Renewing"].Reason != "Scheduled" || all["Failed"].Status != "False" {
		t.Errorf("conditions = %+v, %v, want a renewal to be scheduled and nothing failed", all, err)
	}
	second := r.served(t, "api.example.com", first)
	if !second.NotBefore.After(first.NotBefore) || second.NotBefore.After(first.NotAfter) {
		t.Errorf("renewed from %v to %v; the one before is good until %v", first.NotBefore, second.NotBefore, first.NotAfter)
	}
	if got := r.reasons(t); !strings.Contains(got, "certificate public: ordered") || !strings.Contains(got, "certificate public: issued") || !strings.Contains(got, ": registered") {
		t.Errorf("the audit record says:\n%s", got)
	}

	// The same, answered in the handshake, and for long.
	r.order(t, "public", ", challenge: tls-alpn-01, keyType: rsa-2048", "api.example.com", "www.example.com")
	third := r.served(t, "www.example.com", second)
	if _, isRSA := third.PublicKey.(interface{ Size() int }); !isRSA || time.Until(third.NotAfter) < 24*time.Hour {
		t.Errorf("a key of %T until %v, want RSA and three months", third.PublicKey, third.NotAfter)
	}
	for _, g := range r.gateways {
		if g.metric(t, "hansa_gateway_challenges_total") == 0 {
			t.Errorf("%s has answered no challenge: the CA looked elsewhere", g.opts.Name)
		}
	}
}

// TestACMERefusals meets a CA that refuses, for what reason ever, and one that is not there. What was issued before is served.
func TestACMERefusals(t *testing.T) {
	t.Parallel()
	r := startACME(t, "")
	r.order(t, "good", "", "api.example.com")
	good := r.served(t, "api.example.com", nil)

	r.order(t, "blocked", "", "blocked.example.com")
	eventually(t, patience, r.says(t, "blocked", "Failed", "True", "RejectedIdentifier"))
	r.order(t, "nowhere", "", "nowhere.example.com")
	eventually(t, patience, r.says(t, "nowhere", "Failed", "True", "Connection"))
	r.order(t, "odd", ", profile: odd", "odd.example.com")
	eventually(t, patience, r.says(t, "odd", "Failed", "True", "Unfit"))
	for _, name := range []string{"blocked", "nowhere", "odd"} {
		if _, err := r.Delete(t.Context(), v1.Key{Organization: v1.DefaultOrganization, Kind: v1.KindCertificate, Name: name}, 0, client.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	limitedAt := make(chan time.Time, 1)
	r.ca.while(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasPrefix(q.URL.Path, "/order-plz") || len(limitedAt) > 0 {
			return false
		}
		limitedAt <- time.Now()
		w.Header().Set("Retry-After", "6")
		problem(w, http.StatusTooManyRequests, "rateLimited", "too many certificates")
		return true
	})
	r.order(t, "limited", "", "limited.example.com")
	eventually(t, patience, r.says(t, "limited", "Failed", "True", "RateLimited"))
	r.served(t, "limited.example.com", nil)
	if took := time.Since(<-limitedAt); took < 6*time.Second {
		t.Errorf("the CA was asked again %v after it said 6 s", took)
	}

	// The CA is not there.
	r.ca.while(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	r.order(t, "good", "", "api.example.com", "more.example.com")
	eventually(t, patience, r.says(t, "good", "Failed", "True", "Unreachable"))
	for _, g := range r.gateways {
		if c, err := g.shownFor(t.Context(), "api.example.com"); err != nil || !c.Equal(good) {
			t.Errorf("without the CA %s does not show the certificate any more (%v)", g.opts.Name, err)
		}
	}
	r.ca.while(nil)
	r.served(t, "more.example.com", nil)
	eventually(t, patience, r.says(t, "good", "Failed", "False", "None"))
}

// TestACMERestart stops the control node while an order is open: at the challenges, and when the certificate is to be signed.
func TestACMERestart(t *testing.T) {
	t.Parallel()
	r := startACME(t, "")
	for _, at := range []struct{ name, path string }{{"validation", "/chalZ/"}, {"signing", "/finalize-order/"}} {
		reached, held := make(chan struct{}, 64), make(chan struct{})
		r.ca.while(func(_ http.ResponseWriter, q *http.Request) bool {
			if !strings.HasPrefix(q.URL.Path, at.path) {
				return false
			}
			reached <- struct{}{}
			<-held
			panic(http.ErrAbortHandler)
		})
		orders := r.ca.orders.Load()
		hostname := at.name + ".example.com"
		r.order(t, at.name, "", hostname)
		select {
		case <-reached:
		case <-time.After(patience):
			t.Fatalf("the CA is not asked for %s", at.path)
		}
		made := r.ca.orders.Load() - orders
		stopNow(t, r.Stop)
		close(held)
		r.ca.while(nil)
		r.start(t, r.dir)
		r.served(t, hostname, nil)
		if again := r.ca.orders.Load() - orders; again != made {
			t.Errorf("%s: %d orders were made before the restart, %d in all: it did not go on", at.name, made, again)
		}
	}
}

// TestACMEExternalAccount ties the account to one that the CA has already.
func TestACMEExternalAccount(t *testing.T) {
	t.Parallel()
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	r := startACME(t, key)
	r.order(t, "public", "", "api.example.com")
	eventually(t, patience, r.says(t, "public", "Failed", "True", "ExternalAccountRequired"))
	r.order(t, "public", ", externalAccount: {keyId: kid-1, key: "+key+"}", "api.example.com")
	r.served(t, "api.example.com", nil)
}
