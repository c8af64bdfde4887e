// Package localstore is the disk of a gateway: the last two configurations it ran, its credentials and small
// documents, all sealed, so that it starts and serves without any control plane.
//
// Three kinds of content, all opaque to this package:
//
//   - Generations: a checkpoint with everything under it, plus the deltas that came after. Two are kept. The newest
//     that is whole is the one to start from, otherwise the older one.
//   - [Shards]: named sets of up to 65,536 immutable pieces, replaced in batches, plus a log of short records.
//   - Documents: small named values.
//
// Guarantees: what a call has acknowledged is on the disk, flushed. After a SIGKILL or a loss of power at any point
// each piece has its old or its new content, and a batch of shards is replaced as a whole or not at all. A failed write
// (full disk) is returned as an error and leaves what was there untouched. Changed or foreign bytes are noticed (the
// sealing authenticates), passed over and shown in [Store.Status]. What cannot be noticed here is a whole older state
// put back in place of a newer one; the feed notices it, because sequence numbers then go backwards.
//
// All methods are safe for concurrent use. The package is used by feed/fetch, credential and app.
package localstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/durable"
)

// What goes wrong on the disk.
var (
	// ErrFull: the disk, the quota or the allowed size of a file is used up. Everything that was there is unharmed.
	ErrFull = errors.New("no space left for local data")
	// ErrDamaged: the bytes are not what was written: cut, changed, or sealed with another key.
	ErrDamaged = errors.New("local data is damaged")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("local store is closed")
)

// maxDocument bounds a document and the metadata of a generation.
const maxDocument = 4 << 20

// Store is the data folder of one gateway.
type Store struct {
	dir    string
	sealer *keys.Sealer
	log    *slog.Logger
	lock   *durable.Lock

	disk sync.Mutex // held while generations and documents are read and written, guards next; before Shards.writing and mu
	next uint64     // number of the next generation

	mu          sync.Mutex // guards the fields below; never held over a read or write of files
	closed      bool
	generations []*generation // ascending by number
	shards      map[string]*Shards
	faults      []Fault
}

// Fault is something that was found broken.
type Fault struct {
	File   string `json:"file"` // relative to the folder of the store
	Reason string `json:"reason"`
}

// Status describes what is on the disk.
type Status struct {
	// Generations, newest first. Only those that have been read or written since the start show more than Number.
	Generations []GenerationStatus `json:"generations"`
	// Faults are what was found broken since the start.
	Faults []Fault `json:"faults,omitempty"`
}

// maxFaults bounds how many faults are remembered.
const maxFaults = 100

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)

// Open opens the store in dir, which is made if it does not exist, and locks it against other processes: the error is
// durable.ErrLocked if another one has it. Whoever opened it must close it.
func Open(dir string, sealer *keys.Sealer, log *slog.Logger) (*Store, error) {
	if err := durable.Mkdir(dir); err != nil {
		return nil, fmt.Errorf("open local store: %w", err)
	}
	lock, err := durable.LockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open local store: %w", err)
	}
	return OpenLocked(dir, lock, sealer, log)
}

// OpenLocked opens the store in a folder whose lock the caller holds. The lock is the store's from now on, also if there is
// an error.
func OpenLocked(dir string, lock *durable.Lock, sealer *keys.Sealer, log *slog.Logger) (_ *Store, err error) {
	s := &Store{dir: dir, sealer: sealer, log: log.With("component", "localstore"), shards: make(map[string]*Shards)}
	s.lock = lock
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Unlock())
		}
	}()
	for _, d := range []string{s.path(generationsDir), s.path(documentsDir), s.path(shardsDir)} {
		if err := durable.Mkdir(d); err != nil {
			return nil, fmt.Errorf("open local store: %w", err)
		}
	}
	for _, d := range []string{generationsDir, documentsDir} {
		if err := durable.RemoveTemp(s.path(d)); err != nil {
			return nil, fmt.Errorf("open local store %q: %w", dir, err)
		}
	}
	if err := s.scanGenerations(); err != nil {
		return nil, fmt.Errorf("open local store %q: %w", dir, err)
	}
	return s, nil
}

// Close releases the folder. Shards of the store are closed with it.
func (s *Store) Close() error {
	lock, err := s.Release()
	if lock == nil {
		return err
	}
	return errors.Join(err, lock.Unlock())
}

// Lock is the lock of the folder. It belongs to the store.
func (s *Store) Lock() *durable.Lock { return s.lock }

// Release closes the store and leaves its folder locked, for another process that adopts the lock or for OpenLocked. The
// lock is nil if the store is closed already.
func (s *Store) Release() (*durable.Lock, error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	generations, shards := s.generations, s.shards
	s.mu.Unlock()
	if closed {
		return nil, nil
	}
	var errs []error
	for _, g := range generations {
		errs = append(errs, g.log.close())
	}
	for _, t := range shards {
		errs = append(errs, t.close())
	}
	return s.lock, errors.Join(errs...)
}

// Status returns what is on the disk and what was found broken.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Faults: slices.Clone(s.faults)}
	for _, g := range slices.Backward(s.generations) {
		st.Generations = append(st.Generations, g.status)
	}
	return st
}

// documentsDir holds one sealed file per document.
const documentsDir = "documents"

// SaveDocument replaces the small value of that name: 1 to 100 characters of a-z, 0-9, ".", "_" and "-".
func (s *Store) SaveDocument(name string, value []byte) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("save document %q: not a name", name)
	}
	if len(value) > maxDocument {
		return fmt.Errorf("save document %q: %d bytes are more than %d", name, len(value), maxDocument)
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.open(); err != nil {
		return err
	}
	box := s.sealer.Seal(documentContext(name), value)
	return full(durable.WriteFile(s.path(documentsDir, name), 0o600, durable.Bytes(box)))
}

// Document returns the value of that name. The error is fs.ErrNotExist if there is none and ErrDamaged if it cannot
// be opened.
func (s *Store) Document(name string) ([]byte, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("read document %q: not a name", name)
	}
	f, err := os.Open(s.path(documentsDir, name))
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	defer f.Close() // read only: nothing to lose
	box, err := io.ReadAll(io.LimitReader(f, int64(maxDocument+keys.SealOverhead+1)))
	if err != nil {
		return nil, fmt.Errorf("read document %q: %w", name, err)
	}
	value, err := s.sealer.Open(documentContext(name), box)
	if err != nil {
		return nil, s.fault(filepath.Join(documentsDir, name), err)
	}
	return value, nil
}

func documentContext(name string) string { return "localstore document " + name }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// open returns ErrClosed after Close.
func (s *Store) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return nil
}

// fault remembers that a file is broken and returns the error for it.
func (s *Store) fault(file string, cause error) error {
	f := Fault{File: file, Reason: cause.Error()}
	s.mu.Lock()
	news := !slices.Contains(s.faults, f) && len(s.faults) < maxFaults
	if news {
		s.faults = append(s.faults, f)
	}
	s.mu.Unlock()
	if news {
		s.log.Warn("local data is damaged", "file", file, "err", cause)
	}
	return fmt.Errorf("%q: %w: %w", file, ErrDamaged, cause)
}

// full marks an error that comes of a full disk.
func full(err error) error {
	if err != nil && durable.IsFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// removeAll deletes files that no longer count. What cannot be deleted now is deleted at the next start, so an error
// is only worth a line in the log.
func removeAll(log *slog.Logger, paths ...string) {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("old local data stays behind", "file", p, "err", err)
		}
	}
}
