package upstream

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// places makes endpoints "0:1", "1:1" ... with those weights, all of rank 0.
func placesOf(weights ...int) []place {
	b := &Backend{registry: &Registry{}}
	all := make([]place, len(weights))
	for i, w := range weights {
		name := fmt.Sprintf("%d:1", i)
		all[i] = place{newEndpoint(b, name, name, 0), 0, w}
	}
	return all
}

func groupOf(weights ...int) group {
	t := newTable(&settings{balance: balance{panic: 50}}, placesOf(weights...), 0)
	return t.ranks[0].group
}

// counts counts what n picks come to, by index.
func counts(g *group, b *balance, n int, key func(i int) uint64) []int {
	random := seeded(7)
	got := make([]int, len(g.members))
	for i := range n {
		e := g.pick(b, uint32(i), key(i), random, 0)
		got[slices.IndexFunc(g.members, func(m member) bool { return m.endpoint == e })]++
	}
	return got
}

func noKey(int) uint64 { return 0 }

func TestRoundRobinIsExact(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		weights []int
		rounds  int
	}{{[]int{1, 1, 1}, 7}, {[]int{1, 2, 3}, 5}, {[]int{10, 20, 30}, 5}, {[]int{1000, 1}, 1}, {[]int{5, 1, 1}, 3}, {[]int{100, 3, 17, 100}, 2}, {[]int{1}, 3}} {
		g := groupOf(tt.weights...)
		got := counts(&g, &balance{}, int(g.total)*tt.rounds, noKey)
		want := make([]int, len(got))
		for i, m := range g.members {
			want[i] = int(m.weight) * tt.rounds
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("weights %v: turns (-want +got)\n%s", tt.weights, diff)
		}
	}
}

