package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/operate"
)

// Settings are what may change while a gateway runs, as its configuration file and its flags say.
type Settings struct {
	HTTPAddr, HTTPSAddr, CertFile, KeyFile string
	HTTP3                                  bool
	Listeners                              []gateway.Listener
	LogLevel                               slog.Level
}

// operating is the administration of a running gateway.
type operating struct {
	upgrading   sync.Mutex // held while another process takes over, and by changes that must not happen meanwhile
	handedOver  atomic.Bool
	heir        atomic.Pointer[successor] // that takes over at present; nil: none
	levelByHand atomic.Bool
	ending      atomic.Bool    // Stop was called
	adminServer *http.Server   // set by startOperating
	admin       sync.WaitGroup // what serves the socket
	retirement  sync.WaitGroup
	retired     chan struct{} // closed when a gateway that has handed over has finished its last connection
}

// The bounds of requests of the administration.
const (
	maxOperateBody = 64 << 10
	maxCountsBody  = 256 << 20
)

// startOperating opens the socket of the administration.
func (g *Gateway) startOperating(context.Context) error {
	g.adminServer = &http.Server{
		Handler: g.operateHandler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	g.onStop("administration", 5*time.Second, func(ctx context.Context) error {
		var err error
		if !g.handedOver.Load() {
			err = operate.Remove(g.opts.Data)
		}
		err = errors.Join(err, g.adminServer.Shutdown(ctx))
		g.admin.Wait()
		return err
	})
	return g.listenOperating()
}

// listenOperating takes the name of the socket for this process. It may be called again.
func (g *Gateway) listenOperating() error {
	l, err := operate.Listen(g.opts.Data)
	if err != nil {
		return err
	}
	g.admin.Go(func() { // ends when the server is shut down
		if err := g.adminServer.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			g.log.Error("the admin socket has ended", "err", err)
		}
	})
	return nil
}

// operateHandler answers what package operate asks.
func (g *Gateway) operateHandler() http.Handler {
	mux := http.NewServeMux()
	status := func(change func(r *http.Request) error) http.HandlerFunc {
		return g.answer(func(r *http.Request) (any, error) {
			if err := change(r); err != nil {
				return nil, err
			}
			return g.OperateStatus(), nil
		})
	}
	mux.HandleFunc("GET "+operate.PathStatus, status(func(*http.Request) error { return nil }))
	mux.HandleFunc("POST "+operate.PathDrain, status(g.change(func(*http.Request) error { return g.traffic.Drain() })))
	mux.HandleFunc("POST "+operate.PathUndrain, status(g.change(func(*http.Request) error { return g.traffic.Undrain() })))
	mux.HandleFunc("POST "+operate.PathMaintenance, status(g.decoded(g.setMaintenance)))
	mux.HandleFunc("POST "+operate.PathLogLevel, status(g.setLogLevel))
	mux.HandleFunc("POST "+operate.PathReload, status(g.change(func(r *http.Request) error { return g.Reload(r.Context()) })))
	mux.HandleFunc("GET "+operate.PathListeners, g.answer(func(*http.Request) (any, error) { return g.listeners(), nil }))
	mux.HandleFunc("POST "+operate.PathListeners, g.answer(g.addListener))
	mux.HandleFunc("DELETE "+operate.PathListeners, g.answer(g.removeListener))
	mux.HandleFunc("POST "+operate.PathUpgrade, g.answer(func(r *http.Request) (any, error) {
		var u operate.Upgrade
		if err := decode(r, &u); err != nil || dryRun(r) {
			return operate.Upgraded{OldPID: os.Getpid(), Version: g.opts.Version}, err
		}
		return g.Upgrade(context.WithoutCancel(r.Context()), u) // who asked may be gone before it is done
	}))
	mux.HandleFunc("POST "+operate.PathGrounds, g.answer(func(r *http.Request) (any, error) {
		var all gateway.Grounds
		if err := decode(r, &all); err != nil {
			return nil, err
		}
		return g.traffic.Gone(all), nil
	}))
	mux.HandleFunc("POST "+operate.PathCounts, g.answer(func(r *http.Request) (any, error) {
		b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxCountsBody))
		if err == nil {
			err = g.traffic.AddCounts(b)
		}
		return struct{}{}, err
	}))
	return mux
}

// invalid is a fault of who asks.
type invalid struct{ error }

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxOperateBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return invalid{fmt.Errorf("read the request: %w", err)}
	}
	return nil
}

func dryRun(r *http.Request) bool { return r.URL.Query().Has(operate.QueryDryRun) }

