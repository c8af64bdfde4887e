package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/pkg/v3/featuregate"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/features"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// memberName and memberURL name the single member. Nothing listens on the address: a cluster of one talks to
	// nobody, and clients call the server's functions.
	memberName = "record"
	memberURL  = "http://127.0.0.1:2380"

	// A single member elects itself after one time-out, so a short one is a short start; with more members it would
	// have to cover their round trip.
	tick     = 20 * time.Millisecond
	election = 5 * tick

	// readyTimeout is how long it may take after etcd has read its log until it serves: an election and one write.
	readyTimeout = time.Minute

	// A piece is one entry of the Raft log. etcd keeps the entries since its last snapshot, and some more
	// for members that lag, in memory and reads them again at start: its defaults of 10,000 and 5,000 would be
	// gigabytes.
	entriesPerSnapshot = 256
	entriesBehind      = 8

	// history is how long etcd keeps what is overwritten or deleted. A backup reads at one revision, so it has to
	// end within that time.
	history = "1h"

	// startDefragMiB is how many MiB the start must be able to free for etcd to rewrite its database file then.
	startDefragMiB = 256
)

type serverOptions struct {
	dir     string
	quota   int64
	logger  *slog.Logger
	onDeath func(error) // called when etcd hits an error that it would end the process for
}

// server is an embedded etcd of one member and an in-process client to it.
type server struct {
	etcd   *embed.Etcd
	client *clientv3.Client
}

// startServer starts etcd and waits until it serves.
func startServer(ctx context.Context, opts serverOptions) (*server, error) {
	if err := os.MkdirAll(opts.dir, 0o700); err != nil {
		return nil, err
	}
	if err := waitForLog(ctx, opts.dir); err != nil {
		return nil, err
	}
	died := make(chan error, 1)
	cfg, err := embedConfig(opts, newZapLogger(opts.logger, func(err error) {
		select {
		case died <- err:
		default:
		}
		opts.onDeath(err)
	}))
	if err != nil {
		return nil, err
	}
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	// etcd runs in a goroutine of its own, because what etcd calls fatal ends the goroutine that meets it.
	started := make(chan result, 1)
	go func() {
		e, err := embed.StartEtcd(cfg)
		started <- result{e, err}
	}()
	var r result
	select {
	case r = <-started:
	case err := <-died:
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if r.err != nil {
		return nil, fmt.Errorf("start etcd: %w", r.err)
	}
	s := &server{etcd: r.etcd}
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case <-r.etcd.Server.ReadyNotify():
	case <-timeout.C:
		r.etcd.Close()
		return nil, fmt.Errorf("start etcd: it has read its log but does not serve after %v", readyTimeout)
	case err := <-died:
		return nil, fmt.Errorf("start etcd: %w", err)
	case err := <-r.etcd.Err():
		r.etcd.Close()
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		r.etcd.Close()
		return nil, context.Cause(ctx)
	}
	s.client = v3client.New(r.etcd.Server)
	return s, nil
}

// defragment rewrites the database without the pages that are free. The in-process client cannot ask for that.
func (s *server) defragment() error {
	if err := s.etcd.Server.Backend().Defrag(); err != nil {
		return fmt.Errorf("rewrite the database: %w", err)
	}
	return nil
}

// stop ends etcd and waits for it.
func (s *server) stop() {
	s.client.Close() // it has no connection whose closing could fail
	s.etcd.Close()
}

// embedConfig returns etcd's configuration for a single member without any listener.
func embedConfig(opts serverOptions, logger *zap.Logger) (*embed.Config, error) {
	u, err := url.Parse(memberURL)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = memberName, opts.dir
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	cfg.InitialCluster = cfg.InitialClusterFromName(memberName)
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)

	cfg.TickMs, cfg.ElectionMs = uint(tick/time.Millisecond), uint(election/time.Millisecond)
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = entriesPerSnapshot, entriesBehind
	cfg.QuotaBackendBytes = opts.quota
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, history
	cfg.BootstrapDefragThresholdMegabytes = startDefragMiB

	gate, ok := cfg.ServerFeatureGate.(featuregate.MutableFeatureGate)
	if !ok {
		return nil, errors.New("etcd's feature gate cannot be set")
	}
	if err := gate.SetFromMap(map[string]bool{
		string(features.InitialCorruptCheck): true,
		string(features.CompactHashCheck):    true,
	}); err != nil {
		return nil, err
	}
	return cfg, nil
}

// newZapLogger returns a logger that writes to l and calls onDeath with what etcd considers fatal, in place of
// ending the process.
func newZapLogger(l *slog.Logger, onDeath func(error)) *zap.Logger {
	hook := deathHook(onDeath)
	return zap.New(zapCore{logger: l}, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

// deathHook ends the goroutine that logged a fatal error and hands the error on. etcd holds locks at that moment, so
// that parts of it hang from then on.
type deathHook func(error)

// OnWrite implements zapcore.CheckWriteHook.
func (h deathHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(e.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", e.Message, cause)
		}
	}
	h(err)
	runtime.Goexit()
}

// zapCore writes zap's entries to a slog.Logger, one level lower: what an operator must act upon is said by the store.
type zapCore struct {
	logger *slog.Logger
	fields []zapcore.Field
}

func (c zapCore) level(l zapcore.Level) slog.Level {
	switch {
	case l > zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// Enabled implements zapcore.Core.
func (c zapCore) Enabled(l zapcore.Level) bool {
	return c.logger.Enabled(context.Background(), c.level(l))
}

// With implements zapcore.Core.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{logger: c.logger, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	level := c.level(e.Level)
	if tooEarly(e, enc.Fields) {
		level = slog.LevelDebug
	}
	if c.logger.Enabled(context.Background(), level) {
		c.logger.Log(context.Background(), level, "etcd: "+e.Message, "etcd", enc.Fields)
	}
	return nil
}

// tooEarly tells whether e is what etcd calls an error in the first seconds of a new record: it looks every few seconds
// whether the version of its database is noted there, which takes the term of the last entry, and that is not in the
// database before its first commit. It tries again, and then it works.
func tooEarly(e zapcore.Entry, fields map[string]any) bool {
	cause, ok := fields["error"].(string)
	return ok && e.Message == "failed to update storage version" && strings.HasSuffix(cause, "missing term information")
}

// Sync implements zapcore.Core.
func (c zapCore) Sync() error { return nil }
