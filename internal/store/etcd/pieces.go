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

// pieceSize is how many bytes a piece holds before it is compressed. Pieces are entries of the Raft log, of which etcd
// keeps more than 100 in memory; etcd takes up to 1.5 MiB.
const pieceSize = 256 << 10

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

// encode returns the piece that holds raw.
func (c *codec) encode(raw []byte) encodedPiece {
	b := c.enc.EncodeAll(raw, nil)
	return encodedPiece{digest: digestOf(b), stored: b}
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
	ctx   context.Context // the reader lives within one call; io.Reader has no context
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

// all returns the pieces that are staged now.
func (p *stagedPieces) all() map[digest]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[digest]struct{}, len(p.uses))
	for d := range p.uses {
		all[d] = struct{}{}
	}
	return all
}

// encodedPiece is a piece as it is stored.
type encodedPiece struct {
	digest digest
	stored []byte
}

// put returns the operation that writes the piece. A piece is written even if it is there already: that keeps a
// collector which has just found it unused from deleting it.
func (p encodedPiece) put() clientv3.Op { return clientv3.OpPut(pieceKey(p.digest), string(p.stored)) }

// stage writes pieces so that a later transaction can name them. The caller has added them to s.staged, and they fit
// into one transaction.
func (s *Store) stage(ctx context.Context, pieces ...encodedPiece) error {
	if err := s.room(); err != nil {
		return err
	}
	puts := make([]clientv3.Op, len(pieces))
	for i, p := range pieces {
		puts[i] = p.put()
		s.metrics.piecesWritten.Inc()
		s.metrics.pieceBytes.Add(float64(len(p.stored)))
	}
	if _, err := s.txn(ctx, nil, puts, nil); err != nil {
		return fmt.Errorf("stage %d pieces: %w", len(pieces), err)
	}
	return nil
}

const (
	// batchBytes and batchPieces are how much a pieceWriter puts into one transaction.
	batchBytes  = 256 << 10
	batchPieces = 64
)

// pieceWriter stages pieces, several at a time, and keeps them from being collected until it is released.
type pieceWriter struct {
	s       *Store
	staged  []digest
	pending []encodedPiece
	bytes   int
}

// write makes pieces of b and returns their names. They are in the record after flush.
func (w *pieceWriter) write(ctx context.Context, b []byte) ([]digest, error) {
	names := []digest{}
	for len(b) > 0 {
		n := min(len(b), pieceSize)
		p := w.s.pieces.encode(b[:n])
		b = b[n:]
		w.s.staged.add(p.digest)
		w.staged = append(w.staged, p.digest)
		names = append(names, p.digest)
		if len(w.pending) == batchPieces || w.bytes+len(p.stored) > batchBytes {
			if err := w.flush(ctx); err != nil {
				return nil, err
			}
		}
		w.pending = append(w.pending, p)
		w.bytes += len(p.stored)
	}
	return names, nil
}

func (w *pieceWriter) flush(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.s.stage(ctx, w.pending...)
	w.pending, w.bytes = w.pending[:0], 0
	return err
}

func (w *pieceWriter) release() { w.s.staged.remove(w.staged) }