// answer makes a handler of a function.
func (g *Gateway) answer(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content, err := do(r)
		status := http.StatusOK
		if err != nil {
			status, content = refusal(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(content) // who asked may be gone
	}
}

func refusal(err error) (int, operate.Refusal) {
	r := operate.Refusal{Code: operate.CodeFailed, Message: err.Error()}
	_, bad := errors.AsType[invalid](err)
	switch {
	case bad:
		r.Code = operate.CodeInvalid
		return http.StatusBadRequest, r
	case errors.Is(err, gateway.ErrNoListener):
		r.Code = operate.CodeNotFound
		return http.StatusNotFound, r
	case errors.Is(err, gateway.ErrListenerExists), errors.Is(err, gateway.ErrStopping), errors.Is(err, ErrBusy):
		r.Code = operate.CodeConflict
		return http.StatusConflict, r
	}
	return http.StatusInternalServerError, r
}

// change makes a change that must not happen during a handover, unless it is only tried.
func (g *Gateway) change(do func(*http.Request) error) func(*http.Request) error {
	return func(r *http.Request) error {
		if !g.upgrading.TryLock() {
			return ErrBusy
		}
		defer g.upgrading.Unlock()
		if g.handedOver.Load() {
			return ErrBusy
		}
		if dryRun(r) {
			return nil
		}
		return do(r)
	}
}

// decoded is change for the switch of maintenance.
func (g *Gateway) decoded(do func(on bool) error) func(*http.Request) error {
	return func(r *http.Request) error {
		var m operate.Maintenance
		if err := decode(r, &m); err != nil {
			return err
		}
		return g.change(func(*http.Request) error { return do(m.On) })(r)
	}
}

// OperateStatus returns what the gateway says of itself.
func (g *Gateway) OperateStatus() operate.Status {
	s := operate.Status{Status: g.traffic.Status(), PID: os.Getpid(), Addresses: g.traffic.Addresses()}
	s.Drained = s.Draining && s.Connections == 0
	if g.opts.Level != nil {
		s.LogLevel = levelName(g.opts.Level.Level())
	}
	_, s.Checks = g.traffic.Ready()
	return s
}

// setLogLevel changes the level of the log.
func (g *Gateway) setLogLevel(r *http.Request) error {
	var l operate.LogLevel
	if err := decode(r, &l); err != nil {
		return err
	}
	level, err := ParseLevel(l.Level)
	switch {
	case err != nil:
		return invalid{err}
	case g.opts.Level == nil:
		return errors.New("the log level of this process cannot be changed")
	case dryRun(r):
		return nil
	}
	g.opts.Level.Set(level)
	g.levelByHand.Store(true)
	g.log.Log(r.Context(), max(level, slog.LevelInfo), "log level", "level", levelName(level))
	return nil
}

// ParseLevel reads a level of the log.
func ParseLevel(text string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if levelName(l) == text {
			return l, nil
		}
	}
	return 0, fmt.Errorf(`the log level must be "debug", "info", "warn" or "error", not %q`, text)
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// maintenanceFile is there while the gateway is under maintenance, so that a restart does not end that.
const maintenanceFile = "maintenance"

func (g *Gateway) setMaintenance(on bool) error {
	path := g.folder.Path(maintenanceFile)
	var err error
	if on {
		err = os.WriteFile(path, nil, 0o600)
	} else if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	g.traffic.SetMaintenance(on)
	if err != nil {
		return fmt.Errorf("maintenance is as you want it, but only until a restart: %w", err)
	}
	return nil
}

// loadMaintenance takes maintenance up again.
func (g *Gateway) loadMaintenance() error {
	_, err := os.Stat(g.folder.Path(maintenanceFile))
	if err == nil {
		g.traffic.SetMaintenance(true)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return err
}

// Reload reads the settings again and opens the access log anew.
func (g *Gateway) Reload(ctx context.Context) error {
	logErr := g.traffic.ReopenLog()
	if g.opts.Reload == nil {
		return logErr
	}
	s, err := g.opts.Reload()
	if err != nil {
		return errors.Join(logErr, invalid{fmt.Errorf("read the settings again: %w", err)})
	}
	if g.opts.Level != nil && !g.levelByHand.Load() {
		g.opts.Level.Set(s.LogLevel)
	}
	want := append(gateway.StandardListeners(s.HTTPAddr, s.HTTPSAddr, s.CertFile, s.KeyFile, s.HTTP3), s.Listeners...)
	if err := g.traffic.SetListeners(ctx, append(want, without(g.addedListeners(), want)...)); err != nil {
		return errors.Join(logErr, err)
	}
	g.opts.HTTPAddr, g.opts.HTTPSAddr, g.opts.CertFile, g.opts.KeyFile, g.opts.Listeners = s.HTTPAddr, s.HTTPSAddr, s.CertFile, s.KeyFile, s.Listeners
	g.opts.HTTP3 = s.HTTP3
	g.log.InfoContext(ctx, "settings read again", "listeners", len(want))
	return logErr
}

// addedListeners returns the listeners that were added by hand.
func (g *Gateway) addedListeners() []gateway.Listener {
	return without(g.traffic.Listeners(), append(gateway.StandardListeners(g.opts.HTTPAddr, g.opts.HTTPSAddr, "", "", false), g.opts.Listeners...))
}

func (g *Gateway) listeners() operate.Listeners {
	out := operate.Listeners{Items: []operate.Listener{}}
	bound := g.traffic.Addresses()
	for _, l := range g.traffic.Listeners() {
		out.Items = append(out.Items, operate.Listener{Listener: l, Bound: bound[l.Name]})
	}
	return out
}

func (g *Gateway) addListener(r *http.Request) (any, error) {
	var l gateway.Listener
	if err := decode(r, &l); err != nil {
		return nil, err
	}
	if err := l.Validate(); err != nil {
		return nil, invalid{err}
	}
	err := g.change(func(*http.Request) error { return g.traffic.AddListener(r.Context(), l) })(r)
	return g.listeners(), err
}

func (g *Gateway) removeListener(r *http.Request) (any, error) {
	name := r.URL.Query().Get("name")
	if dryRun(r) && !slices.ContainsFunc(g.traffic.Listeners(), func(l gateway.Listener) bool { return l.Name == name }) {
		return nil, fmt.Errorf("listener %q: %w", name, gateway.ErrNoListener)
	}
	err := g.change(func(*http.Request) error { return g.traffic.RemoveListener(r.Context(), name) })(r)
	return g.listeners(), err
}
