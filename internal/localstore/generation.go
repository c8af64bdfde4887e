package localstore

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hansa.dev/hansa/internal/x/durable"
)

// A generation is the file <number>.gen, a sealed stream of the metadata (length of four bytes, JSON) and the
// payload, and the file <number>.log with one record per delta. Numbers are 16 hexadecimal digits.
const (
	generationsDir   = "generations"
	generationSuffix = ".gen"
	deltaSuffix      = ".log"
	keptGenerations  = 2
)

// Meta says what configuration a generation, or a delta upon it, leads to. Checkpoint is the signed checkpoint in
// whatever form the caller reads back.
type Meta struct {
	Epoch      uint64    `json:"epoch"`
	Seq        uint64    `json:"seq"`
	SavedAt    time.Time `json:"savedAt"`
	Checkpoint []byte    `json:"checkpoint"`
}

// Generation is one whole configuration as it was saved.
type Generation struct {
	Number  uint64
	Meta    Meta
	Payload []byte // the caller owns it
	Deltas  []Delta
}

// Delta is a change that was appended to a generation. Meta is what the configuration is after it.
type Delta struct {
	Meta  Meta
	Bytes []byte
}

// GenerationStatus is one line of Status. Epoch, Seq and SavedAt are those after the last delta.
type GenerationStatus struct {
	Number     uint64    `json:"number"`
	Epoch      uint64    `json:"epoch,omitempty"`
	Seq        uint64    `json:"seq,omitempty"`
	SavedAt    time.Time `json:"savedAt,omitzero"`
	Bytes      int64     `json:"bytes"` // without deltas
	Deltas     uint64    `json:"deltas,omitempty"`
	DeltaBytes int64     `json:"deltaBytes,omitempty"`
	Damaged    string    `json:"damaged,omitempty"` // why it cannot be used
}

// generation is what the store knows of one generation on the disk.
type generation struct {
	number uint64
	log    *recordLog       // guarded by Store.disk
	status GenerationStatus // guarded by Store.mu
}

func generationFile(number uint64, suffix string) string {
	return filepath.Join(generationsDir, fmt.Sprintf("%016x%s", number, suffix))
}

func (s *Store) newGeneration(number uint64, size int64) *generation {
	return &generation{number: number, status: GenerationStatus{Number: number, Bytes: size}, log: &recordLog{
		path:    s.path(generationFile(number, deltaSuffix)),
		context: fmt.Sprintf("localstore generation %d", number),
		sealer:  s.sealer,
	}}
}

// scanGenerations lists what is on the disk and deletes logs without a generation.
func (s *Store) scanGenerations() error {
	entries, err := os.ReadDir(s.path(generationsDir))
	if err != nil {
		return err
	}
	var logs []uint64
	for _, e := range entries {
		name := e.Name()
		number, err := strconv.ParseUint(strings.TrimSuffix(name, filepath.Ext(name)), 16, 64)
		if err != nil {
			continue // not ours
		}
		s.next = max(s.next, number)
		switch filepath.Ext(name) {
		case generationSuffix:
			info, err := e.Info()
			if err != nil {
				return err
			}
			s.generations = append(s.generations, s.newGeneration(number, info.Size()))
		case deltaSuffix:
			logs = append(logs, number)
		}
	}
	s.next++
	slices.SortFunc(s.generations, func(a, b *generation) int { return cmp.Compare(a.number, b.number) })
	for _, number := range logs {
		if !slices.ContainsFunc(s.generations, func(g *generation) bool { return g.number == number }) {
			removeAll(s.log, s.path(generationFile(number, deltaSuffix)))
		}
	}
	return nil
}

