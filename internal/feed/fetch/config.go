package fetch

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/snapshot"
)

// configKind is the configuration of a gateway group.
type configKind struct {
	sink Sink
	view string
	disk configDisk
}

func (k *configKind) name() string         { return "configuration" }
func (k *configKind) viewName() string     { return k.view }
func (k *configKind) proto() linkv1.View   { return linkv1.View_VIEW_CONFIGURATION }
func (k *configKind) empty() *snapshot.Set { return snapshot.NewSet() }

func (k *configKind) digest(set *snapshot.Set, bucket int) snapshot.Hash {
	return set.BucketHash(bucket)
}

func (k *configKind) merge(base *snapshot.Set, batch []byte) (*snapshot.Set, error) {
	if len(batch) == 0 {
		return base, nil
	}
	puts, dels, err := wire.ParseEntries(batch)
	if err != nil {
		return base, err
	}
	return base.With(puts, dels), nil
}

func (k *configKind) compare(base *snapshot.Set, listing []byte) (*snapshot.Set, []string, error) {
	if len(listing) == 0 {
		return base, nil, nil
	}
	buckets, err := wire.ParseListing(listing)
	if err != nil {
		return base, nil, err
	}
	var missing, gone []string
	for _, b := range buckets {
		listed := make(map[string]bool, len(b.Items))
		for _, item := range b.Items {
			listed[item.Key] = true
			if e, ok := base.Get(item.Key); !ok || wire.ItemOf(e) != item {
				missing = append(missing, item.Key)
			}
		}
		for e := range base.Bucket(b.Bucket) {
			if !listed[e.Key] {
				gone = append(gone, e.Key)
			}
		}
	}
	return base.With(nil, gone), missing, nil
}

// check implements contract N-2: an entry of a newer form is passed over, unless it is critical.
func (k *configKind) check(next, old *snapshot.Set) error {
	puts, _ := next.Diff(old)
	for _, e := range puts {
		if e.Critical && e.MinReader > snapshot.ReaderVersion {
			return &snapshot.Refusal{
				Code: snapshot.RefusedReader, Entry: e.Key,
				Detail: fmt.Sprintf("it needs a gateway that reads version %d, this one reads %d: update the gateway", e.MinReader, snapshot.ReaderVersion),
			}
		}
	}
	return nil
}

func (k *configKind) apply(ctx context.Context, c snapshot.Checkpoint, next, old *snapshot.Set) error {
	puts, dels := next.Diff(old)
	changed := make([]string, 0, len(puts)+len(dels))
	for _, e := range puts {
		changed = append(changed, e.Key)
	}
	return k.sink.Apply(ctx, c, next, append(changed, dels...))
}

func (k *configKind) save(c snapshot.Checkpoint, next *snapshot.Set) (uint64, error) {
	return k.disk.save(c, next)
}

func (k *configKind) load(use func(snapshot.Checkpoint, *snapshot.Set, uint64, bool) error) error {
	return k.disk.load(use)
}

// generations is what localstore.Store offers for configurations.
type generations interface {
	SaveGeneration(localstore.Meta, func(io.Writer) error) (uint64, error)
	AppendDelta(generation uint64, m localstore.Meta, delta []byte) (total int64, err error)
	Generations() iter.Seq2[*localstore.Generation, error]
}

// configDisk keeps a configuration as a generation and the deltas upon it: a change costs its own size.
type configDisk struct {
	store generations
	codec *wire.Codec
	now   func() time.Time

	generation uint64 // to append to; 0: the next save makes one
	content    *snapshot.Set
	epoch      uint64
	keyID      string // of the key that signed it
	deltas     int
	deltaBytes int64
}

// The deltas of a generation are at most this many, and this large unless the configuration itself is larger.
const (
	maxDeltas     = 1000
	minDeltaBytes = 1 << 20
	maxBaseBytes  = 8 << 30 // of a configuration on the disk; it was checked against its checkpoint when it came
)

