package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/x/durable"
)

// saveEvery is how often counts are saved, and so how much of them is lost when the process is killed.
const saveEvery = 10 * time.Second

// countsFile keeps the counts of quotas over a restart. An empty path keeps nothing.
type countsFile struct {
	path     string
	subjects *quota.Subjects

	mu     sync.Mutex        // guards what follows, held while the file is written
	saved  [sha256.Size]byte // of what the file holds
	frozen bool              // the file belongs to another process
}

// load takes the counts of the file over, if there is one.
func (f *countsFile) load(now time.Time) error {
	if f.path == "" {
		return nil
	}
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = f.subjects.Restore(b, now.UnixNano())
	}
	if err != nil {
		return fmt.Errorf("read counts %q: %w", f.path, err)
	}
	return nil
}

// run saves until ctx ends.
func (f *countsFile) run(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	broken := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := f.save()
		if err != nil && !broken {
			log.Warn("the counts of quotas cannot be saved", "err", err)
		}
		broken = err != nil
	}
}

// save writes the counts if they have changed.
func (f *countsFile) save() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.saveLocked()
	return err
}

// saveLocked requires mu. It returns the counts.
func (f *countsFile) saveLocked() ([]byte, error) {
	b := f.subjects.AppendTo(nil)
	sum := sha256.Sum256(b)
	if f.path == "" || f.frozen || sum == f.saved {
		return b, nil
	}
	if err := durable.WriteFile(f.path, 0o600, durable.Bytes(b)); err != nil {
		return b, fmt.Errorf("save counts: %w", err)
	}
	f.saved = sum
	return b, nil
}

// freeze saves the counts, which it returns, and leaves the file alone from then on, or until thaw.
func (f *countsFile) freeze() ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.saveLocked()
	f.frozen = true
	return b, err
}

func (f *countsFile) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = false
	f.saved = [sha256.Size]byte{} // another process may have written it
}
