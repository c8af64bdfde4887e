package keys

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hansa.dev/hansa/internal/x/durable"
)

// Ring is the folder in which a control node keeps its signing keys. A key counts only once the trust document lists
// it; two keys overlap while one takes over from the other.
type Ring struct {
	dir    string
	sealer *Sealer

	mu   sync.Mutex // guards keys
	keys map[string]*SigningKey
}

const (
	ringPrefix = "signing-"
	ringSuffix = ".key"
)

// OpenRing reads the signing keys in dir, which is made if it does not exist. Keys are sealed with the sealer; files that
// an earlier version left unsealed are sealed now.
func OpenRing(dir string, sealer *Sealer) (*Ring, error) {
	if err := durable.Mkdir(dir); err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	r := &Ring{dir: dir, sealer: sealer, keys: make(map[string]*SigningKey)}
	for _, e := range entries {
		id, isKey := strings.CutPrefix(e.Name(), ringPrefix)
		id, named := strings.CutSuffix(id, ringSuffix)
		if !isKey || !named {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := SealPrivateKey(path, sealer); err != nil {
			return nil, fmt.Errorf("open signing keys: %w", err)
		}
		private, err := loadEd25519(path, sealer)
		if err != nil {
			return nil, fmt.Errorf("open signing keys: %w", err)
		}
		key := newSigningKey(private)
		if key.id != id {
			return nil, fmt.Errorf("open signing keys: file %q holds the key %s", e.Name(), key.id)
		}
		r.keys[id] = key
	}
	return r, nil
}

// Generate makes and saves a new key.
func (r *Ring) Generate() (*SigningKey, error) {
	key, err := GenerateSigningKey()
	if err != nil {
		return nil, err
	}
	if err := SavePrivateKey(r.path(key.id), r.sealer, key.private); err != nil {
		return nil, fmt.Errorf("save signing key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys[key.id] = key
	return key, nil
}

// Signer returns the own key that the trust document allows to sign for the purpose now; among several the one that
// lives longest. The error is ErrNoSigningKey if there is none.
func (r *Ring) Signer(t *Trust, purpose string, now time.Time) (Signer, error) {
	best, ok := r.best(t, purpose, now)
	if !ok {
		return nil, fmt.Errorf("signing key for %q in %q at %s: %w", purpose, r.dir, stamp(now), ErrNoSigningKey)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[best.ID()], nil
}

// NotAfter returns the end of the key that Signer would return; the zero time if there is none.
func (r *Ring) NotAfter(t *Trust, purpose string, now time.Time) time.Time {
	best, _ := r.best(t, purpose, now)
	return best.NotAfter
}

func (r *Ring) best(t *Trust, purpose string, now time.Time) (best TrustedKey, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range t.Keys {
		id := k.ID()
		if r.keys[id] == nil || !k.ValidAt(now) || !slices.Contains(k.Purposes, purpose) || slices.Contains(t.Revoked, id) {
			continue
		}
		if !ok || k.NotAfter.After(best.NotAfter) {
			best, ok = k, true
		}
	}
	return best, ok
}

// Unlisted returns the keys that the trust document does not name, in order of their IDs: made, but not yet vouched
// for by the root.
func (r *Ring) Unlisted(t *Trust) []*SigningKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*SigningKey
	for id, key := range r.keys {
		if t != nil {
			if _, listed := t.Key(id); listed {
				continue
			}
		}
		out = append(out, key)
	}
	slices.SortFunc(out, func(a, b *SigningKey) int { return strings.Compare(a.id, b.id) })
	return out
}

// Remove deletes the files of keys that ended before the given time according to the trust document.
func (r *Ring) Remove(t *Trust, before time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range t.Keys {
		id := k.ID()
		if r.keys[id] == nil || !k.NotAfter.Before(before) {
			continue
		}
		if err := os.Remove(r.path(id)); err != nil {
			return fmt.Errorf("remove expired signing key: %w", err)
		}
		delete(r.keys, id)
	}
	return nil
}

func (r *Ring) path(id string) string { return filepath.Join(r.dir, ringPrefix+id+ringSuffix) }
