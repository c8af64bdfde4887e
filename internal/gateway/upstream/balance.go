package upstream

import (
	"sort"
	"time"
)

// method is how the endpoint of a request is picked.
type method uint8

const (
	roundRobin method = iota
	randomly
	leastRequests
	responseTime
	consistentHash
)

// methods are their names in entries.
var methods = [...]string{"roundRobin", "random", "leastRequests", "responseTime", "consistentHash"}

// group is the endpoints that one rank offers at present.
type group struct {
	members []member
	upto    []uint64 // the sums of the weights so far
	total   uint64   // of the weights
	stride  uint64   // between two turns, without a common factor with total
}

// member is an endpoint with its share.
type member struct {
	*endpoint
	weight uint64
}

// newGroup makes a group. Weights are at least 1.
func newGroup(members []member) group {
	g := group{members: members, stride: 1}
	equal := true
	divisor := uint64(0)
	for _, m := range members {
		divisor = gcd(divisor, m.weight)
		equal = equal && m.weight == members[0].weight
	}
	for i := range members {
		members[i].weight /= divisor
		g.total += members[i].weight
		g.upto = append(g.upto, g.total)
	}
	if !equal {
		// Steps of the golden ratio spread the turns of an endpoint over the whole round, instead of giving them to it in a
		// row. Without a common factor every place is passed once in a round, so shares are exact.
		g.stride = max(g.total*618/1000, 1)
		for gcd(g.stride, g.total) != 1 {
			g.stride++
		}
	}
	return g
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// at returns the endpoint that has the place n of total.
func (g *group) at(n uint64) *member {
	if g.total == uint64(len(g.members)) {
		return &g.members[n]
	}
	return &g.members[sort.Search(len(g.upto), func(i int) bool { return g.upto[i] > n })]
}

// pick picks an endpoint. g is not empty. key is what consistentHash goes by.
func (g *group) pick(b *balance, turn uint32, key uint64, random func() uint64, now time.Duration) *endpoint {
	if len(g.members) == 1 {
		return g.members[0].endpoint
	}
	switch b.method {
	case randomly:
		return g.at(random() % g.total).endpoint
	case leastRequests:
		return g.ofTwo(random, func(m *member) float64 { return float64(m.active.Load()) })
	case responseTime:
		return g.ofTwo(random, func(m *member) float64 {
			return m.rtt.at(now, b.decay) * float64(m.active.Load()+1)
		})
	case consistentHash:
		return g.hashed(b.maxLoad, key)
	}
	return g.at(uint64(turn) * g.stride % g.total).endpoint
}

// ofTwo takes two endpoints at random, by weight, and of these the one at which a request costs less for its weight (the
// power of two choices, Mitzenmacher 2001). With equal costs it is the first.
func (g *group) ofTwo(random func() uint64, cost func(*member) float64) *endpoint {
	r := random()
	a := g.at(r >> 32 % g.total)
	b := g.at(r & (1<<32 - 1) % g.total)
	if a == b { // the next one; a second draw could take for ever
		for i := range g.members {
			if &g.members[i] == a {
				b = &g.members[(i+1)%len(g.members)]
			}
		}
	}
	if cost(b)*float64(a.weight) < cost(a)*float64(b.weight) {
		return b.endpoint
	}
	return a.endpoint
}

// hashed returns the endpoint with the highest bid for the key among those that are not overloaded (consistent hashing
// with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2016): what the first one has no room for goes to the second,
// and so on.
func (g *group) hashed(maxLoad int64, key uint64) *endpoint {
	requests := int64(1)
	for i := range g.members {
		requests += g.members[i].active.Load()
	}
	room := func(m *member) bool {
		// rounded up, so that one request always fits
		most := (maxLoad*requests*int64(m.weight) + 100*int64(g.total) - 1) / (100 * int64(g.total))
		return m.active.Load() < max(most, 1)
	}
	var best, bestWithRoom *member
	var top, topWithRoom float64
	for i := range g.members {
		m := &g.members[i]
		s := score(key, m.hash, float64(m.weight))
		if best == nil || s > top {
			best, top = m, s
		}
		if (bestWithRoom == nil || s > topWithRoom) && room(m) {
			bestWithRoom, topWithRoom = m, s
		}
	}
	if bestWithRoom != nil {
		return bestWithRoom.endpoint
	}
	return best.endpoint
}
