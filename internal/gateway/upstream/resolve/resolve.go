// Package resolve looks up names in DNS and tells for how long the answer holds, which the resolver of the standard
// library does not.
//
// A [Resolver] never changes and may be used by any goroutine. Package upstream uses it to find the endpoints of
// backends.
package resolve

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ErrNone says that the name has no address.
var ErrNone = errors.New("there is no address")

// Where the system says what its names are and whom to ask.
const (
	hostsFile  = "/etc/hosts"
	configFile = "/etc/resolv.conf"
)

// maxTargets bounds the endpoints of one answer; what is beyond them is left out.
const maxTargets = 1024

// perServer bounds the wait for one server.
const perServer = 2 * time.Second

// Resolver asks DNS servers.
type Resolver struct {
	servers []string
	hosts   string // a hosts file; "" for none
	config  string // where the servers stand if there are none
}

// New returns a Resolver that asks the servers, as host:port, in order. Without any it looks into the hosts file of the
// system and then asks the servers that are set there.
func New(servers []string) *Resolver {
	r := &Resolver{servers: servers}
	if len(servers) == 0 {
		r.hosts, r.config = hostsFile, configFile
	}
	return r
}

// Query is what to look up.
type Query struct {
	Name string
	// SRV looks up SRV records, and the addresses of the names in them.
	SRV bool
	// Port is the port of the targets, unless SRV.
	Port int
	// Family is ipv4, ipv6 or "" for both.
	Family string
}

// Target is an address that was found.
type Target struct {
	Address string // IP address and port
	Name    string // what it was found by, with the port
	// Priority and Weight are those of the SRV record. A weight of 0 means as little as possible.
	Priority, Weight int
}

// Answer is what was found, in order of priority and address.
type Answer struct {
	Targets []Target
	TTL     time.Duration
}

// Lookup asks. An answer without any target is an error, ErrNone.
func (r *Resolver) Lookup(ctx context.Context, q Query) (Answer, error) {
	l := &lookup{resolver: r, ctx: ctx, ttl: time.Duration(1<<31) * time.Second}
	var err error
	if r.config != "" {
		if l.servers, l.names, err = system(r.config, q.Name); err != nil {
			return Answer{}, fmt.Errorf("look up %q: %w", q.Name, err)
		}
	} else {
		l.servers, l.names = r.servers, []string{dns.Fqdn(q.Name)}
	}
	var targets []Target
	if q.SRV {
		targets, err = l.services(q)
	} else {
		targets, err = l.addresses(q.Name, l.names, q.Port, q.Family, Target{Name: net.JoinHostPort(strings.TrimSuffix(q.Name, "."), strconv.Itoa(q.Port)), Weight: 1})
	}
	if err != nil {
		return Answer{}, fmt.Errorf("look up %q: %w", q.Name, err)
	}
	slices.SortFunc(targets, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Name, b.Name))
	})
	targets = slices.Compact(targets)
	if len(targets) > maxTargets {
		targets = targets[:maxTargets]
	}
	return Answer{targets, l.ttl}, nil
}

// system returns the servers that are set, and the full names that name may mean.
func system(file, name string) (servers, names []string, err error) {
	c, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range c.Servers {
		servers = append(servers, net.JoinHostPort(s, c.Port))
	}
	if len(servers) == 0 {
		servers = []string{"127.0.0.1:53"} // resolv.conf(5)
	}
	return servers, c.NameList(name), nil
}

// lookup is one call of Lookup.
type lookup struct {
	resolver *Resolver
	ctx      context.Context // of this call only
	servers  []string
	names    []string
	ttl      time.Duration // the shortest so far
}

// services looks up SRV records (RFC 2782).
func (l *lookup) services(q Query) ([]Target, error) {
	var targets []Target
	records, extra, err := l.ask(l.names, dns.TypeSRV)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, rr := range records {
		srv, ok := rr.(*dns.SRV)
		if !ok || srv.Target == "." { // the service is decidedly not there
			continue
		}
		host := strings.TrimSuffix(srv.Target, ".")
		t := Target{Name: net.JoinHostPort(host, strconv.Itoa(int(srv.Port))), Priority: int(srv.Priority), Weight: int(srv.Weight)}
		found := l.collect(extra, srv.Target, int(srv.Port), q.Family, t)
		if len(found) == 0 {
			if found, err = l.addresses(host, []string{srv.Target}, int(srv.Port), q.Family, t); err != nil {
				failed = err
			}
		}
		targets = append(targets, found...)
	}
	if failed != nil && !errors.Is(failed, ErrNone) {
		return nil, failed // rather the last good answer than a part of this one
	}
	if len(targets) == 0 {
		return nil, ErrNone
	}
	return targets, nil
}

