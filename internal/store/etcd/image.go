package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store/content"
)

const (
	// imageChanges is how many change sets may follow an image before the next is due: start-up reads them one by
	// one.
	imageChanges = 1000
	// imageBytes is how many bytes of changes may follow it, if that is more than half of the whole content.
	imageBytes = 4 << 20
)

// imagePart is one part of an image and the pieces that hold it.
type imagePart struct {
	content.PartID
	Pieces []digest `json:"pieces"`
}

// image is the last image, as maintenance knows it. The zero value means that there is none.
type image struct {
	record imageRecord
	value  []byte // of the key
	parts  map[content.PartID][]digest
	basis  *content.Image
}

// loadImage reads the image at its version. It returns nil if there is none.
func (s *Store) loadImage(ctx context.Context) (*view, error) {
	kv, err := s.getOne(ctx, keyImage)
	if err != nil || kv == nil {
		return nil, err
	}
	var im image
	im.value = kv.Value
	im.parts = make(map[content.PartID][]digest)
	if err := decode(keyImage, kv.Value, &im.record); err != nil {
		return nil, err
	}
	parts, err := readList(s.newPieceReader(ctx, im.record.List))
	if err != nil {
		return nil, unreadable(err, "list of parts of the image")
	}
	loader := content.New(im.record.Version).Load()
	ids := make([]content.PartID, 0, len(parts))
	for _, p := range parts {
		ids = append(ids, p.PartID)
		im.parts[p.PartID] = p.Pieces
		for op, err := range s.ops(ctx, p.Pieces) {
			if err == nil {
				if err = loader.Apply(op); err != nil {
					err = corrupt("%w", err)
				}
			}
			if err != nil {
				return nil, unreadable(err, "part %d of %d of the image", p.Index, p.Of)
			}
		}
	}
	st := loader.State()
	im.basis = st.Loaded(ids)
	s.image = im
	s.metrics.imageTime.Store(im.record.At.UnixNano())
	return &view{State: st, hash: im.record.Hash}, nil
}

// unreadable says that a part of the image cannot be read. A missing piece is damage.
func unreadable(err error, what string, args ...any) error {
	err = fmt.Errorf("%s: %w", fmt.Sprintf(what, args...), err)
	var missing errMissing
	if errors.As(err, &missing) {
		return corrupt("%w", err)
	}
	return err
}

// readList reads the list of the parts of an image.
func readList(r *pieceReader) ([]imagePart, error) {
	parts, err := parseList(r)
	if r.err != nil {
		return nil, r.err
	}
	return parts, err
}

// parseList decodes the list of the parts of an image.
func parseList(r io.Reader) ([]imagePart, error) {
	var parts []imagePart
	if err := json.NewDecoder(r).Decode(&parts); err != nil {
		return nil, corrupt("read the list of parts: %w", err)
	}
	for _, p := range parts {
		if err := p.Validate(); err != nil {
			return nil, corrupt("%w", err)
		}
	}
	return parts, nil
}

// imageDue tells whether so much has changed since the last image that start-up would notice.
func (s *Store) imageDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sinceImage.changes >= imageChanges ||
		s.sinceImage.bytes >= max(imageBytes, s.state.Load().Bytes()/2)
}

// writeImage writes an image of the state: the parts that changed since the last one, the list of all parts, and
// with one transaction the key that names them.
func (s *Store) writeImage(ctx context.Context) error {
	begin := time.Now()
	s.mu.Lock()
	v, since := s.state.Load(), s.sinceImage
	s.mu.Unlock()
	w := pieceWriter{s: s}
	defer w.release()
	parts, basis := v.Parts(s.image.basis)
	next := image{parts: make(map[content.PartID][]digest, len(parts)), basis: basis}
	list := make([]imagePart, 0, len(parts))
	var buf []byte
	written := 0
	for i := range parts {
		p := &parts[i]
		pieces, ok := s.image.parts[p.ID]
		if p.Changed || !ok {
			var err error
			if buf, err = p.Append(buf[:0]); err != nil {
				return err
			}
			if pieces, err = w.write(ctx, buf); err != nil {
				return err
			}
			written++
		}
		next.parts[p.ID] = pieces
		list = append(list, imagePart{PartID: p.ID, Pieces: pieces})
	}
	encoded, err := encode(list)
	if err != nil {
		return err
	}
	next.record = imageRecord{headRecord: v.head(), At: s.opts.Now().UTC()}
	if next.record.List, err = w.write(ctx, encoded); err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	if next.value, err = encode(next.record); err != nil {
		return err
	}
	if err := s.room(); err != nil {
		return err
	}
	unmoved := clientv3.Compare(clientv3.Value(keyImage), "=", string(s.image.value))
	if s.image.value == nil {
		unmoved = clientv3.Compare(clientv3.CreateRevision(keyImage), "=", 0)
	}
	resp, err := s.txn(ctx, []clientv3.Cmp{unmoved}, []clientv3.Op{clientv3.OpPut(keyImage, string(next.value))}, nil)
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return errors.New("somebody else has written an image")
	}
	s.mu.Lock()
	s.sinceImage.changes -= since.changes
	s.sinceImage.bytes -= since.bytes
	s.mu.Unlock()
	s.image = next
	s.metrics.imageTime.Store(next.record.At.UnixNano())
	s.log.DebugContext(ctx, "image written", "seq", next.record.Seq, "parts", len(parts), "parts_written", written,
		"took", time.Since(begin))
	return nil
}
