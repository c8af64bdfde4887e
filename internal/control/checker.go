package control

import (
	"context"
	"fmt"
	"sync"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/store"
)

// checker compiles prospective states. It goes on from the compiled state at some version of the record, so that a
// small change costs little however large the record is: from the one that is published if there is one, so that the
// process holds it once, or else from one of its own.
type checker struct {
	store     store.Store
	published func() (store.Version, *compile.Result) // nil: never any

	mu       sync.Mutex // guards what follows; held while compiling
	version  store.Version
	compiled *compile.Result // nil: nothing is compiled
}

// check compiles next, a state that differs from state, which is at the head, in the keys. It returns what is
// compiled, or a *resource.InvalidError.
func (c *checker) check(ctx context.Context, state, next store.State, changed []v1.Key) (*compile.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.catchUpLocked(ctx, state); err != nil {
		return nil, err
	}
	return c.compiled.Next(next, state.Version().Seq+1, changed)
}

// current returns what state, which is at the head, compiles to.
func (c *checker) current(ctx context.Context, state store.State) (*compile.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.catchUpLocked(ctx, state); err != nil {
		return nil, err
	}
	return c.compiled, nil
}

// catchUpLocked compiles up to state: by what has changed since, or all of it if the log does not tell.
func (c *checker) catchUpLocked(ctx context.Context, state store.State) error {
	to := state.Version()
	if c.published != nil {
		v, r := c.published()
		if r != nil && !to.Before(v) && (c.compiled == nil || !v.Before(c.version)) {
			c.version, c.compiled = v, r
		}
	}
	if c.compiled != nil && c.version == to {
		return nil
	}
	if c.compiled != nil && c.version.Epoch == to.Epoch {
		if changed, err := c.changedSince(ctx, to); err == nil {
			if r, err := c.compiled.Next(state, to.Seq, changed); err == nil {
				c.compiled, c.version = r, to
				return nil
			}
		}
	}
	r, err := compile.Compile(state, to.Seq, compile.Options{})
	if err != nil {
		// Everything in the record was compiled before it came there.
		return fmt.Errorf("the record at %d.%d does not compile: %w", to.Epoch, to.Seq, err)
	}
	c.compiled, c.version = r, to
	return nil
}

func (c *checker) changedSince(ctx context.Context, to store.Version) ([]v1.Key, error) {
	var changed []v1.Key
	for set, err := range c.store.Log(ctx, c.version, to) {
		if err != nil {
			return nil, err
		}
		for _, ch := range set.Changes {
			changed = append(changed, ch.Key)
		}
	}
	return changed, nil
}