func (d *configDisk) save(c snapshot.Checkpoint, next *snapshot.Set) (uint64, error) {
	if d.generation != 0 && d.epoch == c.Epoch && d.keyID == c.KeyID && d.content.Root() == next.Root() {
		// Only the number is new. Nothing is lost by starting with an older one: every version between has this content. With
		// another key it has to be written: the one before may be gone from the trust document at the next start.
		return d.generation, nil
	}
	m := localstore.Meta{Epoch: c.Epoch, Seq: c.Seq, SavedAt: d.now(), Checkpoint: snapshot.AppendCheckpoint(nil, c)}
	if d.generation != 0 && d.deltas < maxDeltas {
		var raw []byte
		puts, dels := next.Diff(d.content)
		for _, e := range puts {
			raw = wire.AppendPut(raw, e)
		}
		for _, key := range dels {
			raw = wire.AppendDelete(raw, key)
		}
		limit := max(minDeltaBytes, int64(next.Bytes())/4)
		if len(raw) <= wire.MaxBatchBytes && d.deltaBytes+int64(len(raw)) <= limit {
			total, err := d.store.AppendDelta(d.generation, m, d.codec.Pack(raw))
			if err != nil {
				return 0, err
			}
			d.content, d.epoch, d.keyID, d.deltaBytes = next, c.Epoch, c.KeyID, total
			d.deltas++
			return d.generation, nil
		}
	}
	generation, err := d.store.SaveGeneration(m, func(w io.Writer) error { return snapshot.EncodeSet(w, next) })
	if err != nil {
		return 0, err
	}
	*d = configDisk{store: d.store, codec: d.codec, now: d.now, generation: generation, content: next, epoch: c.Epoch, keyID: c.KeyID}
	return generation, nil
}

// load offers the newest state of each generation, then the one before it, in case it was written but refused, and then
// the one without deltas.
func (d *configDisk) load(use func(snapshot.Checkpoint, *snapshot.Set, uint64, bool) error) error {
	var faults []error
	newest := true
	for g, err := range d.store.Generations() {
		if err != nil {
			faults = append(faults, err)
			newest = false
			continue
		}
		for _, n := range candidates(len(g.Deltas)) {
			c, set, err := d.replay(g, n)
			if err == nil {
				err = use(c, set, g.Number, true)
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("generation %d with %d of %d deltas: %w", g.Number, n, len(g.Deltas), err))
				newest = false
				continue
			}
			if newest {
				d.generation, d.content, d.epoch, d.keyID, d.deltas = g.Number, set, c.Epoch, c.KeyID, len(g.Deltas)
				for _, delta := range g.Deltas {
					d.deltaBytes += int64(len(delta.Bytes))
				}
			}
			return joinFaults(faults)
		}
	}
	return joinFaults(faults)
}

func candidates(deltas int) []int {
	switch deltas {
	case 0:
		return []int{0}
	case 1:
		return []int{1, 0}
	}
	return []int{deltas, deltas - 1, 0}
}

// replay returns a generation with its first n deltas.
func (d *configDisk) replay(g *localstore.Generation, n int) (snapshot.Checkpoint, *snapshot.Set, error) {
	meta := g.Meta
	set, err := decodeSet(g.Payload)
	var puts []snapshot.Entry
	var dels []string
	for _, delta := range g.Deltas[:n] {
		if err != nil {
			break
		}
		var raw []byte
		if raw, err = d.codec.Unpack(delta.Bytes); err != nil {
			break
		}
		var p []snapshot.Entry
		var gone []string
		if p, gone, err = wire.ParseEntries(raw); err != nil {
			break
		}
		// With removes before it puts, so what is removed must be applied before later puts of the same key.
		if len(gone) > 0 {
			set = set.With(puts, dels).With(nil, gone)
			puts, dels = nil, nil
		}
		puts = append(puts, p...)
		meta = delta.Meta
	}
	if err != nil {
		return snapshot.Checkpoint{}, nil, err
	}
	c, err := wire.ParseCheckpoint(meta.Checkpoint)
	return c, set.With(puts, dels), err
}
