package quota

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Subject is whoever shares limits. Its counters are made on first use and stay as long as the subject does;
// there is one for each limit it ever met. The zero value is a subject without counts.
type Subject struct {
	counters atomic.Pointer[counter] // newest first
	first    counter                 // most subjects have no other: it lies in the same line of the processor's cache
	used     atomic.Bool             // first has been given out
	refs     int32                   // guarded by the shard of Subjects, as idle
	idle     int64                   // when a Sweep first found that nobody holds it; 0: it is held
}

// Admit counts cost against the limit if the limit allows it.
func (s *Subject) Admit(l *Limit, now int64, cost uint64) Decision {
	return s.counter(l.Key).admit(l, now, cost)
}

// counter returns the counter of the limit with that key and makes it if this is its first use.
func (s *Subject) counter(k Key) *counter {
	head := s.counters.Load()
	for c := head; c != nil; c = c.next {
		if c.key == k {
			return c
		}
	}
	fresh := &s.first
	if !s.used.CompareAndSwap(false, true) {
		fresh = new(counter)
	}
	fresh.key, fresh.next = k, head
	for !s.counters.CompareAndSwap(head, fresh) {
		head = s.counters.Load()
		for c := head; c != nil; c = c.next {
			if c.key == k {
				return c
			}
		}
		fresh.next = head
	}
	return fresh
}

// Local is the engine that counts in this gateway alone.
type Local struct{}

// Admit counts cost of the subject against the limit if the limit allows it.
func (Local) Admit(s *Subject, l *Limit, now int64, cost uint64) Decision {
	return s.Admit(l, now, cost)
}

// ID is the identity of a subject.
type ID [16]byte

// NewID derives the identity of a subject from its kind and its names.
func NewID(kind string, names ...string) ID {
	h := digest(append([]string{kind}, names...))
	return ID(h[:16])
}

const subjectShards = 64

// Subjects keeps subjects by identity. The zero value is not usable; see [NewSubjects].
type Subjects struct {
	shards [subjectShards]struct {
		mu sync.Mutex
		m  map[ID]*Subject // guarded by mu
	}
}

// NewSubjects returns an empty registry.
func NewSubjects() *Subjects {
	s := new(Subjects)
	for i := range s.shards {
		s.shards[i].m = make(map[ID]*Subject)
	}
	return s
}

// Acquire returns the subject with that identity, the same for all who hold it. Release it once for every Acquire.
func (s *Subjects) Acquire(id ID) *Subject {
	sh := &s.shards[id[0]%subjectShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sub := sh.m[id]
	if sub == nil {
		sub = new(Subject)
		sh.m[id] = sub
	}
	sub.refs++
	sub.idle = 0
	return sub
}

// Release gives up a subject that Acquire returned. Its counts are kept until [Subjects.Sweep] forgets them.
func (s *Subjects) Release(id ID) {
	sh := &s.shards[id[0]%subjectShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sub := sh.m[id]; sub != nil {
		sub.refs--
	}
}

// Sweep, called now and then, forgets subjects that nobody has held for the time keep, so that whoever takes a key away and makes another
// does not start with a new count, and yet nothing is kept for ever.
func (s *Subjects) Sweep(now int64, keep time.Duration) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for id, sub := range sh.m {
			switch {
			case sub.refs > 0:
			case sub.idle == 0:
				sub.idle = now
			case now-sub.idle >= int64(keep):
				delete(sh.m, id)
			}
		}
		sh.mu.Unlock()
	}
}

// Len is the number of subjects.
func (s *Subjects) Len() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.m)
		sh.mu.Unlock()
	}
	return n
}
