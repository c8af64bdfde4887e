// Package wire holds the binary forms inside the messages of the feed and the limits that both ends keep to: positions,
// batches of changes, digests and listings of buckets.
//
// Everything that is parsed here came over a link and is believed only as far as it was checked: lengths are bounded
// before memory is taken, and what a parser returns is well formed. Whether it is genuine, the checkpoint says. The
// functions are pure, and a [Codec] is safe for concurrent use. The package is used by feed/serve and feed/fetch.
package wire

import (
	"fmt"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/snapshot"
)

// Protocol is the version of the protocol that this build speaks.
const Protocol = 1

// The limits of messages.
const (
	// InlineBytes is the most that the changes of a Head may take, packed.
	InlineBytes = 32 << 10
	// PartBytes is where a batch of changes or a listing is closed and sent, before packing.
	PartBytes = 64 << 10
	// MaxBatchBytes is the most that a batch may unpack to: a part that was closed by the largest entry there is.
	MaxBatchBytes = PartBytes + snapshot.MaxEntryBytes + snapshot.MaxKeyBytes + 64
	// MaxMessageBytes is the largest message there may be on a link.
	MaxMessageBytes = MaxBatchBytes + 64<<10
	// MaxFetchKeys is the most keys that one Fetch may ask for.
	MaxFetchKeys = 4096
)

// Position is a state of a view.
type Position struct {
	Epoch, Seq uint64
	Root       snapshot.Hash
}

// PositionOf returns the position that a checkpoint speaks of.
func PositionOf(c snapshot.Checkpoint) Position {
	return Position{Epoch: c.Epoch, Seq: c.Seq, Root: c.Root}
}

// IsZero tells whether p is the position of somebody who has nothing.
func (p Position) IsZero() bool { return p == Position{} }

// Proto returns the message of a position; nil for the zero one.
func (p Position) Proto() *linkv1.Position {
	if p.IsZero() {
		return nil
	}
	return &linkv1.Position{Epoch: p.Epoch, Seq: p.Seq, Root: p.Root[:]}
}

// ParsePosition reads a message; nil gives the zero position.
func ParsePosition(m *linkv1.Position) (Position, error) {
	if m == nil {
		return Position{}, nil
	}
	p := Position{Epoch: m.Epoch, Seq: m.Seq}
	if len(m.Root) != len(p.Root) {
		return Position{}, fmt.Errorf("%w position: root of %d bytes", snapshot.ErrMalformed, len(m.Root))
	}
	copy(p.Root[:], m.Root)
	return p, nil
}

// ParseCheckpoint reads the checkpoint of a Head or a Plan.
func ParseCheckpoint(b []byte) (snapshot.Checkpoint, error) {
	c, rest, err := snapshot.ParseCheckpoint(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w checkpoint: %d bytes follow it", snapshot.ErrMalformed, len(rest))
	}
	return c, err
}

// RefusedProto returns the message that refuses a checkpoint. Texts are cut to what a message may reasonably hold.
func RefusedProto(c snapshot.Checkpoint, have Position, r *snapshot.Refusal) *linkv1.Refused {
	return &linkv1.Refused{
		Epoch: c.Epoch, Seq: c.Seq, Have: have.Proto(),
		Code: cut(r.Code, 64), Entry: cut(r.Entry, snapshot.MaxKeyBytes), Field: cut(r.Field, 512), Detail: cut(r.Detail, 2048),
		Retryable: r.Retryable,
	}
}

// ParseRefused reads what a follower says of a checkpoint.
func ParseRefused(m *linkv1.Refused) *snapshot.Refusal {
	return &snapshot.Refusal{
		Code: cut(m.Code, 64), Entry: cut(m.Entry, snapshot.MaxKeyBytes), Field: cut(m.Field, 512), Detail: cut(m.Detail, 2048),
		Retryable: m.Retryable,
	}
}

// cut shortens a text to at most n bytes without leaving a part of a character behind.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
