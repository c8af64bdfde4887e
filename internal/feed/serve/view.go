package serve

import (
	"sync"
	"time"

	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// view is one view: its newest content and what changed on the way there.
type view struct {
	name       string
	publishing sync.Mutex // held while a new version is prepared; before mu

	mu      sync.Mutex // all below
	head    *head      // nil: nothing published yet
	window  window
	next    chan struct{} // closed when head is replaced or the view is dropped
	dropped bool
}

// head is one version of a view. It does not change, but for the cache of its deltas.
type head struct {
	checkpoint snapshot.Checkpoint
	encoded    []byte
	position   wire.Position
	// changed is the version at which the content became what it is: later ones only repeat it.
	changed version
	content source

	mu     sync.Mutex // deltas
	deltas map[wire.Position]*delta
}

// delta is the change from one version to a head, encoded when it is first asked for.
type delta struct {
	once   sync.Once
	packed []byte
	ok     bool
}

// maxDeltas bounds the versions from which the changes to one head are kept: gateways that keep up all come from the
// one or two before it.
const maxDeltas = 16

func newView(name string, w Window) *view {
	return &view{name: name, window: window{bounds: w}, next: make(chan struct{})}
}

func (v *view) publish(c snapshot.Checkpoint, content source, now time.Time) error {
	v.publishing.Lock()
	defer v.publishing.Unlock()
	old, _, _ := v.current()
	h := &head{
		checkpoint: c,
		encoded:    snapshot.AppendCheckpoint(nil, c),
		position:   wire.PositionOf(c),
		changed:    version{c.Epoch, c.Seq},
		content:    content,
		deltas:     make(map[wire.Position]*delta),
	}
	if old == nil {
		v.replace(h, nil, false, now)
		return nil
	}
	order := c.Compare(old.checkpoint)
	switch {
	case order < 0:
		return ErrOlder
	case order == 0 && c.Root != old.checkpoint.Root:
		return ErrForked
	case order == 0 && c.KeyID == old.checkpoint.KeyID:
		return nil
	}
	if c.Root == old.checkpoint.Root {
		h.changed = old.changed
	}
	// Among a million credentials the search takes a while, and nobody who follows should have to wait for it.
	keys, ok := content.changedSince(old.content, v.window.bounds.Changes)
	v.replace(h, keys, ok && order > 0, now)
	return nil
}

// replace makes h the head. If known, keys are what changed from the head before; otherwise nobody can be sent changes
// from there any more, unless h is only another signature of it.
func (v *view) replace(h *head, keys []string, known bool, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch old := v.head; {
	case old == nil || old.position == h.position:
	case known:
		v.window.add(old.position, keys, now)
	default:
		v.window.clear()
	}
	v.head = h
	close(v.next)
	v.next = make(chan struct{})
}

func (v *view) drop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropped = true
	close(v.next)
	v.next = make(chan struct{})
}

// current returns the newest version and a channel that is closed when there is another one.
func (v *view) current() (h *head, next <-chan struct{}, dropped bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.head, v.next, v.dropped
}

// since returns the keys that changed from a version to the newest one; ok is false if that is not known.
func (v *view) since(from wire.Position) (h *head, keys []string, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	keys, ok = v.window.since(from)
	return v.head, keys, ok
}

// inline returns the packed changes from a version to h if they are known and small enough to be pushed.
func (v *view) inline(h *head, from wire.Position, codec *wire.Codec) ([]byte, bool) {
	if from.IsZero() || from == h.position {
		return nil, false
	}
	h.mu.Lock()
	d := h.deltas[from]
	if d == nil {
		d = new(delta)
		if len(h.deltas) < maxDeltas {
			h.deltas[from] = d
		}
	}
	h.mu.Unlock()
	d.once.Do(func() { d.packed, d.ok = v.encode(h, from, codec) })
	return d.packed, d.ok
}

// maxInlineRaw bounds the work for changes that turn out too large: configuration packs to a tenth at best.
const maxInlineRaw = 16 * wire.InlineBytes

func (v *view) encode(h *head, from wire.Position, codec *wire.Codec) ([]byte, bool) {
	// The window may meanwhile reach beyond h. Then there are more keys than needed, under which h has what from
	// has: the changes still lead to h.
	_, keys, ok := v.since(from)
	if !ok {
		return nil, false
	}
	var raw []byte
	for _, key := range keys {
		raw = h.content.appendChange(raw, key)
		if len(raw) > maxInlineRaw {
			return nil, false
		}
	}
	packed := codec.Pack(raw)
	return packed, len(packed) <= wire.InlineBytes
}
