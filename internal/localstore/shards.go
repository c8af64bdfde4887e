package localstore

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"hansa.dev/hansa/internal/x/durable"
)

// shardsDir holds one folder per set of shards, with its segments and logs.
const (
	shardsDir     = "shards"
	segmentSuffix = ".seg"
	logSuffix     = ".log"
)

// maxSegments is how many files a set of shards is spread over at most. Every batch makes one; then the small new ones
// are merged, so that a shard is rewritten a logarithmic number of times.
const maxSegments = 8

// Shards is a named set of numbered pieces ("shard 17 of the credentials"), each replaced as a whole, and a log of
// what came after. Reading a shard takes one pread and one decryption. Batches and appends wait for each other;
// reads wait for neither.
type Shards struct {
	store   *Store
	name    string
	dir     string
	context string

	writing sync.Mutex // held by Replace and Append, guards the fields below; taken before mu
	log     *recordLog
	logs    []uint64 // numbers of the logs that count, ascending; the last one is log
	next    uint64   // number of the next segment
	damaged []string // files of unreadable segments, deleted after the next batch

	mu       sync.RWMutex // guards the fields below
	segments []*segment   // ascending by number
	where    map[uint16]place
	logBytes int64
	closed   bool
}

// place is where the newest content of a shard is.
type place struct {
	in *segment
	entry
}

// Shards opens the set of that name (as for documents), which is empty if it does not exist yet. Opening it again
// returns the same set.
func (s *Store) Shards(name string) (*Shards, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("open shards %q: not a name", name)
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.open(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	t := s.shards[name]
	s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t = &Shards{
		store: s, name: name, dir: s.path(shardsDir, name), context: "localstore shards " + name,
		where: make(map[uint16]place), next: 1,
	}
	if err := t.scan(); err != nil {
		return nil, fmt.Errorf("open shards %q: %w", name, errors.Join(err, t.close()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shards[name] = t
	return t, nil
}

// scan reads the indexes of all segments and deletes what no longer counts.
func (t *Shards) scan() error {
	if err := durable.Mkdir(t.dir); err != nil {
		return err
	}
	if err := durable.RemoveTemp(t.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())), 16, 64)
		if err != nil {
			continue // not ours
		}
		switch filepath.Ext(e.Name()) {
		case logSuffix:
			t.logs = append(t.logs, number)
		case segmentSuffix:
			t.next = max(t.next, number+1)
			seg, err := openSegment(t.store.sealer, t.context, t.file(number, segmentSuffix), number)
			if err != nil {
				_ = t.store.fault(t.relative(number, segmentSuffix), err) // noted; older content of its shards remains
				t.damaged = append(t.damaged, t.file(number, segmentSuffix))
				continue
			}
			t.segments = append(t.segments, seg)
		}
	}
	slices.SortFunc(t.segments, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	slices.Sort(t.logs)
	t.indexLocked()
	t.noteMissing()
	t.dropDeadLocked()
	t.openLog()
	return nil
}

// indexLocked finds the newest content of every shard.
func (t *Shards) indexLocked() {
	clear(t.where)
	for _, seg := range t.segments {
		for _, e := range seg.entries {
			t.where[e.shard] = place{in: seg, entry: e}
		}
	}
}

// noteMissing compares the segments with the list in the newest of them.
func (t *Shards) noteMissing() {
	if len(t.segments) == 0 {
		return
	}
	newest := t.segments[len(t.segments)-1]
	for _, number := range newest.alive {
		if !slices.ContainsFunc(t.segments, func(s *segment) bool { return s.number == number }) {
			_ = t.store.fault(t.relative(number, segmentSuffix), errors.New("the segment is missing or unreadable")) // noted
		}
	}
}

// dropDeadLocked deletes segments of which nothing is in use, except the newest, whose list of segments counts.
func (t *Shards) dropDeadLocked() {
	live := make(map[*segment]bool)
	for _, p := range t.where {
		live[p.in] = true
	}
	for i, seg := range slices.Backward(t.segments) {
		if live[seg] || i == len(t.segments)-1 {
			continue
		}
		if err := seg.f.Close(); err != nil {
			t.store.log.Warn("close old segment", "file", seg.f.Name(), "err", err)
		}
		removeAll(t.store.log, seg.f.Name())
		t.segments = slices.Delete(t.segments, i, i+1)
	}
}

// openLog deletes the logs that the newest segment made superfluous and picks the one to append to.
func (t *Shards) openLog() {
	floor := uint64(1)
	if n := len(t.segments); n > 0 {
		floor = t.segments[n-1].logFloor
	}
	t.logs = slices.DeleteFunc(t.logs, func(number uint64) bool {
		if number >= floor {
			return false
		}
		removeAll(t.store.log, t.file(number, logSuffix))
		return true
	})
	if len(t.logs) == 0 {
		t.logs = []uint64{floor}
	}
	t.log = t.recordLog(t.logs[len(t.logs)-1])
}

func (t *Shards) recordLog(number uint64) *recordLog {
	return &recordLog{path: t.file(number, logSuffix), context: fmt.Sprintf("%s log %d", t.context, number), sealer: t.store.sealer}
}

// Read returns the content of a shard; nil if it has none. The error is ErrDamaged if it cannot be opened; the caller
// gets it anew and replaces it.
func (t *Shards) Read(shard uint16) ([]byte, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return nil, ErrClosed
	}
	p, ok := t.where[shard]
	if !ok || p.size == 0 {
		return nil, nil
	}
	b, err := p.in.read(t.store.sealer, t.context, p.entry)
	if err != nil {
		return nil, t.store.fault(t.relative(p.in.number, segmentSuffix), fmt.Errorf("shard %d: %w", shard, err))
	}
	return b, nil
}

// List returns the numbers of the shards that have content, ascending.
func (t *Shards) List() []uint16 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]uint16, 0, len(t.where))
	for shard, p := range t.where {
		if p.size > 0 {
			out = append(out, shard)
		}
	}
	slices.Sort(out)
	return out
}

