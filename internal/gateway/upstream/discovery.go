package upstream

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"hansa.dev/hansa/internal/gateway/upstream/resolve"
	"hansa.dev/hansa/internal/snapshot"
)

// lookupTime bounds one resolution, with all names and servers.
const lookupTime = 15 * time.Second

// discoveryTask finds the endpoints of a backend again and again.
type discoveryTask struct {
	stop context.CancelFunc
}

// startDiscovery starts to look for endpoints. Backend.mu is held.
func (b *Backend) startDiscovery(d *snapshot.Discovery) {
	ctx, cancel := context.WithCancel(context.Background())
	task := &discoveryTask{cancel}
	b.discovery = task
	answered := make(chan struct{})
	b.answered = answered
	b.registry.tasks.Go(func() { b.discover(ctx, task, d, answered) })
}

// stopDiscovery ends that. Backend.mu is held.
func (b *Backend) stopDiscovery() {
	if b.discovery != nil {
		b.discovery.stop()
		b.discovery, b.answered = nil, nil
	}
}

func (b *Backend) discover(ctx context.Context, task *discoveryTask, d *snapshot.Discovery, answered chan struct{}) {
	const longest = 30 * time.Second // between two tries after failures
	o := &b.registry.opts
	log := o.Log.With("backend", b.key.name, "organization", b.key.organization)
	r := resolve.New(d.Resolvers)
	least, most := millis(d.MinTTLMillis, 5*time.Second), millis(d.MaxTTLMillis, 5*time.Minute)
	failures := 0
	for {
		lookup, cancel := context.WithTimeout(ctx, lookupTime)
		var answer resolve.Answer
		err := b.registry.try("looking up endpoints", func() (err error) {
			answer, err = r.Lookup(lookup, resolve.Query{Name: d.Name, SRV: d.SRV, Port: d.Port, Family: d.Family})
			return err
		})
		cancel()
		if ctx.Err() != nil {
			return
		}
		pause := min(max(answer.TTL, least), most)
		if err != nil {
			b.resolutions[0].Add(1)
			if failures == 0 { // once for each time that it begins to fail
				log.Warn("the endpoints of a backend cannot be looked up; those found last stay", slog.Any("err", err))
			}
			pause = min(least<<min(failures, 8), longest)
			failures++
		} else {
			b.resolutions[1].Add(1)
			failures = 0
			b.found(task, answer)
		}
		if answered != nil {
			close(answered)
			answered = nil
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// found makes the answer of DNS the endpoints of the backend.
func (b *Backend) found(task *discoveryTask, answer resolve.Answer) {
	var priorities []int
	for _, t := range answer.Targets {
		priorities = append(priorities, t.Priority)
	}
	slices.Sort(priorities)
	priorities = slices.Compact(priorities)
	targets := make([]target, len(answer.Targets))
	for i, t := range answer.Targets {
		rank, _ := slices.BinarySearch(priorities, t.Priority)
		targets[i] = target{name: t.Name, address: t.Address, rank: min(rank, maxRanks-1), weight: max(t.Weight, 1)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.discovery == task { // and not stopped meanwhile
		b.place(targets, b.settings)
	}
}

// target is what an endpoint is made of.
type target struct {
	name, address string
	rank, weight  int
}

// targetsOf returns the endpoints that an entry names, as seen from a site.
func targetsOf(endpoints []snapshot.Endpoint, site string) []target {
	targets := make([]target, len(endpoints))
	for i, e := range endpoints {
		rank := 2 * min(max(e.Priority, 0), maxRanks/2-1)
		if e.Site != "" && e.Site != site {
			rank++
		}
		targets[i] = target{name: e.Address, address: e.Address, rank: rank, weight: cmp.Or(e.Weight, 1)}
	}
	return targets
}

// apply brings settings into force. Endpoints stay if the way to them is the same.
func (b *Backend) apply(s *settings, site string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.settings
	b.settings = s
	if s.content.Discovery == nil {
		b.stopDiscovery()
		b.place(targetsOf(s.static, site), old)
		return
	}
	if !s.sameDiscovery(old) {
		b.stopDiscovery()
		b.startDiscovery(s.content.Discovery)
	}
	// Until there is an answer, what was there before stays.
	targets := make([]target, len(b.places))
	for i, p := range b.places {
		targets[i] = target{name: p.name, address: p.address, rank: p.rank, weight: p.weight}
	}
	b.place(targets, old)
}

// place makes targets the endpoints of the backend, which was set as old says. Those that are gone finish what they have
// begun. mu is held.
func (b *Backend) place(targets []target, old *settings) {
	s, now := b.settings, b.registry.opts.Sweeper.Now()
	type id struct{ name, address string }
	had := map[id]*endpoint{}
	for _, p := range b.places {
		had[id{p.name, p.address}] = p.endpoint
	}
	sameWire, sameCheck := s.sameWire(old), s.sameCheck(old)
	places, stay := make([]place, 0, len(targets)), map[id]*endpoint{}
	for _, t := range targets {
		k := id{t.name, t.address}
		e := stay[k] // named twice, it takes two turns
		if e == nil && sameWire {
			e = had[k]
		}
		switch {
		case e == nil:
			e = newEndpoint(b, t.name, t.address, now)
			e.startCheck(s)
		case stay[k] == nil && !sameCheck:
			e.stopCheck()
			e.startCheck(s)
		}
		stay[k] = e
		places = append(places, place{e, t.rank, t.weight})
	}
	for k, e := range had {
		if stay[k] != e {
			e.stopCheck()
			e.pool.close()
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.rank, b.rank) })
	b.places = places
	b.renewLocked()
}

// letGo is called when the backend is not part of the configuration any more. Who still has it may go on using it;
// nothing is kept for long.
func (b *Backend) letGo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopDiscovery()
	for _, p := range b.places {
		p.stopCheck()
		p.pool.close()
	}
}
