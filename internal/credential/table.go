package credential

import (
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// Record is one credential in use. All but what its methods return never changes. It takes two neighbouring lines of the
// processor's cache and holds all that a request asks for, so that the subscription need not be looked at.
type Record struct {
	hash      snapshot.CredentialHash
	ExpiresAt int64 // Unix seconds; 0: never
	State     snapshot.State
	gone      atomic.Bool // no longer what Lookup returns
	dead      atomic.Bool

	Subscription *Subscription
	// ProductID is the product of the subscription, found by comparing pointers.
	ProductID ProductID
	// Subject is who the limits of the subscription count for. All its credentials share it.
	Subject *quota.Subject
	// LogMembers is what lines of the access log say about the subscription; see New.
	LogMembers string

	_ [32]byte
}

// Hash is what the credential is looked up by.
func (r *Record) Hash() snapshot.CredentialHash { return r.hash }

// Kill makes the record dead, when it is known from elsewhere that the credential was taken away.
func (r *Record) Kill() { r.dead.Store(true) }

// Dead tells whether the credential has been taken away or has ceased to be active since the record was handed out.
func (r *Record) Dead() bool { return r.dead.Load() }

// Expired tells whether the credential has expired at a time in Unix nanoseconds.
func (r *Record) Expired(now int64) bool {
	return r.ExpiresAt != 0 && now >= r.ExpiresAt*int64(time.Second)
}

// Table is the table of credentials. Use [New].
type Table struct {
	recent        recent // first, so that a bucket is one line of the processor's cache
	subscriptions subscriptions
	current       atomic.Pointer[view]

	mu     sync.Mutex // serialises Apply
	onDead func()
}

// view is the table at one version.
type view struct {
	credentials *snapshot.Credentials
	shards      [snapshot.CredentialShards]*shard
}

// shard is one shard with the records of those credentials that were used, by place.
type shard struct {
	segment *snapshot.Shard
	records []atomic.Pointer[Record]

	mu      sync.Mutex // guards the making of records
	retired bool       // guarded by mu: the records have moved on to a successor
}

// New returns a table without credentials, for which Loaded is false. subjects is where the counts of subscriptions
// and applications are kept; describe makes the LogMembers of a subscription; onDead, if not nil, is called after a change
// that made records dead.
func New(subjects *quota.Subjects, describe func(application, product string) string, onDead func()) *Table {
	return &Table{subscriptions: newSubscriptions(subjects, describe), onDead: onDead}
}

// Loaded tells whether the table was ever applied.
func (t *Table) Loaded() bool { return t.current.Load() != nil }

// Len is the number of credentials.
func (t *Table) Len() int {
	if v := t.current.Load(); v != nil {
		return v.credentials.Len()
	}
	return 0
}

// Lookup returns the record of the credential with that hash.
func (t *Table) Lookup(hash snapshot.CredentialHash) (*Record, bool) {
	if r := t.recent.find(&hash); r != nil {
		return r, true
	}
	r, ok := t.find(hash)
	if ok {
		t.recent.keep(r)
	}
	return r, ok
}

// find is Lookup in the segments.
func (t *Table) find(hash snapshot.CredentialHash) (*Record, bool) {
	for {
		v := t.current.Load()
		if v == nil {
			return nil, false
		}
		s := v.shards[hash.Shard()]
		if s == nil {
			return nil, false
		}
		i, ok := s.segment.Find(hash)
		if !ok {
			return nil, false
		}
		if r := s.records[i].Load(); r != nil {
			return r, true
		}
		if r := t.use(s, i); r != nil {
			return r, true
		}
		// The shard was replaced meanwhile, and its successor is about to be visible or is already.
		t.awaitApply()
	}
}

// awaitApply returns when no change is under way.
func (t *Table) awaitApply() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// use makes the record of a credential that is used for the first time, or returns nil if the shard is retired.
func (t *Table) use(s *shard, i int) *Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired {
		return nil
	}
	if r := s.records[i].Load(); r != nil {
		return r
	}
	r := t.newRecord(s.segment.At(i))
	s.records[i].Store(r)
	return r
}

// newRecord makes the record of a credential, which does not keep the shard in memory.
func (t *Table) newRecord(c snapshot.Credential) *Record {
	s := t.subscriptions.acquire(c)
	return &Record{
		hash: c.Hash, State: c.State, ExpiresAt: c.ExpiresAt,
		Subscription: s, ProductID: s.productID, Subject: s.subject, LogMembers: s.logMembers,
	}
}

// Application is who the limits of the application count for. All credentials of all its subscriptions share it.
func (t *Table) Application(r *Record) *quota.Subject {
	return t.subscriptions.application(r.Subscription)
}

// Apply replaces the table. Its cost follows the number of shards that differ.
func (t *Table) Apply(credentials *snapshot.Credentials) {
	t.mu.Lock()
	old := t.current.Load()
	next := &view{credentials: credentials}
	died := false
	for i := range next.shards {
		segment := credentials.Shard(i)
		var was *shard
		if old != nil {
			was = old.shards[i]
		}
		switch {
		case was != nil && was.segment.Digest() == segment.Digest():
			next.shards[i] = was
		case was != nil:
			var d bool
			next.shards[i], d = t.succeed(was, segment)
			died = died || d
		case segment.Len() > 0:
			next.shards[i] = newShard(segment)
		}
	}
	t.current.Store(next)
	t.mu.Unlock()
	if died && t.onDead != nil {
		t.onDead()
	}
}

func newShard(segment *snapshot.Shard) *shard {
	return &shard{segment: segment, records: make([]atomic.Pointer[Record], segment.Len())}
}

// succeed makes the successor of a shard, nil if it is empty, and tells whether records died.
func (t *Table) succeed(was *shard, segment *snapshot.Shard) (next *shard, died bool) {
	if segment.Len() > 0 {
		next = newShard(segment)
	}
	was.mu.Lock()
	defer was.mu.Unlock()
	was.retired = true
	for i := range was.records {
		r := was.records[i].Load()
		if r == nil {
			continue
		}
		old := was.segment.At(i)
		at, ok := segment.Find(old.Hash)
		if ok && segment.At(at) == old {
			next.records[at].Store(r)
			continue
		}
		var now *Record
		if ok {
			now = t.newRecord(segment.At(at)) // before release, so that the count is never unheld
			next.records[at].Store(now)
		}
		t.subscriptions.release(r.Subscription) // it may still be in use by a request
		r.gone.Store(true)
		t.recent.forget(r)
		if r.State == snapshot.StateActive && (now == nil || now.State != snapshot.StateActive) {
			r.dead.Store(true)
			died = true
		}
	}
	return next, died
}