// Replace gives new content to the shards that fill puts, all at once, and returns when they are on the disk. Empty
// content takes a shard away. Putting a shard twice is an error. With clearLog everything that was appended before is
// forgotten in the same moment: the caller says that the shards now hold it. After an error everything is as before.
// Fill may call Read, but neither Replace nor Append.
func (t *Shards) Replace(clearLog bool, fill func(put func(shard uint16, content []byte) error) error) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	return t.replaceWriting(clearLog, nil, fill)
}

// replaceWriting writes a new segment. The given segments, the newest ones, are dropped for it.
func (t *Shards) replaceWriting(clearLog bool, merged []*segment, fill func(put func(uint16, []byte) error) error) error {
	t.mu.RLock()
	closed, kept := t.closed, t.segments[:len(t.segments)-len(merged)]
	t.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	floor := t.logs[0]
	if clearLog {
		floor = t.logs[len(t.logs)-1] + 1
	}
	w := &segmentWriter{
		sealer: t.store.sealer, context: t.context, number: t.next, logFloor: floor,
		alive: func(replaced map[uint16]bool) []uint64 { return t.aliveBut(replaced, merged) },
	}
	path := t.file(t.next, segmentSuffix)
	if err := durable.WriteFile(path, 0o600, func(f io.Writer) error { return w.write(f, fill) }); err != nil {
		return fmt.Errorf("replace shards %q: %w", t.name, full(err))
	}
	t.next++
	seg, err := openSegment(t.store.sealer, t.context, path, w.number)
	if err != nil {
		return fmt.Errorf("replace shards %q: read back: %w", t.name, err)
	}
	t.mu.Lock()
	t.segments = append(slices.Clone(kept), seg)
	t.indexLocked()
	t.dropDeadLocked()
	t.mu.Unlock()
	removeAll(t.store.log, t.damaged...)
	t.damaged = nil
	for _, seg := range merged {
		if err := seg.f.Close(); err != nil {
			t.store.log.Warn("close merged segment", "file", seg.f.Name(), "err", err)
		}
		removeAll(t.store.log, seg.f.Name())
	}
	if clearLog {
		t.startLog(floor)
	}
	return t.mergeWriting()
}