// collect returns the addresses of a name that came along with an answer.
func (l *lookup) collect(records []dns.RR, name string, port int, family string, like Target) []Target {
	var targets []Target
	for _, rr := range records {
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		if t, ok := target(rr, port, family, like); ok {
			targets = append(targets, t)
			l.ttl = min(l.ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return targets
}

// addresses looks up A and AAAA records.
func (l *lookup) addresses(host string, names []string, port int, family string, like Target) ([]Target, error) {
	if found := l.inHosts(host, port, family, like); len(found) > 0 {
		l.ttl = min(l.ttl, time.Minute)
		return found, nil
	}
	var targets []Target
	failed := ErrNone
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if kind == dns.TypeA && family == "ipv6" || kind == dns.TypeAAAA && family == "ipv4" {
			continue
		}
		records, _, err := l.ask(names, kind)
		if err != nil {
			if !errors.Is(err, ErrNone) {
				failed = err
			}
			continue
		}
		for _, rr := range records {
			if t, ok := target(rr, port, family, like); ok {
				targets = append(targets, t)
			}
		}
	}
	if !errors.Is(failed, ErrNone) || len(targets) == 0 {
		return nil, failed // half an answer would take endpoints away that are there
	}
	return targets, nil
}

func target(rr dns.RR, port int, family string, like Target) (Target, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	addr, ok := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	if !ok || !wanted(addr, family) {
		return like, false
	}
	like.Address = netip.AddrPortFrom(addr, uint16(port)).String()
	return like, true
}

func wanted(addr netip.Addr, family string) bool {
	return family == "" || addr.Is4() == (family == "ipv4")
}

// inHosts looks into the hosts file.
func (l *lookup) inHosts(host string, port int, family string, like Target) []Target {
	if l.resolver.hosts == "" {
		return nil
	}
	f, err := os.Open(l.resolver.hosts)
	if err != nil {
		return nil // there need not be one
	}
	defer f.Close()
	var targets []Target
	for lines := bufio.NewScanner(io.LimitReader(f, 1<<20)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 || !slices.ContainsFunc(words[1:], func(w string) bool { return strings.EqualFold(w, strings.TrimSuffix(host, ".")) }) {
			continue
		}
		if addr, err := netip.ParseAddr(words[0]); err == nil && wanted(addr.Unmap(), family) {
			like.Address = netip.AddrPortFrom(addr.Unmap(), uint16(port)).String()
			targets = append(targets, like)
		}
	}
	return targets
}

// ask asks for records of a kind, of the first of the names that has any. Records that came along are returned too.
func (l *lookup) ask(names []string, kind uint16) (records, extra []dns.RR, err error) {
	for _, name := range names {
		reply, err := l.exchange(name, kind)
		if err != nil {
			return nil, nil, err
		}
		for _, rr := range reply.Answer {
			// Aliases on the way hold no longer than what they lead to.
			if t := rr.Header().Rrtype; t == kind || t == dns.TypeCNAME {
				l.ttl = min(l.ttl, time.Duration(rr.Header().Ttl)*time.Second)
			}
			if rr.Header().Rrtype == kind {
				records = append(records, rr)
			}
		}
		if len(records) > 0 {
			return records, reply.Extra, nil
		}
	}
	return nil, nil, ErrNone
}

// exchange asks one server after the other.
func (l *lookup) exchange(name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	m.SetEdns0(1232, false) // what passes without fragments (DNS flag day 2020)
	failed := errors.New("no server is set")
	for _, server := range l.servers {
		reply, err := l.exchangeWith(server, m)
		switch {
		case err != nil:
			failed = fmt.Errorf("ask %s: %w", server, err)
			if l.ctx.Err() != nil {
				return nil, failed
			}
		case reply.Rcode == dns.RcodeSuccess, reply.Rcode == dns.RcodeNameError:
			return reply, nil
		default:
			failed = fmt.Errorf("ask %s: it says %s", server, dns.RcodeToString[reply.Rcode])
		}
	}
	return nil, failed
}

// exchangeWith asks over UDP, and over TCP if the answer does not fit.
func (l *lookup) exchangeWith(server string, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(l.ctx, perServer)
	defer cancel()
	udp := dns.Client{Net: "udp", Timeout: perServer}
	reply, _, err := udp.ExchangeContext(ctx, m, server)
	if err == nil && reply.Truncated {
		tcp := dns.Client{Net: "tcp", Timeout: perServer}
		reply, _, err = tcp.ExchangeContext(ctx, m, server)
	}
	return reply, err
}
