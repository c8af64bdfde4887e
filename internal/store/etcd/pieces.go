package etcd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// pieceSize is how many bytes a piece holds before it is compressed. Compression may add a few bytes; etcd takes
// 1.5 MiB.
const pieceSize = 1 << 20

// codec compresses pieces. It is safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(pieceSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(pieceSize),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return &codec{enc: enc, dec: dec}, nil
}

// encode returns the stored form of raw and its name.
func (c *codec) encode(raw []byte) (digest, []byte) {
	b := c.enc.EncodeAll(raw, nil)
	return digestOf(b), b
}

// decode checks the stored form of a piece against its name and returns what it holds.
func (c *codec) decode(dst []byte, d digest, stored []byte) ([]byte, error) {
	if digestOf(stored) != d {
		return nil, corrupt("piece %s has other content than its name says", d)
	}
	raw, err := c.dec.DecodeAll(stored, dst[:0])
	if err != nil {
		return nil, corrupt("piece %s: %w", d, err)
	}
	return raw, nil
}

// pieceReader reads the pieces of a change set or of an image one after the other.
type pieceReader struct {
	ctx   context.Context //nolint:containedctx // the reader lives within one call; io.Reader has no context
	fetch func(context.Context, digest) ([]byte, error)
	codec *codec
	left  []digest
	buf   []byte
	data  *bytes.Reader
	err   error // of fetch or of a piece that is not what its name says
}

func (s *Store) newPieceReader(ctx context.Context, pieces []digest) *pieceReader {
	return &pieceReader{ctx: ctx, fetch: s.fetchPiece, codec: s.pieces, left: pieces, data: bytes.NewReader(nil)}
}

// Read implements io.Reader.
func (r *pieceReader) Read(p []byte) (int, error) {
	for r.data.Len() == 0 {
		if len(r.left) == 0 {
			return 0, io.EOF
		}
		stored, err := r.fetch(r.ctx, r.left[0])
		if err == nil {
			r.buf, err = r.codec.decode(r.buf, r.left[0], stored)
		}
		if err != nil {
			r.err = err
			return 0, err
		}
		r.data.Reset(r.buf)
		r.left = r.left[1:]
	}
	return r.data.Read(p)
}

// errMissing means that a piece is not in the record.
type errMissing struct{ digest }

// Error implements error.
func (e errMissing) Error() string { return fmt.Sprintf("piece %s is missing", e.digest) }

// fetchPiece reads the stored form of a piece. A piece never changes, so any member's answer is good.
func (s *Store) fetchPiece(ctx context.Context, d digest) ([]byte, error) {
	kv, err := s.getOne(ctx, pieceKey(d), clientv3.WithSerializable())
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return nil, errMissing{d}
	}
	return kv.Value, nil
}

// stagedPieces are the pieces that open change sets have written and no record names yet, so that they are not
// collected.
type stagedPieces struct {
	mu   sync.Mutex // guards uses
	uses map[digest]int
}

func (p *stagedPieces) add(d digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.uses == nil {
		p.uses = make(map[digest]int)
	}
	p.uses[d]++
}

func (p *stagedPieces) remove(ds []digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ds {
		if p.uses[d]--; p.uses[d] <= 0 {
			delete(p.uses, d)
		}
	}
}

func (p *stagedPieces) has(d digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.uses[d] > 0
}

// stage writes a piece so that a later transaction can name it. The caller has added it to s.staged. It is written
// even if it is there already: that keeps a collector which has just found it unused from deleting it.
func (s *Store) stage(ctx context.Context, d digest, stored []byte) error {
	if err := s.room(); err != nil {
		return err
	}
	if _, err := s.txn(ctx, nil, []clientv3.Op{clientv3.OpPut(pieceKey(d), string(stored))}, nil); err != nil {
		return fmt.Errorf("stage piece %s: %w", d, err)
	}
	s.metrics.piecesWritten.Inc()
	s.metrics.pieceBytes.Add(float64(len(stored)))
	return nil
}