// aliveBut returns the numbers of the segments, but for the merged ones, that are in use for other shards than the
// replaced ones.
func (t *Shards) aliveBut(replaced map[uint16]bool, merged []*segment) []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var alive []uint64
	for shard, p := range t.where {
		if !replaced[shard] && !slices.Contains(merged, p.in) && !slices.Contains(alive, p.in.number) {
			alive = append(alive, p.in.number)
		}
	}
	slices.Sort(alive)
	return alive
}

func (t *Shards) startLog(number uint64) {
	if err := t.log.close(); err != nil {
		t.store.log.Warn("close old log", "file", t.log.path, "err", err)
	}
	for _, old := range t.logs {
		removeAll(t.store.log, t.file(old, logSuffix))
	}
	t.logs, t.log = []uint64{number}, t.recordLog(number)
	t.setLogBytes()
}

// mergeWriting joins the newest segments once there are too many: as many as are each at most twice as large as
// those after them together, and at least two.
func (t *Shards) mergeWriting() error {
	t.mu.RLock()
	segments := slices.Clone(t.segments)
	t.mu.RUnlock()
	if len(segments) <= maxSegments {
		return nil
	}
	from, sum := len(segments)-1, segments[len(segments)-1].size
	for from > 0 && (segments[from-1].size <= 2*sum || from > len(segments)-2) {
		from--
		sum += segments[from].size
	}
	merged := segments[from:]
	return t.replaceWriting(false, merged, func(put func(uint16, []byte) error) error {
		t.mu.RLock()
		var places []place
		for _, p := range t.where {
			// Whether the shard is gone must be said only while an older segment may have it.
			if slices.Contains(merged, p.in) && (p.size > 0 || from > 0) {
				places = append(places, p)
			}
		}
		t.mu.RUnlock()
		slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.shard, b.shard) })
		for _, p := range places {
			var content []byte
			if p.size > 0 {
				var err error
				if content, err = p.in.read(t.store.sealer, t.context, p.entry); err != nil {
					// A damaged shard is carried on as missing; the feed brings it again.
					_ = t.store.fault(t.relative(p.in.number, segmentSuffix), fmt.Errorf("shard %d: %w", p.shard, err))
				}
			}
			if err := put(p.shard, content); err != nil {
				return err
			}
		}
		return nil
	})
}

// Append adds a record to the log and returns when it is on the disk.
func (t *Shards) Append(record []byte) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.RLock()
	closed := t.closed
	t.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	defer t.setLogBytes()
	if err := t.log.append(record); err != nil {
		return fmt.Errorf("append to the log of shards %q: %w", t.name, err)
	}
	return nil
}

// Log yields the records of the log in order. They come after the content of the shards. If the log is damaged, the
// last yield is ErrDamaged; what comes before is good, and the next Append continues there.
func (t *Shards) Log() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		records, err := t.readLogs()
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

func (t *Shards) readLogs() (records [][]byte, err error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	defer t.setLogBytes()
	collect := func(r []byte) error {
		records = append(records, r)
		return nil
	}
	for _, number := range t.logs {
		log := t.log
		if number != t.logs[len(t.logs)-1] {
			log = t.recordLog(number)
		}
		tail, err := log.load(collect)
		if err == nil && tail != nil && !errors.Is(tail, io.ErrUnexpectedEOF) {
			err = tail
		}
		if err != nil {
			return records, t.store.fault(t.relative(number, logSuffix), err)
		}
	}
	return records, nil
}

// LogBytes returns the size of the log, for deciding when to move its content to the shards. It is known after the
// first Append or Log.
func (t *Shards) LogBytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.logBytes
}

func (t *Shards) setLogBytes() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logBytes = t.log.size
}

func (t *Shards) close() error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	var errs []error
	for _, seg := range t.segments {
		errs = append(errs, seg.f.Close())
	}
	if t.log != nil {
		errs = append(errs, t.log.close())
	}
	return errors.Join(errs...)
}

func (t *Shards) file(number uint64, suffix string) string {
	return filepath.Join(t.dir, fmt.Sprintf("%016x%s", number, suffix))
}

func (t *Shards) relative(number uint64, suffix string) string {
	return filepath.Join(shardsDir, t.name, fmt.Sprintf("%016x%s", number, suffix))
}