// TestRoundRobinIsSpread checks that a heavy endpoint does not get its turns in a row.
func TestRoundRobinIsSpread(t *testing.T) {
	t.Parallel()
	g := groupOf(5, 5, 10)
	run, longest := 0, 0
	for i := range 400 {
		if g.pick(&balance{}, uint32(i), 0, nil, 0) == g.members[2].endpoint {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	if longest > 2 {
		t.Errorf("an endpoint with half of the weight got %d turns in a row", longest)
	}
}

func TestSharesAreAsWeights(t *testing.T) {
	t.Parallel()
	const n = 60_000
	keys := func(i int) uint64 { return hashOf(fmt.Sprint(i)) }
	for name, b := range map[string]*balance{
		"random":        {method: randomly},
		"leastRequests": {method: leastRequests},
		"responseTime":  {method: responseTime, decay: time.Second},
		"hash":          {method: consistentHash, maxLoad: 1000},
	} {
		g := groupOf(1, 2, 3)
		for i, got := range counts(&g, b, n, keys) {
			want := float64(n) * float64(i+1) / 6
			if math.Abs(float64(got)-want) > want*.04 {
				t.Errorf("%s: endpoint %d got %d of %d, want about %.0f", name, i, got, n, want)
			}
		}
	}
}

func TestLeastRequests(t *testing.T) {
	t.Parallel()
	g := groupOf(1, 1, 1, 1)
	g.members[2].active.Store(10)
	got := counts(&g, &balance{method: leastRequests}, 4000, noKey)
	// It is taken only if it is drawn against itself, which is never.
	if got[2] != 0 {
		t.Errorf("the busiest endpoint got %d requests", got[2])
	}
	// Who counts its requests stays balanced: 10,000 requests that never end.
	g = groupOf(1, 1, 1, 1, 1, 1, 1, 1)
	random := seeded(3)
	for range 10_000 {
		g.pick(&balance{method: leastRequests}, 0, 0, random, 0).active.Add(1)
	}
	for _, m := range g.members {
		if n := m.active.Load(); n < 1245 || n > 1255 {
			t.Errorf("%d requests, want 1250 with a deviation of a few (Mitzenmacher)", n)
		}
	}
}

func TestResponseTime(t *testing.T) {
	t.Parallel()
	g := groupOf(1, 1)
	b := &balance{method: responseTime, decay: 10 * time.Second}
	for i := range g.members {
		g.members[i].rtt.observe(time.Duration(i*9+1)*10*time.Millisecond, 0, b.decay)
	}
	if got := counts(&g, b, 1000, noKey); got[1] > 0 {
		t.Errorf("the slow endpoint got %d requests", got[1])
	}
	slow := &g.members[1].rtt
	if half, want := slow.at(10*time.Second, b.decay), 50e6; math.Abs(half-want) > 1 {
		t.Errorf("after one half-life it counts %v, want %v", half, want)
	}
	// Its peak wears off, while the other goes on being measured: it is asked again.
	now := 50 * time.Second
	g.members[0].rtt.observe(10*time.Millisecond, now, b.decay)
	random, again := seeded(1), 0
	for range 1000 {
		if g.pick(b, 0, 0, random, now) == g.members[1].endpoint {
			again++
		}
	}
	if again < 900 {
		t.Errorf("the endpoint that was slow got %d of 1000 requests after five half-lives", again)
	}
	// A peak counts at once.
	slow.observe(time.Second, now, b.decay)
	if v := slow.at(now, b.decay); v != 1e9 {
		t.Errorf("after a peak of 1s it counts %v", v)
	}
}

// TestHashMovesLittle takes endpoints away and adds some: only keys of those that go or come may move.
func TestHashMovesLittle(t *testing.T) {
	t.Parallel()
	b := &balance{method: consistentHash, maxLoad: 1000}
	all := placesOf(1, 1, 2, 1, 3, 1, 1, 5)
	s := &settings{balance: balance{panic: 50}}
	before := newTable(s, all, 0).ranks[0].group
	for gone := range all {
		after := newTable(s, slices.Delete(slices.Clone(all), gone, gone+1), 0).ranks[0].group
		moved := 0
		const keys = 20_000
		for i := range keys {
			key := hashOf(fmt.Sprint("key", i))
			was, is := before.pick(b, 0, key, nil, 0), after.pick(b, 0, key, nil, 0)
			if was != is {
				moved++
				if was != all[gone].endpoint {
					t.Fatalf("without %d key %d moved from %s to %s", gone, i, was.address, is.address)
				}
			}
		}
		want := keys * all[gone].weight / 15
		if moved < want*8/10 || moved > want*12/10 {
			t.Errorf("without %d: %d keys moved, want about %d", gone, moved, want)
		}
	}
}

// TestHashBoundsLoad sends everything with one key and without an end.
func TestHashBoundsLoad(t *testing.T) {
	t.Parallel()
	b := &balance{method: consistentHash, maxLoad: 125}
	g := groupOf(1, 1, 1, 1)
	const n = 1000
	for range n {
		g.pick(b, 0, 42, nil, 0).active.Add(1)
	}
	for _, m := range g.members {
		if got := m.active.Load(); got > n/4*125/100+1 {
			t.Errorf("%s has %d requests, at most %d are allowed", m.address, got, n/4*125/100+1)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	x := &exchange.Exchange{ClientIP: exchange.View("192.0.2.1")}
	x.Req.AddString(exchange.NameOf("X-Tenant"), "blue")
	x.Req.AddString(exchange.NameOf("Cookie"), `a=b; session="s1"; c=d`)
	for _, tt := range []struct {
		by   snapshot.HashBy
		want string
	}{
		{snapshot.HashBy{Header: "x-tenant"}, "blue"},
		{snapshot.HashBy{Header: "x-other"}, ""},
		{snapshot.HashBy{Cookie: "session"}, "s1"},
		{snapshot.HashBy{Cookie: "a"}, "b"},
		{snapshot.HashBy{Cookie: "c"}, "d"},
		{snapshot.HashBy{Cookie: "b"}, ""},
		{snapshot.HashBy{ClientIP: true}, "192.0.2.1"},
	} {
		got, ok := newKeyOf(&tt.by).of(x)
		if ok != (tt.want != "") || ok && got != hashOf(tt.want) {
			t.Errorf("%+v: %v, %v, want the hash of %q", tt.by, got, ok, tt.want)
		}
	}
	// The hash is the same on every gateway, whatever its version: a change moves every key.
	if got := hashOf("blue"); got != 0xd6aca0b0b9ba62b1 {
		t.Errorf("hashOf(blue) = %#x", got)
	}
}

// shares returns which percentage of requests each endpoint gets, rounded, by address.
func shares(tab *table) map[string]int {
	got := map[string]int{}
	from := uint64(0)
	for i := range tab.ranks {
		r := &tab.ranks[i]
		for _, m := range r.members {
			got[m.address] += int(math.Round(float64(r.upto-from) * float64(m.weight) / float64(r.total)))
		}
		from = r.upto
	}
	return got
}

// TestRanks follows the table of Envoy's documentation of priorities, and beyond.
func TestRanks(t *testing.T) {
	t.Parallel()
	// One letter for each endpoint: healthy, bad, refused. Ranks are separated by blanks.
	for _, tt := range []struct {
		states string
		panic  int
		want   string
	}{
		{"hhhh hh", 50, "25 25 25 25"},
		{"hhhb hh", 50, "33 33 33"},        // 75 % of 1.4 is 105
		{"hhbb hh", 50, "35 35 . . 15 15"}, // 70 % and the rest
		{"hbbb hhhh", 50, "35 . . . 16 16 16 16"},
		{"bbbb hhh", 50, ". . . . 33 33 33"},
		{"bbbb hbbb", 50, ". . . . 25 25 25 25"}, // 35 % of health: in panic
		{"bbbb hbbb", 0, ". . . . 100"},          // panic is off
		{"hbbb hbbb", 20, "50 . . . 50"},         // 35 + 35 are not enough, but more than 20 % are healthy
		{"hbbb", 50, "25 25 25 25"},              // panic
		{"hrrr", 50, "100"},                      // but nobody asks those that refuse
		{"hbrr", 50, "50 50"},                    // only those that can be connected to
		{"bbbb bb", 50, "25 25 25 25"},           // all are bad
		{"bbbb bb", 0, ""},                       //
		{"rrrr bb", 50, ". . . . 50 50"},         // what can be connected to, of whatever rank
		{"rr rr", 50, "50 50"},                   // the last resort
		{"bb hh bb hh", 50, ". . 50 50"},         //
		{"b b b h", 50, ". . . 100"},             //
	} {
		var places []place
		b := &Backend{registry: &Registry{}}
		rank := 0
		for _, c := range tt.states {
			if c == ' ' {
				rank++
				continue
			}
			name := fmt.Sprint(len(places))
			e := newEndpoint(b, name, name, 0)
			switch c {
			case 'b':
				e.verdict.Store(unhealthy)
			case 'r':
				e.downUntil.Store(int64(time.Minute))
			}
			places = append(places, place{e, rank, 1})
		}
		tab := newTable(&settings{balance: balance{panic: tt.panic}}, places, time.Second)
		got := shares(tab)
		want := map[string]int{}
		for i, w := range strings.Fields(tt.want) {
			if n, err := strconv.Atoi(w); err == nil {
				want[strconv.Itoa(i)] = n
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q, panic at %d: shares (-want +got)\n%s", tt.states, tt.panic, diff)
		}
		if len(tab.ranks) > 0 && tab.ranks[len(tab.ranks)-1].upto != 100 {
			t.Errorf("%q: the shares sum to %d", tt.states, tab.ranks[len(tab.ranks)-1].upto)
		}
	}
}

// TestSites prefers what stands in the site of the gateway, within a priority.
func TestSites(t *testing.T) {
	t.Parallel()
	endpoints := []snapshot.Endpoint{
		{Address: "a:1", Site: "paris"}, {Address: "b:1", Site: "dublin"}, {Address: "c:1"}, {Address: "d:1", Priority: 1, Site: "dublin"}, {Address: "e:1", Priority: 15, Site: "paris"},
	}
	for site, want := range map[string][]int{"paris": {0, 1, 0, 3, 30}, "dublin": {1, 0, 0, 2, 31}, "": {1, 1, 0, 3, 31}} {
		var got []int
		for _, target := range targetsOf(endpoints, site) {
			got = append(got, target.rank)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seen from %q: ranks (-want +got)\n%s", site, diff)
		}
	}
}

// TestSlowStart watches the share of an endpoint that comes later than another.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	s := &settings{balance: balance{panic: 50, slowStart: 100 * time.Second}}
	places := placesOf(1, 1)
	const begin = 1000 * time.Second
	places[1].since.Store(int64(begin))
	for after, want := range map[time.Duration]int{0: 9, 5 * time.Second: 9, 25 * time.Second: 20, 50 * time.Second: 33, 100 * time.Second: 50, time.Hour: 50} {
		tab := newTable(s, places, begin+after)
		if got := shares(tab)["1:1"]; got != want {
			t.Errorf("after %v its share is %d %%, want %d", after, got, want)
		}
		if wears := tab.expires < never; wears != (after < 100*time.Second) {
			t.Errorf("after %v the table expires at %v", after, tab.expires)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	parts := func(weights ...int) []Part {
		var all []Part
		for i, w := range weights {
			all = append(all, Part{Name: fmt.Sprint("v", i), Weight: w})
		}
		return all
	}
	x := &exchange.Exchange{}
	got := map[string]int{}
	s := NewSplit(parts(90, 10, 0), nil, seeded(5))
	const n = 50_000
	for range n {
		got[s.pick(x).Name]++
	}
	if got["v2"] != 0 || math.Abs(float64(got["v1"])-n/10) > n/10*.05 {
		t.Errorf("shares %v, want 90 and 10 %%", got)
	}
	// With a key a request goes where those like it went, and a greater weight only draws keys to it.
	by := &snapshot.HashBy{Header: "X-User"}
	before, after := NewSplit(parts(90, 10), by, seeded(5)), NewSplit(parts(70, 30), by, seeded(5))
	moved := 0
	for i := range n {
		x := &exchange.Exchange{}
		x.Req.AddString(exchange.NameOf("X-User"), fmt.Sprint(i))
		was, is := before.pick(x).Name, after.pick(x).Name
		if again := before.pick(x).Name; again != was {
			t.Fatalf("user %d went to %s, then to %s", i, was, again)
		}
		if was != is {
			moved++
			if was == "v1" {
				t.Fatalf("user %d left the part that grew", i)
			}
		}
	}
	if math.Abs(float64(moved)-n/5) > n/5*.05 {
		t.Errorf("%d of %d users moved, want a fifth", moved, n)
	}
}

func TestLatencies(t *testing.T) {
	t.Parallel()
	for d := 2 * time.Microsecond; d < time.Minute; d = d*11/10 + 1 {
		if c := ceilingOf(bucketOf(d)); c < d.Truncate(time.Microsecond) || c > max(d*5/4, d+time.Microsecond) {
			t.Errorf("%v counts as %v", d, c)
		}
	}
	var l latencies
	if _, ok := l.percentile(95, 0); ok {
		t.Error("there is a percentile of nothing")
	}
	for i := range 1000 {
		l.observe(time.Duration(i+1) * time.Millisecond)
	}
	if p, ok := l.percentile(95, time.Second); !ok || p < 950*time.Millisecond || p > 950*time.Millisecond*5/4 {
		t.Errorf("95th percentile %v, %v", p, ok)
	}
	if _, ok := l.percentile(95, 31*time.Second); !ok {
		t.Error("the last half minute is forgotten")
	}
	if p, ok := l.percentile(95, 100*time.Second); ok {
		t.Errorf("an old percentile: %v", p)
	}
}
