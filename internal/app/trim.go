package app

import (
	"context"
	"runtime/debug"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// trimmer gives memory back to the operating system once something large is over: the first configuration, an import
// of keys. The runtime would keep for long what such a moment needed, and a node at rest would seem twice its size.
type trimmer struct {
	wake chan struct{} // size 1: something large has happened
	free func()        // debug.FreeOSMemory
}

const (
	// trimChanges is how many changes are large, if they are an eighth of the whole too: a full garbage collection is
	// too much for less.
	trimChanges = 1000
	// trimPause is how long it must be quiet, so that many large changes in a row cost one collection.
	trimPause = 2 * time.Second
)

func newTrimmer() *trimmer {
	return &trimmer{wake: make(chan struct{}, 1), free: debug.FreeOSMemory}
}

// note tells of a change of so many pieces among all there are.
func (t *trimmer) note(changed, all int) {
	if changed < trimChanges || changed < all/8 {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default: // it is awake
	}
}

// run trims until ctx ends.
func (t *trimmer) run(ctx context.Context) error {
	quiet := time.NewTimer(trimPause)
	defer quiet.Stop()
	quiet.Stop()
	for {
		select {
		case <-t.wake:
			quiet.Reset(trimPause)
		case <-quiet.C:
			t.free()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replaced returns how many credentials are in shards of now that are not in before, which may be nil.
func replaced(before, now *snapshot.Credentials) int {
	n := 0
	for i := range snapshot.CredentialShards {
		if s := now.Shard(i); before == nil || before.Shard(i) != s {
			n += s.Len()
		}
	}
	return n
}
