package certs

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// The names of the sources that the gateway knows, in the order in which they win by default: what an operator has put
// on the node itself stands above what comes from elsewhere.
const (
	SourceFiles     = "files"
	SourceResources = "resources"
)

// Options configure a Store.
type Options struct {
	// Order is the sources whose entries win over others of the same name, the first before the second. Sources that it
	// does not name come last, in the order of their names. Default: files, resources.
	Order []string
	// Strict refuses clients that ask for a name which nobody has with the alert unrecognized_name, instead of showing
	// them the default certificate.
	Strict bool
	// MaxReady is how many certificates are kept ready for use. Default: 4096.
	MaxReady int
	// Beneath is another store, whose certificates are shown where this one has none for a name; the default of this one
	// comes before the other's. It is for a listener with certificates of its own. Default: none.
	Beneath *Store
	// Name tells the store from the one beneath, in metrics.
	Name string
	// Challenge answers the validation of ACME (RFC 8737): for a client that offers the protocol acme-tls/1 and asks for
	// the name it returns the certificate to show, or nil. Default: there are none.
	Challenge func(name string) (*tls.Certificate, error)
	// Log receives what happens to certificates. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
}

const defaultMaxReady = 4096

// ProtocolACME is what ACME's validation negotiates by ALPN.
const ProtocolACME = "acme-tls/1"

// Entry is a certificate and the hostnames that it is shown for.
type Entry struct {
	// ID names the entry within its source.
	ID string
	// Names are hostnames, exact or with "*" as the whole first label, in any case. Default: the DNS names of the
	// certificate.
	Names []string
	// Certificate is what to show.
	Certificate *Certificate
	// Default shows the certificate also to clients that ask for no name, or for none that is known. Of several defaults
	// the first wins, in the order of sources and IDs.
	Default bool
}

// Store holds certificates by hostname. Make it with New.
type Store struct {
	opts    Options
	metrics *metrics

	mu       sync.RWMutex
	sources  map[string]*source       // guarded by mu
	hosts    map[string]*node         // guarded by mu; by name, or ".example.com" for "*.example.com"
	defaults *node                    // guarded by mu
	issuers  map[string]*sharedIssuer // guarded by mu; by DER

	ready clock
}

// source is the entries of one source.
type source struct {
	name    string
	rank    int
	entries map[string]*entry
}

type entry struct {
	Entry
	source *source
}

// node is one of the entries of a name. They are in the order in which they win.
type node struct {
	entry *entry
	next  *node
}

// sharedIssuer is a certificate that several chains hold.
type sharedIssuer struct {
	der  []byte
	uses int
}

