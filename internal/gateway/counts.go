package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
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
	saved    [sha256.Size]byte // of what the file holds; belongs to run, and after it to whoever stops
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
	if f.path == "" {
		return nil
	}
	b := f.subjects.AppendTo(nil)
	sum := sha256.Sum256(b)
	if sum == f.saved {
		return nil
	}
	if err := durable.WriteFile(f.path, 0o600, durable.Bytes(b)); err != nil {
		return fmt.Errorf("save counts: %w", err)
	}
	f.saved = sum
	return nil
}
