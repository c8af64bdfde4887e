package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/operate"
	"hansa.dev/hansa/internal/x/fdpass"
)

// HandoverEnv names the variable in which a new process finds the number of the file that it hears from its predecessor on.
const HandoverEnv = "HANSA_HANDOVER"

const (
	// upgradeTime is how long a new process may take until it serves.
	upgradeTime = time.Minute
	// endTime is how long a new process that gives up may take to end by itself.
	endTime = 2 * time.Second
)

// What Upgrade is refused for.
var (
	// ErrBusy: the gateway hands over at this moment, or goes out of service.
	ErrBusy = errors.New("the gateway is handing over or going out of service")
	// ErrNoUpgrade: the process was not started in a way that another one can be started like.
	ErrNoUpgrade = errors.New(`only a process of "hansa gateway" can hand over to another one`)
)

// Predecessor returns the conversation with the process that hands over to this one, or nil if there is none.
func Predecessor(getenv func(string) string) (*fdpass.Conn, error) {
	text := getenv(HandoverEnv)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%s is %q, not the number of a file", HandoverEnv, text)
	}
	return fdpass.FromFile(os.NewFile(uintptr(fd), HandoverEnv))
}

// successor is the process that this one hands over to.
type successor struct {
	cmd   *exec.Cmd
	conn  *fdpass.Conn
	ended chan struct{}
	err   error // how it ended; set before ended is closed
	until time.Time

	abandoned bool
}

// Upgrade hands over to a new process, and returns when that serves all connections that come. This one then finishes its own
// and ends: see Wait. After an error it goes on as if nothing had been.
func (g *Gateway) Upgrade(ctx context.Context, u operate.Upgrade) (operate.Upgraded, error) {
	if g.opts.Successor == nil {
		return operate.Upgraded{}, ErrNoUpgrade
	}
	if !g.upgrading.TryLock() {
		return operate.Upgraded{}, ErrBusy
	}
	defer g.upgrading.Unlock()
	if g.handedOver.Load() || g.traffic.Status().Draining {
		return operate.Upgraded{}, ErrBusy
	}
	if u.Timeout <= 0 {
		u.Timeout = upgradeTime
	}
	began := time.Now()
	s, err := g.beginSuccessor(u)
	if err != nil {
		return operate.Upgraded{}, fmt.Errorf("start the new process: %w", err)
	}
	g.heir.Store(s)
	defer g.heir.Store(nil)
	if g.ending.Load() { // which may have been too early to see the heir
		s.kill()
	}
	out := operate.Upgraded{OldPID: os.Getpid(), PID: s.cmd.Process.Pid}
	prepared, err := s.await(stepPrepared)
	if err == nil {
		out.Version = prepared.Version
	}
	if err == nil {
		err = g.handFolder(ctx, s)
	}
	if err != nil {
		if !s.abandoned {
			err = errors.Join(err, s.abandon())
		}
		g.log.ErrorContext(ctx, "the new process does not serve; this one goes on", "pid", out.PID, "err", err)
		return operate.Upgraded{}, err
	}
	_ = s.conn.Close() // all is said
	g.log.InfoContext(ctx, "handed over", "pid", out.PID, "version", out.Version, "took", time.Since(began))
	return out, nil
}

// endUpgrade breaks off a handover that is under way, and lets none begin any more.
func (g *Gateway) endUpgrade() {
	g.ending.Store(true)
	if s := g.heir.Load(); s != nil && !g.handedOver.Load() {
		s.kill()
	}
	g.upgrading.Lock()
}

// beginSuccessor starts the new process and makes it the offer.
func (g *Gateway) beginSuccessor(u operate.Upgrade) (_ *successor, err error) {
	cmd, err := g.opts.Successor(u.Program)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := fdpass.Pair()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	ownGroup(cmd) // so that all of it can be ended
	cmd.Env = append(environment(cmd.Environ(), HandoverEnv+"="), fmt.Sprintf("%s=%d", HandoverEnv, 2+len(cmd.ExtraFiles)))
	err = cmd.Start()
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	s := &successor{cmd: cmd, conn: ours, ended: make(chan struct{}), until: time.Now().Add(u.Timeout)}
	go func() { // ends with the new process, which kill sees to, or with this one
		defer close(s.ended)
		s.err = cmd.Wait()
	}()
	if err := g.offerTo(s); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

func environment(env []string, prefix string) (out []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, prefix) {
			out = append(out, v)
		}
	}
	return out
}

// offerTo sends the offer.
func (g *Gateway) offerTo(s *successor) error {
	names, addresses, files, err := g.traffic.Sockets()
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	o := offer{Protocol: handoverProtocol, PID: os.Getpid(), Added: g.addedListeners()}
	for i, name := range names {
		o.Sockets = append(o.Sockets, socketName{name, addresses[i]})
	}
	if g.levelByHand.Load() {
		o.LogLevel = g.opts.Level.Level().String()
	}
	g.tenancyMu.Lock()
	diskLock := g.disk.Lock()
	g.tenancyMu.Unlock()
	locked := append(files[:len(files):len(files)], g.folder.Lock().File(), diskLock.File())
	return s.conn.Send(o, locked, time.Until(s.until))
}

