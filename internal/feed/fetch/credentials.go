package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// credentialKind is the credentials of an organization.
type credentialKind struct {
	sink Sink
	view string
	disk credentialDisk
}

func (k *credentialKind) name() string                 { return "credentials" }
func (k *credentialKind) viewName() string             { return k.view }
func (k *credentialKind) proto() linkv1.View           { return linkv1.View_VIEW_CREDENTIALS }
func (k *credentialKind) empty() *snapshot.Credentials { return snapshot.NewCredentials() }

func (k *credentialKind) digest(table *snapshot.Credentials, bucket int) snapshot.Hash {
	return table.Shard(bucket).Digest()
}

func (k *credentialKind) merge(base *snapshot.Credentials, batch []byte) (*snapshot.Credentials, error) {
	if len(batch) == 0 {
		return base, nil
	}
	changes, shards, err := wire.ParseCredentials(batch)
	if err != nil {
		return base, err
	}
	if shards != nil {
		base = base.WithShards(shards)
	}
	if changes != nil {
		base = base.With(changes)
	}
	return base, nil
}

// compare: shards come whole, there are no listings.
func (k *credentialKind) compare(base *snapshot.Credentials, listing []byte) (*snapshot.Credentials, []string, error) {
	if len(listing) > 0 {
		return base, nil, fmt.Errorf("%w part: a listing of credentials", snapshot.ErrMalformed)
	}
	return base, nil, nil
}

func (k *credentialKind) check(_, _ *snapshot.Credentials) error { return nil }

func (k *credentialKind) apply(ctx context.Context, c snapshot.Checkpoint, next, _ *snapshot.Credentials) error {
	return k.sink.ApplyCredentials(ctx, c, next)
}

func (k *credentialKind) save(c snapshot.Checkpoint, next *snapshot.Credentials) (uint64, error) {
	return 1, k.disk.save(c, next)
}

func (k *credentialKind) load(use func(snapshot.Checkpoint, *snapshot.Credentials, uint64, bool) error) error {
	return k.disk.load(use)
}

// shards is what localstore.Shards offers.
type shards interface {
	Read(shard uint16) ([]byte, error)
	List() []uint16
	Replace(clearLog bool, fill func(put func(shard uint16, content []byte) error) error) error
	Append(record []byte) error
	Log() iter.Seq2[[]byte, error]
	LogBytes() int64
}

// checkpointShard holds the checkpoint of the shards, so that both are replaced in one moment.
const checkpointShard = snapshot.CredentialShards

// credentialDisk keeps credentials as the segments that they are looked up in, and a log of what changed since. A
// record of the log is a checkpoint and a packed batch of the changes that lead to it.
type credentialDisk struct {
	store shards
	codec *wire.Codec

	loaded  bool                  // base and logged are what is on the disk
	base    []snapshot.Hash       // the digests of the shards: the table itself would be held in memory twice
	logged  *snapshot.Credentials // with the log
	epoch   uint64
	keyID   string   // of the key that signed it
	damaged []uint16 // shards to write in any case
}

// The log is at most this large, unless the table itself is much larger.
const (
	minLogBytes   = 1 << 20
	maxLogChanges = 10_000 // of one record
)

func (d *credentialDisk) save(c snapshot.Checkpoint, next *snapshot.Credentials) error {
	if d.loaded && d.epoch == c.Epoch && d.keyID == c.KeyID && d.logged.Root() == next.Root() {
		return nil // only the number is new, as in configDisk.save
	}
	if d.loaded {
		if record, ok := d.record(c, next); ok && d.store.LogBytes()+int64(len(record)) <= max(minLogBytes, int64(next.Bytes())/8) {
			if err := d.store.Append(record); err != nil {
				return err
			}
			d.logged, d.epoch, d.keyID = next, c.Epoch, c.KeyID
			return nil
		}
	}
	return d.replace(c, next)
}

func (d *credentialDisk) record(c snapshot.Checkpoint, next *snapshot.Credentials) ([]byte, bool) {
	var raw []byte
	n := 0
	for change := range next.Changes(d.logged) {
		if n++; n > maxLogChanges {
			return nil, false
		}
		raw = wire.AppendCredential(raw, change)
	}
	return append(snapshot.AppendCheckpoint(nil, c), d.codec.Pack(raw)...), true
}

func (d *credentialDisk) replace(c snapshot.Checkpoint, next *snapshot.Credentials) error {
	base := d.base
	if base == nil {
		base = make([]snapshot.Hash, snapshot.CredentialShards)
	}
	err := d.store.Replace(true, func(put func(uint16, []byte) error) error {
		var segment []byte
		force := make(map[uint16]bool)
		for _, at := range d.damaged {
			force[at] = true
		}
		for i := range snapshot.CredentialShards {
			s := next.Shard(i)
			if s.Digest() == base[i] && !force[uint16(i)] {
				continue
			}
			segment = s.AppendTo(segment[:0])
			if err := put(uint16(i), segment); err != nil {
				return err
			}
		}
		return put(checkpointShard, snapshot.AppendCheckpoint(nil, c))
	})
	if err != nil {
		return err
	}
	d.loaded, d.base, d.logged, d.epoch, d.keyID, d.damaged = true, digestsOf(next), next, c.Epoch, c.KeyID, nil
	return nil
}

func digestsOf(table *snapshot.Credentials) []snapshot.Hash {
	out := make([]snapshot.Hash, snapshot.CredentialShards)
	for i := range out {
		out[i] = table.Shard(i).Digest()
	}
	return out
}

// load offers what is on the disk. If a part of it is damaged, the rest is offered as such: keys that are there are
// better than none.
func (d *credentialDisk) load(use func(snapshot.Checkpoint, *snapshot.Credentials, uint64, bool) error) error {
	var faults []error
	segments := make(map[int]*snapshot.Shard)
	var c snapshot.Checkpoint
	for _, at := range d.store.List() {
		content, err := d.store.Read(at)
		switch {
		case err != nil:
		case at == checkpointShard:
			c, err = wire.ParseCheckpoint(content)
		case at < checkpointShard:
			segments[int(at)], err = snapshot.ParseShard(int(at), content)
		}
		if err != nil {
			faults = append(faults, err)
			d.damaged = append(d.damaged, at)
		}
	}
	d.logged = snapshot.NewCredentials().WithShards(segments)
	d.base = digestsOf(d.logged)
	var changes []snapshot.CredentialChange
	for record, err := range d.store.Log() {
		var rest []byte
		var next snapshot.Checkpoint
		var batch []snapshot.CredentialChange
		if err == nil {
			next, rest, err = snapshot.ParseCheckpoint(record)
		}
		if err == nil {
			rest, err = d.codec.Unpack(rest)
		}
		if err == nil {
			batch, _, err = wire.ParseCredentials(rest)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("log: %w", err))
			break
		}
		c, changes = next, append(changes, batch...)
	}
	if len(changes) > 0 {
		d.logged = d.logged.With(changes)
	}
	if c.View == "" {
		return joinFaults(faults) // nothing, or no checkpoint to know it by
	}
	whole := len(d.damaged) == 0
	if err := use(c, d.logged, 1, whole); err != nil {
		return joinFaults(append(faults, err))
	}
	d.loaded, d.epoch, d.keyID = whole && len(faults) == 0, c.Epoch, c.KeyID
	return joinFaults(faults)
}

func decodeSet(payload []byte) (*snapshot.Set, error) {
	return snapshot.DecodeSet(bytes.NewReader(payload), maxBaseBytes)
}

func joinFaults(faults []error) error { return errors.Join(faults...) }
