// Package guard keeps a panic to what panicked: a request, a connection, a check. The rest of the process goes on, the fault is
// counted, and logged with its stack once a minute for every place that it comes from.
//
// There is one boundary for each goroutine of the data plane, and it is a deferred [Guard.Catch]. What is held when something
// panics must be let go of by whoever holds it, as for any other return: locks by a deferred Unlock, the rest by what is given
// to Catch. Faults that the runtime does not let anybody recover from, such as unlocking what is not locked, end the process
// all the same.
package guard

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// interval is how long after a panic was logged others from the same place are only counted.
const interval = time.Minute

// Counter counts panics; one of Prometheus, mostly.
type Counter interface{ Inc() }

// Guard is told of panics. Make it with New; it may be used by any goroutine. A nil *Guard catches nothing.
type Guard struct {
	log   *slog.Logger
	count Counter

	mu    sync.Mutex
	sites map[string]*site // guarded by mu; places in the code, so there is no end of it to fear
}

// site is a place in the code that something has panicked at.
type site struct {
	logged     time.Time
	suppressed int
}

// New returns a Guard that logs to log. count may be nil.
func New(log *slog.Logger, count Counter) *Guard {
	return &Guard{log: log, count: count, sites: map[string]*site{}}
}

// Catch ends a panic. It must itself be deferred, and not be called by something that is. what panicked is named as the subject
// of a sentence: "reading a connection". If then is not nil it is called after a panic, to let go of what is left; should that
// panic, too, no harm is done.
func (g *Guard) Catch(what string, then func()) {
	if g == nil {
		return
	}
	v := recover()
	if v == nil {
		return
	}
	g.Caught(v, what)
	if then != nil {
		defer g.Catch(what+", and letting go of it,", nil)
		then()
	}
}

// known is a panic that has been logged.
type known struct{ value any }

// Again goes on with a panic that was given to Caught: who catches it next does not log it once more.
func Again(v any) { panic(known{v}) }

// Caught counts and logs the value that was recovered from a panic, for whoever needs to recover by itself.
func (g *Guard) Caught(v any, what string, attrs ...any) {
	if g.count != nil {
		g.count.Inc()
	}
	if _, ok := v.(known); ok {
		return
	}
	from := panicSite()
	suppressed, ok := g.allow(from, time.Now())
	if !ok {
		return
	}
	g.log.Error(what+" panicked", append([]any{
		slog.Any("panic", v), slog.String("site", from), slog.Int("suppressed", suppressed), slog.String("stack", string(debug.Stack())),
	}, attrs...)...)
}

// allow tells whether a panic at that place is to be logged now, and how many were not since the last one that was.
func (g *Guard) allow(from string, now time.Time) (suppressed int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sites[from]
	switch {
	case s == nil:
		s = &site{}
		g.sites[from] = s
	case now.Sub(s.logged) < interval:
		s.suppressed++
		return 0, false
	}
	suppressed = s.suppressed
	*s = site{logged: now}
	return suppressed, true
}

// panicSite names the function that panicked and its line.
func panicSite() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	inPanic := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			inPanic = true
		case inPanic && !isRuntime(f.Function):
			return f.Function + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return "unknown"
		}
	}
}

func isRuntime(function string) bool { return len(function) > 8 && function[:8] == "runtime." }