// SaveGeneration writes a new generation with what write writes as its payload and returns its number once it is on
// the disk. Of the older ones the newest that is not known to be damaged stays, the rest is deleted. After an error
// (ErrFull for a full disk) everything is as before. Write must not call the store.
func (s *Store) SaveGeneration(m Meta, write func(io.Writer) error) (uint64, error) {
	head, err := encodeMeta(m)
	if err != nil {
		return 0, fmt.Errorf("save generation: %w", err)
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.open(); err != nil {
		return 0, err
	}
	g := s.newGeneration(s.next, 0)
	g.log.read = true // there is none yet
	var size int64
	err = durable.WriteFile(s.path(generationFile(g.number, generationSuffix)), 0o600, func(w io.Writer) error {
		counted := &countingWriter{w: w}
		sealed, err := s.sealer.NewWriter(counted, g.log.context)
		if err != nil {
			return err
		}
		if _, err := sealed.Write(head); err != nil {
			return err
		}
		if err := write(sealed); err != nil {
			return err
		}
		err = sealed.Close()
		size = counted.n
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("save generation of seq %d: %w", m.Seq, full(err))
	}
	s.next++
	s.mu.Lock()
	g.status.Bytes = size
	g.status.update(m, g.log)
	s.generations = append(s.generations, g)
	gone := s.pruneLocked()
	s.mu.Unlock()
	for _, g := range gone {
		if err := g.log.close(); err != nil {
			s.log.Warn("close old deltas", "generation", g.number, "err", err)
		}
		removeAll(s.log, g.log.path, s.path(generationFile(g.number, generationSuffix)))
	}
	return g.number, nil
}

// pruneLocked takes all but the newest two generations that are not known to be damaged off the list.
func (s *Store) pruneLocked() (gone []*generation) {
	var kept []*generation
	for _, g := range slices.Backward(s.generations) {
		if g.status.Damaged == "" && len(kept) < keptGenerations {
			kept = append(kept, g)
		} else {
			gone = append(gone, g)
		}
	}
	slices.Reverse(kept)
	s.generations = kept
	return gone
}

// AppendDelta adds a change to the newest generation and returns once it is on the disk, so that a small change does
// not cost a whole generation. The number must be that of the newest generation. The caller saves a new generation
// when the deltas, whose total size is returned, have become long.
func (s *Store) AppendDelta(number uint64, m Meta, delta []byte) (total int64, err error) {
	head, err := encodeMeta(m)
	if err != nil {
		return 0, fmt.Errorf("append delta: %w", err)
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.open(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	var g *generation
	if n := len(s.generations); n > 0 && s.generations[n-1].number == number {
		g = s.generations[n-1]
	}
	s.mu.Unlock()
	if g == nil {
		return 0, fmt.Errorf("append delta: generation %d is not the newest", number)
	}
	if err := g.log.append(append(head, delta...)); err != nil {
		return g.log.size, fmt.Errorf("append delta of seq %d to generation %d: %w", m.Seq, number, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.status.update(m, g.log)
	return g.log.size, nil
}

// Generations yields what is on the disk, the newest first. A generation that is damaged is yielded as an error
// (ErrDamaged) in its place; the caller goes on to the next. If only the deltas are damaged, the generation comes with
// those before the damage; the rest is cut off, and shown in Status unless it is what a crash leaves of an append.
// Files are read between the yields.
func (s *Store) Generations() iter.Seq2[*Generation, error] {
	return func(yield func(*Generation, error) bool) {
		s.mu.Lock()
		all := slices.Clone(s.generations)
		s.mu.Unlock()
		for _, g := range slices.Backward(all) {
			loaded, err := s.load(g)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a newer one was saved meanwhile and this one deleted
			}
			if !yield(loaded, err) {
				return
			}
		}
	}
}

func (s *Store) load(g *generation) (*Generation, error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.open(); err != nil {
		return nil, err
	}
	file := generationFile(g.number, generationSuffix)
	out, err := s.readGeneration(g, file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		s.mu.Lock()
		g.status.Damaged = err.Error()
		s.mu.Unlock()
		return nil, s.fault(file, err)
	}
	latest := out.Meta
	tail, err := g.log.load(func(record []byte) error {
		m, rest, err := decodeMeta(record)
		if err != nil {
			return err
		}
		latest = m
		out.Deltas = append(out.Deltas, Delta{Meta: m, Bytes: rest})
		return nil
	})
	if err != nil {
		return nil, s.fault(generationFile(g.number, deltaSuffix), err)
	}
	if tail != nil && !errors.Is(tail, io.ErrUnexpectedEOF) {
		_ = s.fault(generationFile(g.number, deltaSuffix), tail) // noted; what came before it is good
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.status.update(latest, g.log)
	return out, nil
}

func (st *GenerationStatus) update(m Meta, log *recordLog) {
	st.Epoch, st.Seq, st.SavedAt = m.Epoch, m.Seq, m.SavedAt
	st.Deltas, st.DeltaBytes = log.count, log.size
}

func (s *Store) readGeneration(g *generation, file string) (*Generation, error) {
	f, err := os.Open(s.path(file))
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only: nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := s.sealer.NewReader(f, g.log.context)
	if err != nil {
		return nil, err
	}
	plain, err := readSized(r, info.Size())
	if err != nil {
		return nil, err
	}
	m, payload, err := decodeMeta(plain)
	if err != nil {
		return nil, err
	}
	return &Generation{Number: g.number, Meta: m, Payload: payload}, nil
}

// readSized reads to the end of r into one buffer of the expected size.
func readSized(r io.Reader, size int64) ([]byte, error) {
	buf := make([]byte, 0, size)
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, 1)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func encodeMeta(m Meta) ([]byte, error) {
	j, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	if len(j) > maxDocument {
		return nil, fmt.Errorf("metadata of %d bytes is more than %d", len(j), maxDocument)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(j))), j...), nil
}

func decodeMeta(b []byte) (m Meta, rest []byte, err error) {
	if len(b) < 4 || int64(binary.BigEndian.Uint32(b)) > int64(len(b)-4) {
		return m, nil, errors.New("metadata is cut short")
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	if err := json.Unmarshal(b[4:n], &m); err != nil {
		return m, nil, fmt.Errorf("decode metadata: %w", err)
	}
	return m, b[n:], nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
