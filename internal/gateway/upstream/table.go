package upstream

import (
	"math"
	"time"
)

// maxRanks bounds the ranks of a table: 16 priorities, each of them for the own site and for others.
const maxRanks = 32

// overprovision is how much of its share an endpoint can take in place of others, in percent: as long as more than
// 100/140 of a rank are healthy, it takes all requests.
const overprovision = 140

// place is what the configuration or DNS say about an endpoint.
type place struct {
	*endpoint
	rank   int
	weight int
}

// table is what requests pick their endpoints from: those that are there, and which of them are to be used at present. It
// never changes; whoever learns that it is out of date has another one made.
type table struct {
	settings *settings
	places   []place // all, by rank
	ranks    []rank  // those that get requests; empty if no endpoint is healthy
	expires  time.Duration
}

// rank is a share of the requests.
type rank struct {
	group
	upto uint64 // of 100: the sum of the shares so far
}

// never is when a table without an end expires.
const never = time.Duration(math.MaxInt64)

// newTable works out which endpoints are to be used. places are ordered by rank.
//
// It is Envoy's rule for priorities and panic: a rank has a health of 1.4 times the percentage of its endpoints that are
// healthy, at most 100. Requests fill the ranks in order up to their health. If all healths together are less than 100
// requests are shared in proportion to them, and a rank where fewer than panicPercent are healthy uses all its
// endpoints: the few that are left would break under the load of all. Endpoints that could not even be connected to
// are used only where there is no other.
func newTable(s *settings, places []place, now time.Duration) *table {
	t := &table{settings: s, places: places, expires: never}
	var total, usable [maxRanks]int
	var healthy, connectable, all [maxRanks][]member
	ranks := 0
	for _, p := range places {
		r := p.rank
		ranks = max(ranks, r+1)
		total[r]++
		m := member{p.endpoint, t.weigh(&p, now)}
		all[r] = append(all[r], m)
		state := p.stateAt(now)
		if state.next < t.expires {
			t.expires = state.next
		}
		if state.refused {
			continue
		}
		connectable[r] = append(connectable[r], m)
		if state.healthy {
			usable[r]++
			healthy[r] = append(healthy[r], m)
		}
	}
	var health [maxRanks]int
	sum := 0
	for r := range ranks {
		if total[r] > 0 {
			health[r] = min(100, overprovision*usable[r]/total[r])
			sum += health[r]
		}
	}
	if sum == 0 {
		t.lastResort(ranks, connectable[:], all[:])
		return t
	}
	left := 100
	for r := range ranks {
		share := min(left, health[r]*100/min(sum, 100))
		if share == 0 {
			continue
		}
		left -= share
		members := healthy[r]
		if sum < 100 && 100*usable[r] < s.balance.panic*total[r] {
			members = connectable[r]
		}
		t.ranks = append(t.ranks, rank{newGroup(members), uint64(100 - left)})
	}
	t.ranks[len(t.ranks)-1].upto = 100 // what rounding has left over
	return t
}

// lastResort is what is used if no endpoint is healthy: unless panic is off all of the first rank, but rather those that
// can be connected to, of whatever rank.
func (t *table) lastResort(ranks int, connectable, all [][]member) {
	if t.settings.balance.panic == 0 {
		return
	}
	for _, choice := range [][][]member{connectable, all} {
		for r := range ranks {
			if len(choice[r]) > 0 {
				t.ranks = []rank{{newGroup(choice[r]), 100}}
				return
			}
		}
	}
}

// weigh returns the weight of an endpoint, which is less for a while if it is new or healthy again.
func (t *table) weigh(p *place, now time.Duration) uint64 {
	weight := uint64(max(p.weight, 1))
	slow := t.settings.balance.slowStart
	if slow <= 0 {
		return weight
	}
	age := now - time.Duration(p.since.Load())
	if age >= slow {
		return weight * 100
	}
	t.expires = min(t.expires, now+max(slow/20, 100*time.Millisecond))
	return weight * uint64(max(10, 100*age/slow))
}

// pick picks the endpoint of a request; nil if there is none.
func (t *table) pick(b *Backend, c *call) *endpoint {
	if len(t.ranks) == 0 {
		return nil
	}
	s, o := t.settings, &b.registry.opts
	var key uint64
	if s.balance.key != nil {
		var ok bool
		if key, ok = s.balance.key.of(c.x); !ok {
			key = o.Random()
		}
	}
	r := &t.ranks[0]
	if len(t.ranks) > 1 {
		draw := key // the same key goes to the same rank, as long as shares stay
		if s.balance.key == nil {
			draw = o.Random()
		}
		for draw %= 100; draw >= r.upto; {
			r = &t.ranks[indexOf(t.ranks, r)+1]
		}
	}
	return r.pick(&s.balance, b.turn.Add(1), key, o.Random, o.Sweeper.Now())
}

func indexOf(ranks []rank, r *rank) int {
	for i := range ranks {
		if &ranks[i] == r {
			return i
		}
	}
	return 0
}

// another picks an endpoint that the request has not been tried with; nil if there is none. What is healthy comes first,
// then by rank.
func (t *table) another(b *Backend, c *call) *endpoint {
	for range 3 {
		if e := t.pick(b, c); e != nil && !c.hasTried(e) {
			return e
		}
	}
	now := b.registry.opts.Sweeper.Now()
	var second *endpoint
	for _, p := range t.places {
		if c.hasTried(p.endpoint) {
			continue
		}
		if st := p.stateAt(now); st.healthy && !st.refused {
			return p.endpoint
		} else if second == nil && t.settings.balance.panic > 0 {
			second = p.endpoint
		}
	}
	return second
}
