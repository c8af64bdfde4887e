package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"hansa.dev/hansa/internal/snapshot"
)

// Codec packs and unpacks batches.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCodec makes a codec; its memory is that of the batches under way.
func NewCodec() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(PartBytes), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make codec: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxBatchBytes))
	if err != nil {
		return nil, fmt.Errorf("make codec: %w", err)
	}
	return &Codec{enc: enc, dec: dec}, nil
}

// Pack compresses a batch.
func (c *Codec) Pack(raw []byte) []byte {
	if len(raw) == 0 {
		return nil
	}
	return c.enc.EncodeAll(raw, make([]byte, 0, len(raw)/2+64))
}

// Unpack returns a batch of at most MaxBatchBytes.
func (c *Codec) Unpack(packed []byte) ([]byte, error) {
	if len(packed) == 0 {
		return nil, nil
	}
	raw, err := c.dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack batch: %w: %w", snapshot.ErrMalformed, err)
	}
	return raw, nil
}

// What a change is.
const (
	tagPut     = 0
	tagDelete  = 1
	tagSegment = 2
)

// AppendPut appends the change that adds or replaces an entry.
func AppendPut(dst []byte, e snapshot.Entry) []byte {
	return snapshot.AppendEntry(append(dst, tagPut), e)
}

// AppendDelete appends the change that removes an entry.
func AppendDelete(dst []byte, key string) []byte {
	dst = binary.AppendUvarint(append(dst, tagDelete), uint64(len(key)))
	return append(dst, key...)
}

// ParseEntries reads a batch of changes of entries.
func ParseEntries(raw []byte) (puts []snapshot.Entry, dels []string, err error) {
	for len(raw) > 0 {
		tag := raw[0]
		raw = raw[1:]
		switch tag {
		case tagPut:
			var e snapshot.Entry
			if e, raw, err = snapshot.ParseEntry(raw); err != nil {
				return nil, nil, err
			}
			puts = append(puts, e)
		case tagDelete:
			var key []byte
			if key, raw, err = takeBytes(raw, snapshot.MaxKeyBytes); err != nil {
				return nil, nil, err
			}
			dels = append(dels, string(key))
		default:
			return nil, nil, fmt.Errorf("%w batch: change of kind %d", snapshot.ErrMalformed, tag)
		}
	}
	return puts, dels, nil
}

// AppendCredential appends a change of a credential.
func AppendCredential(dst []byte, c snapshot.CredentialChange) []byte {
	return snapshot.AppendCredentialChange(dst, c)
}

// AppendSegment appends a whole shard of credentials; nil empties it.
func AppendSegment(dst []byte, at int, s *snapshot.Shard) []byte {
	dst = binary.AppendUvarint(append(dst, tagSegment), uint64(at))
	dst = binary.AppendUvarint(dst, uint64(s.Size()))
	return s.AppendTo(dst)
}

// ParseCredentials reads a batch of changes of credentials and whole shards.
func ParseCredentials(raw []byte) (changes []snapshot.CredentialChange, shards map[int]*snapshot.Shard, err error) {
	for len(raw) > 0 {
		if raw[0] != tagSegment {
			var c snapshot.CredentialChange
			if c, raw, err = snapshot.ParseCredentialChange(raw); err != nil {
				return nil, nil, err
			}
			changes = append(changes, c)
			continue
		}
		var at uint64
		if at, raw, err = takeUvarint(raw[1:], snapshot.CredentialShards-1); err != nil {
			return nil, nil, err
		}
		var segment []byte
		if segment, raw, err = takeBytes(raw, MaxBatchBytes); err != nil {
			return nil, nil, err
		}
		s, err := snapshot.ParseShard(int(at), segment)
		if err != nil {
			return nil, nil, err
		}
		if shards == nil {
			shards = make(map[int]*snapshot.Shard)
		}
		shards[int(at)] = s
	}
	return changes, shards, nil
}

func takeUvarint(b []byte, limit uint64) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > limit {
		return 0, nil, fmt.Errorf("%w number, %d bytes before the end of the batch", snapshot.ErrMalformed, len(b))
	}
	return v, b[n:], nil
}

func takeBytes(b []byte, limit int) (taken, rest []byte, err error) {
	n, b, err := takeUvarint(b, uint64(limit))
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w batch: %d bytes announced, %d left", snapshot.ErrMalformed, n, len(b))
	}
	return b[:n], b[n:], nil
}
