package app

import (
	"context"
	"runtime/debug"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// trimmer gives memory back to the operating system once something large is over: the first configuration, an import
// of keys, the coming or going of a crowd of clients. The runtime would keep for long what such a moment needed, stacks
// among it, and a node at rest would seem twice its size.
type trimmer struct {
	wake chan struct{} // size 1: something large has happened
	free func()        // debug.FreeOSMemory
	open func() int    // how many connections clients have
}

const (
	// trimChanges is how many changes are large, if they are an eighth of the whole too: a full garbage collection is
	// too much for less.
	trimChanges = 1000
	// trimPause is how long it must be quiet, so that many large changes in a row cost one collection.
	trimPause = 2 * time.Second
	// trimRest is for how many looks, one a second, a crowd must neither grow nor shrink. In that time idle connections have
	// given back their buffers.
	trimRest = 7
)

// newTrimmer makes a trimmer of a node that has so many connections of clients; nil stands for none.
func newTrimmer(open func() int) *trimmer {
	if open == nil {
		open = func() int { return 0 }
	}
	return &trimmer{wake: make(chan struct{}, 1), free: debug.FreeOSMemory, open: open}
}

// large tells whether a change of so many pieces among all there are is worth a collection.
func large(changed, all int) bool { return changed >= trimChanges && changed >= all/8 }

// note tells of a change of so many pieces among all there are.
func (t *trimmer) note(changed, all int) {
	if !large(changed, all) {
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
	look := time.NewTicker(time.Second)
	defer look.Stop()
	var clients crowd
	for {
		select {
		case <-t.wake:
			quiet.Reset(trimPause)
		case <-quiet.C:
			t.free()
		case <-look.C:
			if clients.settled(t.open()) {
				t.free()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// crowd follows how many connections there are.
type crowd struct {
	before int // there were when memory was given back
	last   int // there were at the last look
	rest   int // looks since the number has changed by more than a hundredth
}

// settled looks at the number of connections, and tells whether it is quite another one than before and will stay.
func (c *crowd) settled(now int) bool {
	moved := abs(now - c.last)
	c.last = now
	if moved > now/100 || !large(abs(now-c.before), max(now, c.before)) {
		c.rest = 0
		return false
	}
	if c.rest++; c.rest < trimRest {
		return false
	}
	c.before, c.rest = now, 0
	return true
}

func abs(n int) int { return max(n, -n) }

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
