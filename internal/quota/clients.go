package quota

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
)

const (
	clientShards = 64
	// sweepSteps bounds the work of making room for one new client.
	sweepSteps = 16
)

// Clients counts by client address. Memory is bounded: when there is no room for another address, one whose window
// has passed is forgotten, and if there is none among those looked at, any one. An attacker with very many addresses
// can thereby only win what a new address wins anyway. Addresses of IPv6 count by their /64, which is what one
// customer gets. Use [NewClients].
type Clients struct {
	seed   maphash.Seed
	max    int // per shard
	shards [clientShards]clientShard
}

type clientShard struct {
	mu sync.Mutex
	m  map[clientKey]*client // guarded by mu
	_  [48]byte              // keeps neighbours' locks off one cache line
}

type clientKey struct {
	hi, lo uint64 // the address, IPv4 mapped into IPv6
	limit  Key
}

type client struct {
	counter counter
	expires int64 // when its counts no longer matter; guarded by mu of the shard
}

// NewClients returns a table for up to max addresses and limits (65,536 if 0).
func NewClients(max int) *Clients {
	if max <= 0 {
		max = 1 << 16
	}
	c := &Clients{seed: maphash.MakeSeed(), max: (max + clientShards - 1) / clientShards}
	for i := range c.shards {
		c.shards[i].m = make(map[clientKey]*client)
	}
	return c
}

// Admit counts cost of the client at addr against the limit if the limit allows it.
func (c *Clients) Admit(addr netip.Addr, l *Limit, now int64, cost uint64) Decision {
	k := newClientKey(addr, l.Key)
	sh := &c.shards[k.hash(c.seed)%clientShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.m[k]
	if e == nil {
		if len(sh.m) >= c.max {
			sh.makeRoom(now)
		}
		e = new(client)
		sh.m[k] = e
	}
	e.expires = now + 2*int64(l.Window)
	return e.counter.admit(l, now, cost)
}

// makeRoom forgets entries that have expired, or one that has not. The lock is held.
func (sh *clientShard) makeRoom(now int64) {
	var victim clientKey
	steps, freed := 0, false
	for k, e := range sh.m { // begins anywhere
		if e.expires <= now {
			delete(sh.m, k)
			freed = true
		}
		victim = k
		if steps++; steps == sweepSteps {
			break
		}
	}
	if !freed {
		delete(sh.m, victim)
	}
}

// Len is the number of addresses and limits that are counted.
func (c *Clients) Len() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.Lock()
		n += len(c.shards[i].m)
		c.shards[i].mu.Unlock()
	}
	return n
}

// newClientKey groups addresses into what counts as one client.
func newClientKey(addr netip.Addr, limit Key) clientKey {
	b := addr.As16()
	k := clientKey{hi: binary.BigEndian.Uint64(b[:8]), limit: limit}
	if addr.Is4() || addr.Is4In6() {
		k.lo = binary.BigEndian.Uint64(b[8:])
	}
	return k
}

func (k clientKey) hash(seed maphash.Seed) uint64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], k.hi)
	binary.LittleEndian.PutUint64(b[8:], k.lo)
	binary.LittleEndian.PutUint64(b[16:], uint64(k.limit))
	return maphash.Bytes(seed, b[:])
}