// New returns a Store without entries.
func New(o Options) (*Store, error) {
	if o.Order == nil {
		o.Order = []string{SourceFiles, SourceResources}
	}
	o.MaxReady = cmp.Or(max(o.MaxReady, 0), defaultMaxReady)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		opts: o, sources: map[string]*source{}, hosts: map[string]*node{}, issuers: map[string]*sharedIssuer{},
		ready: clock{size: o.MaxReady},
	}
	if o.Beneath != nil {
		s.metrics = o.Beneath.metrics
	} else {
		s.metrics = newMetrics()
	}
	s.metrics.add(s)
	if o.Beneath == nil && o.Registerer != nil {
		if err := s.metrics.register(o.Registerer); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close has the metrics forget the store.
func (s *Store) Close() { s.metrics.remove(s) }

// Replace makes entries the whole of a source. If any of them is malformed it returns what is wrong with all of them, and
// nothing has changed. The store keeps the entries.
func (s *Store) Replace(source string, entries []Entry) error {
	if err := check(entries); err != nil {
		return fmt.Errorf("replace the certificates of %s: %w", source, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sourceLocked(source)
	gone := maps.Clone(src.entries)
	for i := range entries {
		delete(gone, entries[i].ID)
	}
	for _, e := range gone {
		s.removeLocked(e)
	}
	for i := range entries {
		s.putLocked(src, &entries[i])
	}
	return nil
}

// Update puts entries in the place of those with the same ID, or beside the others of the source, and takes those away
// whose IDs are in gone. Errors are those of Replace.
func (s *Store) Update(source string, puts []Entry, gone []string) error {
	if err := check(puts); err != nil {
		return fmt.Errorf("update the certificates of %s: %w", source, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sourceLocked(source)
	for _, id := range gone {
		if e := src.entries[id]; e != nil {
			s.removeLocked(e)
		}
	}
	for i := range puts {
		s.putLocked(src, &puts[i])
	}
	return nil
}

// check fills in and normalises names, and reports every fault.
func check(entries []Entry) error {
	var errs []error
	seen := make(map[string]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		switch {
		case e.ID == "":
			errs = append(errs, fmt.Errorf("entry %d has no ID", i+1))
		case seen[e.ID]:
			errs = append(errs, fmt.Errorf("there are two entries %q", e.ID))
		case e.Certificate == nil:
			errs = append(errs, fmt.Errorf("entry %q has no certificate", e.ID))
		}
		seen[e.ID] = true
		if e.Certificate == nil {
			continue
		}
		if len(e.Names) == 0 {
			e.Names = validNames(e.Certificate.names)
			if len(e.Names) == 0 && !e.Default {
				errs = append(errs, fmt.Errorf("entry %q: the certificate carries no DNS name; name the hostnames that it is for", e.ID))
			}
			continue
		}
		names := make([]string, len(e.Names))
		for j, n := range e.Names {
			names[j] = normal(n)
			if !validName(names[j]) {
				errs = append(errs, fmt.Errorf("entry %q: %q is not a hostname", e.ID, n))
			}
		}
		slices.Sort(names)
		e.Names = slices.Compact(names)
	}
	return errors.Join(errs...)
}

// validNames leaves out what no client can ask for.
func validNames(names []string) []string {
	for _, n := range names {
		if !validName(n) {
			return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !validName(n) })
		}
	}
	return names
}

// normal returns a hostname in lower case, without a last dot.
func normal(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// validName tells whether a name in lower case is one of labels, of which the first may be "*".
func validName(name string) bool {
	rest := strings.TrimPrefix(name, "*.")
	if rest == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(rest, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func (s *Store) sourceLocked(name string) *source {
	src := s.sources[name]
	if src == nil {
		rank := slices.Index(s.opts.Order, name)
		if rank < 0 {
			rank = len(s.opts.Order)
		}
		src = &source{name: name, rank: rank, entries: map[string]*entry{}}
		s.sources[name] = src
	}
	return src
}

func (s *Store) putLocked(src *source, e *Entry) {
	old := src.entries[e.ID]
	if old != nil && old.Certificate == e.Certificate && old.Default == e.Default && slices.Equal(old.Names, e.Names) {
		return
	}
	if old != nil {
		s.removeLocked(old)
	}
	n := &entry{Entry: *e, source: src}
	src.entries[e.ID] = n
	s.shareLocked(e.Certificate)
	for _, name := range e.Names {
		key := hostKey(name)
		s.hosts[key] = s.hosts[key].insert(n)
	}
	if e.Default {
		s.defaults = s.defaults.insert(n)
	}
}

func (s *Store) removeLocked(e *entry) {
	delete(e.source.entries, e.ID)
	for _, name := range e.Names {
		key := hostKey(name)
		if rest := s.hosts[key].remove(e); rest != nil {
			s.hosts[key] = rest
		} else {
			delete(s.hosts, key)
		}
	}
	s.defaults = s.defaults.remove(e)
	for _, der := range e.Certificate.chain[1:] {
		if i := s.issuers[string(der)]; i != nil {
			if i.uses--; i.uses == 0 {
				delete(s.issuers, string(der))
			}
		}
	}
	e.Certificate.ready.Store(nil)
}

// shareLocked has chains that hold the same issuer use the same memory for it.
func (s *Store) shareLocked(c *Certificate) {
	for _, der := range c.chain[1:] {
		i := s.issuers[string(der)]
		if i == nil {
			i = &sharedIssuer{der: der}
			s.issuers[string(der)] = i
		}
		i.uses++
	}
	if len(c.chain) > 1 && &c.chain[1][0] != &s.issuers[string(c.chain[1])].der[0] {
		shared := slices.Clone(c.chain)
		for i, der := range shared[1:] {
			shared[i+1] = s.issuers[string(der)].der
		}
		c.chain = shared // nobody else has seen the certificate yet
	}
}

// hostKey is the name, or what follows the "*" of a wildcard.
func hostKey(name string) string { return strings.TrimPrefix(name, "*") }

// before tells whether e wins over o.
func (e *entry) before(o *entry) bool {
	return cmp.Or(cmp.Compare(e.source.rank, o.source.rank), cmp.Compare(e.source.name, o.source.name), cmp.Compare(e.ID, o.ID)) < 0
}

// insert returns the list with e in it. Nodes are not changed once others may see them.
func (n *node) insert(e *entry) *node {
	if n == nil || e.before(n.entry) {
		return &node{e, n}
	}
	return &node{n.entry, n.next.insert(e)}
}

func (n *node) remove(e *entry) *node {
	switch {
	case n == nil:
		return nil
	case n.entry == e:
		return n.next
	}
	return &node{n.entry, n.next.remove(e)}
}

// find returns the entries for a name in lower case. found is false if they are the defaults.
func (s *Store) find(name string) (n *node, found bool) {
	s.mu.RLock()
	n, found = s.findLocked(name)
	s.mu.RUnlock()
	if !found && s.opts.Beneath != nil {
		if other, found := s.opts.Beneath.find(name); found || n == nil {
			return other, found
		}
	}
	return n, found
}

func (s *Store) findLocked(name string) (n *node, found bool) {
	if name != "" {
		if n = s.hosts[name]; n != nil {
			return n, true
		}
		if i := strings.IndexByte(name, '.'); i > 0 {
			if n = s.hosts[name[i:]]; n != nil {
				return n, true
			}
		}
	}
	return s.defaults, false
}

// Lookup returns the certificate that a client which can use any key is shown for a hostname, and whether it is one for
// that name and not the default one. It returns nil if there is neither.
func (s *Store) Lookup(name string) (c *Certificate, found bool) {
	n, found := s.find(normal(name))
	if n == nil {
		return nil, false
	}
	return n.entry.Certificate, found
}

// Covers tells whether the certificate that is shown for the name sni, "" for none, is also one for host. Both are in
// lower case without a last dot. It is what RFC 9110, section 7.4, asks of a request on a connection whose certificate
// was chosen by another name.
func (s *Store) Covers(sni, host string) bool {
	n, _ := s.find(sni)
	for ; n != nil; n = n.next {
		for _, name := range n.entry.Names {
			if matches(name, host) {
				return true
			}
		}
	}
	return false
}

// matches tells whether a name of an entry stands for a host.
func matches(name, host string) bool {
	if name == host {
		return true
	}
	if len(name) > 2 && name[0] == '*' {
		i := strings.IndexByte(host, '.')
		return i > 0 && host[i:] == name[1:]
	}
	return false
}

// GetCertificate is for tls.Config. It returns nil, which sends the alert unrecognized_name, if there is no certificate
// for the client.
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.opts.Challenge != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ProtocolACME {
		return s.opts.Challenge(normal(hello.ServerName))
	}
	n, found := s.find(normal(hello.ServerName))
	switch {
	case n == nil || !found && s.opts.Strict && hello.ServerName != "":
		s.metrics.unknown.Inc()
		return nil, nil
	case !found:
		s.metrics.byDefault.Inc()
	default:
		s.metrics.found.Inc()
	}
	var last *tls.Certificate
	var lastErr error
	for ; n != nil; n = n.next {
		t, err := s.use(n.entry.Certificate)
		if err != nil {
			lastErr = fmt.Errorf("certificate %q of %s: %w", n.entry.ID, n.entry.source.name, err)
			continue
		}
		if n.next == nil && last == nil || canUse(hello, t) {
			return t, nil
		}
		if last == nil {
			last = t
		}
	}
	if last == nil {
		return nil, lastErr
	}
	return last, nil // the handshake will say what the client lacks
}

// canUse tells whether a client can use the key of a certificate. Whether it will believe the name is not asked: who made
// the entry has said that it is for the name.
func canUse(hello *tls.ClientHelloInfo, t *tls.Certificate) bool {
	unnamed := *hello
	unnamed.ServerName = ""
	return unnamed.SupportsCertificate(t) == nil
}

// use returns a certificate ready for use.
func (s *Store) use(c *Certificate) (*tls.Certificate, error) {
	t, fresh, err := c.TLS()
	if fresh {
		s.ready.add(c)
	} else if !c.used.Load() {
		c.used.Store(true)
	}
	return t, err
}

// clock bounds the certificates that are kept ready: one that was not used since the hand passed by gives way to a new one.
type clock struct {
	size int

	mu   sync.Mutex
	ring []*Certificate // guarded by mu
	hand int            // guarded by mu
}

func (k *clock) add(c *Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ring) < k.size {
		k.ring = append(k.ring, c)
		return
	}
	for k.ring[k.hand].used.Swap(false) {
		k.hand = (k.hand + 1) % k.size
	}
	if old := k.ring[k.hand]; old != c {
		old.ready.Store(nil)
	}
	k.ring[k.hand] = c
	k.hand = (k.hand + 1) % k.size
}

// sourceCount is what there is to count of a source.
type sourceCount struct {
	source  string
	entries int
	expires int64 // the first of them, in seconds of Unix time
}

func (s *Store) counts() []sourceCount {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []sourceCount
	for name, src := range s.sources {
		c := sourceCount{source: name, entries: len(src.entries)}
		for _, e := range src.entries {
			if c.expires == 0 || e.Certificate.notAfter < c.expires {
				c.expires = e.Certificate.notAfter
			}
		}
		all = append(all, c)
	}
	return all
}

// each calls f for every certificate. f must not call the store.
func (s *Store) each(f func(*Certificate)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, src := range s.sources {
		for _, e := range src.entries {
			f(e.Certificate)
		}
	}
}
