package fetch

import (
	"context"
	"errors"
	"fmt"

	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// judge tells whether a checkpoint speaks of something newer than what is in force, or why it must not be believed.
func (f *follower[C]) judge(c snapshot.Checkpoint) (news bool, refusal *snapshot.Refusal) {
	refuse := func(code, format string, args ...any) (bool, *snapshot.Refusal) {
		return false, &snapshot.Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
	}
	if c.Cluster != f.opts.Cluster || c.View != f.kind.viewName() {
		return refuse(snapshot.RefusedCluster, "view %q of cluster %q instead of %q of %q", c.View, c.Cluster, f.kind.viewName(), f.opts.Cluster)
	}
	if err := f.opts.Verify(c, false); err != nil {
		return refuse(snapshot.RefusedSignature, "%v", err)
	}
	if f.have.IsZero() {
		return true, nil
	}
	have := snapshot.Checkpoint{Epoch: f.have.Epoch, Seq: f.have.Seq}
	order := c.Compare(have)
	if f.snapshotStatus().Frozen {
		if c.Epoch <= have.Epoch {
			return refuse(snapshot.RefusedForked, "frozen at %d.%d: raise the epoch, or start the gateway anew once it is clear who signed what", have.Epoch, have.Seq)
		}
		f.update(func(st *ViewStatus) { st.Frozen = false })
	}
	switch {
	case order < 0:
		return refuse(snapshot.RefusedOlder, "version %d.%d came after %d.%d", c.Epoch, c.Seq, have.Epoch, have.Seq)
	case order == 0 && c.Root != f.have.Root:
		f.update(func(st *ViewStatus) { st.Frozen = true })
		f.log.Error("two contents of one version are signed: nothing more is taken", "content", f.kind.name(),
			"epoch", c.Epoch, "seq", c.Seq, "have", f.have.Root.String(), "offered", c.Root.String())
		return refuse(snapshot.RefusedForked, "version %d.%d has root %.8s here and %.8s there", c.Epoch, c.Seq, f.have.Root, c.Root)
	}
	return order > 0, nil
}

// take persists and applies a candidate that was judged to be news and whose content matches its checkpoint. The
// error is only that of ctx.
func (f *follower[C]) take(ctx context.Context, next *candidate[C]) (*snapshot.Refusal, error) {
	f.pending = nil
	old, c := f.content, next.checkpoint
	if err := f.kind.check(next.content, old); err != nil {
		return refusalOf(err), nil
	}
	if err := f.before(ctx); err != nil {
		return nil, err
	}
	f.persist(c, next.content)
	if err := f.kind.apply(ctx, c, next.content, old); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // the version on the disk is tried again at the next start
		}
		if !f.have.IsZero() {
			f.persist(f.current(), old) // or the next start would begin with what was refused
		}
		refusal := refusalOf(err)
		if refusal.Retryable {
			f.pending = next
		}
		return refusal, nil
	}
	f.adopt(c, next.content)
	return nil, nil
}

// persist writes content to the disk. A disk that does not take it stops nothing: the gateway goes on, says so, and
// tries again later.
func (f *follower[C]) persist(c snapshot.Checkpoint, content C) {
	generation, err := f.kind.save(c, content)
	f.unsaved = err != nil
	degraded := ""
	if err != nil {
		degraded = fmt.Sprintf("%s of version %d.%d is not on the disk: %v", f.kind.name(), c.Epoch, c.Seq, err)
	}
	was := f.snapshotStatus().Degraded
	f.update(func(st *ViewStatus) { st.Generation, st.Degraded = generation, degraded })
	if err != nil && was == "" {
		f.log.Error("the disk does not take new content: it is in force, but a restart would begin with older content", "content", f.kind.name(), "err", err)
	}
}

// adopt notes what is in force.
func (f *follower[C]) adopt(c snapshot.Checkpoint, content C) {
	f.have, f.content, f.scratch = wire.PositionOf(c), content, nil
	f.update(func(st *ViewStatus) {
		st.Have, st.Epoch, st.Seq, st.Root = true, c.Epoch, c.Seq, c.Root
		st.Count, st.IssuedAt = c.Count, c.IssuedAt
		st.checkpoint = c
	})
	f.applied()
}

// current returns the checkpoint of what is in force.
func (f *follower[C]) current() snapshot.Checkpoint { return f.snapshotStatus().checkpoint }

// refusalOf makes a refusal of an error. One of which nothing is known may be passing.
func refusalOf(err error) *snapshot.Refusal {
	if r, ok := errors.AsType[*snapshot.Refusal](err); ok {
		return r
	}
	return &snapshot.Refusal{Code: snapshot.RefusedCannotRun, Detail: err.Error(), Retryable: true}
}

// load hands the newest good content of the disk to the sink.
func (f *follower[C]) load(ctx context.Context) {
	err := f.kind.load(func(c snapshot.Checkpoint, content C, generation uint64, whole bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.Cluster != f.opts.Cluster || c.View != f.kind.viewName() {
			return fmt.Errorf("view %q of cluster %q", c.View, c.Cluster)
		}
		if err := f.opts.Verify(c, true); err != nil {
			return err
		}
		if whole {
			if err := c.Matches(content); err != nil {
				return err
			}
		}
		if err := f.kind.check(content, f.kind.empty()); err != nil {
			return err
		}
		if err := f.kind.apply(ctx, c, content, f.kind.empty()); err != nil {
			return err
		}
		f.adopt(c, content)
		f.update(func(st *ViewStatus) { st.Generation = generation })
		if !whole {
			// What is missing is found by comparing.
			f.have, f.scratch = wire.Position{}, &content
			f.update(func(st *ViewStatus) { st.Degraded = "a part of the " + f.kind.name() + " on the disk is damaged" })
		}
		return nil
	})
	if err != nil {
		f.log.WarnContext(ctx, "not everything on the disk could be used", "content", f.kind.name(), "err", err)
	}
}

// offer takes content that did not come over the link.
func (f *follower[C]) offer(ctx context.Context, c snapshot.Checkpoint, content C) error {
	if c.Cluster != f.opts.Cluster || c.View != f.kind.viewName() {
		return &snapshot.Refusal{Code: snapshot.RefusedCluster, Detail: fmt.Sprintf("view %q of cluster %q instead of %q of %q",
			c.View, c.Cluster, f.kind.viewName(), f.opts.Cluster)}
	}
	// Nothing is taken of what is not newer, so it need not be good either: the key that signed it may have gone since.
	if !f.have.IsZero() && c.Compare(f.current()) <= 0 {
		if have := f.current(); c.Compare(have) < 0 {
			f.log.InfoContext(ctx, "what is offered is older than what is on the disk, which stays in force", "content", f.kind.name(),
				"offered_epoch", c.Epoch, "offered_seq", c.Seq, "epoch", have.Epoch, "seq", have.Seq)
		}
		return nil
	}
	if err := f.opts.Verify(c, true); err != nil {
		return &snapshot.Refusal{Code: snapshot.RefusedSignature, Detail: err.Error()}
	}
	if err := c.Matches(content); err != nil {
		return &snapshot.Refusal{Code: snapshot.RefusedContent, Detail: err.Error()}
	}
	refusal, err := f.take(ctx, &candidate[C]{c, content})
	if err != nil {
		return err
	}
	if refusal != nil {
		return refusal
	}
	return nil
}