// await waits until the new process has come to a step.
func (s *successor) await(next string) (step, error) {
	var at step
	_, err := s.conn.Receive(&at, max(time.Until(s.until), time.Millisecond))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return at, fmt.Errorf("the new process has not come to %q in time: %w", next, context.DeadlineExceeded)
	case err != nil:
		select { // it is given the time to say in its log why
		case <-s.ended:
		case <-time.After(endTime):
		}
		s.kill()
		<-s.ended
		return at, fmt.Errorf("the new process has ended before it came to %q (%v): see its log", next, s.err)
	case at.Step != next:
		return at, fmt.Errorf("the new process says %q, not %q", at.Step, next)
	}
	return at, nil
}

// tell sends a step.
func (s *successor) tell(what string) error {
	return s.conn.Send(step{Step: what}, nil, max(time.Until(s.until), time.Millisecond))
}

// abandonTime is how long the processes of a successor may take to be gone once they were killed.
const abandonTime = 10 * time.Second

// abandon ends the new process and all that it has started, and returns when they are gone, and so write nowhere: the
// conversation ends when nobody has its other end any more. If that does not happen in time it stays open, so that whoever
// is there does not take the end of the conversation for the end of this process, and go on by itself.
func (s *successor) abandon() error {
	_ = s.conn.Send(step{Step: stepAbandoned}, nil, time.Second)
	s.kill()
	<-s.ended
	until := time.Now().Add(abandonTime)
	for {
		_, err := s.conn.Receive(new(step), max(time.Until(until), time.Millisecond))
		switch {
		case err == nil: // said before it was killed
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("a process that the new program has started cannot be ended")
		default:
			return s.conn.Close()
		}
	}
}

// kill has all processes of the successor killed that have not left its group.
func (s *successor) kill() {
	killGroup(s.cmd)
}

// handFolder gives the data folder away, then the traffic. After an error this process has the folder again.
func (g *Gateway) handFolder(ctx context.Context, s *successor) error {
	before := g.traffic.Status()
	counts, err := g.traffic.Freeze()
	if err != nil {
		g.log.WarnContext(ctx, "the counts of quotas are not saved for the new process", "err", err)
	}
	lock, err := g.freeze(ctx)
	if err == nil {
		err = g.handTraffic(before, s)
	}
	if err == nil {
		g.handedOver.Store(true)
		err = errors.Join(lock.Leave(), g.folder.Lock().Leave())
		if err != nil {
			g.log.WarnContext(ctx, "the locks of the data folder are not given up", "err", err)
		}
		g.retire(counts)
		return nil
	}
	s.abandoned = true
	thawErr := s.abandon()
	if thawErr == nil {
		thawErr = g.thaw(ctx, lock)
	}
	if thawErr == nil { // it may have put itself in the place of this process already
		thawErr = errors.Join(g.listenOperating(), g.writeReady())
	}
	if thawErr != nil {
		select {
		case g.failed <- fmt.Errorf("take up the data folder again: %w", thawErr):
		default: // another part has failed first
		}
		err = errors.Join(err, thawErr)
	}
	return err
}

// handTraffic takes the new process through its last steps.
func (g *Gateway) handTraffic(before gateway.Status, s *successor) error {
	if err := s.tell(stepFolder); err != nil {
		return err
	}
	has, err := s.await(stepReady)
	if err != nil {
		return err
	}
	behind := has.Epoch < before.Epoch || has.Epoch == before.Epoch && has.Seq < before.Seq
	// A version that changed nothing for this gateway need not be on the disk.
	if before.Generation > 0 && (!has.Configured || behind && has.Digest != before.Digest) {
		return fmt.Errorf("the new process has only configuration %d.%d, this one has %d.%d", has.Epoch, has.Seq, before.Epoch, before.Seq)
	}
	if err := s.tell(stepServe); err != nil {
		return err
	}
	_, err = s.await(stepAccepting)
	return err
}

// tellEvery is how often a process that has handed over tells the one that serves what it has counted, and asks which of
// its streams have lost their ground.
const tellEvery = time.Second

// retire finishes the connections of this process, and then lets Wait return. When it returns, this process takes no more of
// them: all that come are the other one's.
func (g *Gateway) retire(counts []byte) {
	ctx, done := context.WithCancel(context.Background())
	closed := make(chan struct{})
	g.retirement.Go(func() {
		g.report(ctx, counts)
		close(g.retired)
	})
	g.retirement.Go(func() {
		defer done()
		if err := g.traffic.Retire(ctx, func() { close(closed) }); err != nil {
			g.log.Warn("connections were cut off after the handover", "err", err)
		}
	})
	<-closed
}

// report keeps in touch with the process that serves until ctx ends, and once more after that.
func (g *Gateway) report(ctx context.Context, counts []byte) {
	c := operate.NewClient(g.opts.Data)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	silent := false
	for last := false; ; {
		callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellEvery)
		err := g.reportOnce(callCtx, c, &counts)
		cancel()
		if err != nil && !silent {
			g.log.Warn("the process that serves does not answer", slog.Any("err", err))
		}
		silent = err != nil
		if last {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last = true
		}
	}
}

func (g *Gateway) reportOnce(ctx context.Context, c *operate.Client, counts *[]byte) error {
	more, now, err := g.traffic.CountsSince(*counts)
	if err == nil && more != nil {
		err = c.AddCounts(ctx, more)
	}
	if err != nil {
		return err
	}
	*counts = now
	grounds := g.traffic.Grounds()
	if grounds.Empty() {
		return nil
	}
	gone, err := c.Grounds(ctx, grounds)
	if err != nil {
		return err
	}
	g.traffic.Revoke(gone)
	return nil
}
