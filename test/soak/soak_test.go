package soak

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/operate"
)

// shortSoak is how long the ordinary tests run.
const shortSoak = 15 * time.Second

// TestSoak changes everything about a gateway under traffic.
func TestSoak(t *testing.T) {
	duration := shortSoak
	if text := os.Getenv("HANSA_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("HANSA_SOAK: %v", err)
		}
	}
	s := &soak{rig: newRig(t), samples: make(map[string][]sample)}
	before := s.serving()
	s.traffic = startTraffic(s.rig, protocols())
	t.Cleanup(s.traffic.cease)
	s.run(duration)
	s.drain()
	s.traffic.end(t)
	s.finish(before)
	for _, who := range s.order {
		judgeAll(t, who, s.samples[who])
	}
}

// soak is one run.
type soak struct {
	*rig
	traffic *traffic
	retired []int // processes that have handed over
	extra   []pinned
	samples map[string][]sample // by role and process
	order   []string
}

// run makes changes for a time: some every second, two upgrades, and in between it takes the gateway out of service and back.
func (s *soak) run(duration time.Duration) {
	s.t.Helper()
	plan := []struct {
		at time.Duration
		do func()
	}{{duration / 3, s.handOver}, {duration / 2, s.drain}, {2 * duration / 3, s.handOver}}
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	changes := 0
	for time.Since(began) < duration || len(plan) > 0 {
		<-tick.C
		changes++
		s.change(changes)
		if len(plan) > 0 && time.Since(began) > plan[0].at {
			plan[0].do()
			plan = plan[1:]
		}
		s.sample()
	}
	s.t.Logf("%d changes in %v", changes, time.Since(began).Round(time.Second))
}

// sample notes what the processes use.
func (s *soak) sample() {
	s.t.Helper()
	note := func(who string, pid int, serving bool) {
		if one, ok := s.take(pid, serving); ok {
			if s.samples[who] == nil {
				s.order = append(s.order, who)
			}
			s.samples[who] = append(s.samples[who], one)
		}
	}
	for i, pid := range s.retired {
		note(fmt.Sprintf("process %d, after it has handed over", i+1), pid, false)
	}
	note(fmt.Sprintf("process %d", len(s.retired)+1), s.pid(), true)
}

// serving is what the process that serves uses.
func (s *soak) serving() sample {
	s.t.Helper()
	one, ok := s.take(s.pid(), true)
	if !ok {
		s.t.Fatal("the process is gone")
	}
	return one
}

// upgrading is what handOver is in the history, until HTTP/3 is back.
const upgrading = "upgrade"

// handOver upgrades the gateway. New requests must be served at once, those of HTTP/3 soon: the old process lets go of its port
// after a second, and the new one looks for it ten times a second.
func (s *soak) handOver() {
	s.t.Helper()
	s.history.record(upgrading, func() {
		s.retired = append(s.retired, s.upgrade())
		began := time.Now()
		eventually(s.t, "upgrade", s.answersHTTP3)
		s.t.Logf("HTTP/3 answers %v after the upgrade", time.Since(began).Round(time.Millisecond))
	})
}

// drain takes the gateway out of service, long enough for idle connections to be closed, and back. Streams and tunnels go on,
// and so it is not drained.
func (s *soak) drain() {
	s.t.Helper()
	s.history.record("drain", func() {
		if _, err := s.admin.Drain(s.t.Context()); err != nil {
			s.t.Errorf("drain: %v", err)
		}
		<-time.After(drainDelay + time.Second)
		st, err := s.admin.Status(s.t.Context())
		if err != nil || !st.Draining || st.Drained || st.Streams == 0 {
			s.t.Errorf("while it drains: %+v, %v", st, err)
		}
		if _, err := s.admin.Undrain(s.t.Context()); err != nil {
			s.t.Errorf("undrain: %v", err)
		}
	})
}

// finish ends the processes and sees that nothing is left of the traffic: each process that has handed over ends by itself,
// the one that serves is as small as the first was before, can be drained, and ends with SIGTERM.
func (s *soak) finish(before sample) {
	t := s.t
	t.Helper()
	for _, p := range s.extra {
		p.stream.c.Close()
	}
	for _, pid := range s.retired {
		eventually(t, "the end of a process that has handed over", gone(pid))
	}
	if len(s.retired) != 2 {
		t.Errorf("%d upgrades", len(s.retired))
	}
	if _, err := s.admin.Drain(t.Context()); err != nil {
		t.Errorf("drain: %v", err)
	}
	eventually(t, "drained", func() error {
		st, err := s.admin.Status(t.Context())
		if err == nil && !st.Drained {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
	eventually(t, "what the traffic leaves behind", func() error {
		now := s.serving()
		if now.goroutines > before.goroutines+slackCount || now.fds > before.fds+slackCount {
			return fmt.Errorf("%+v, before it was %+v", now, before)
		}
		return nil
	})
	pid := s.pid()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Errorf("end the process: %v", err)
	}
	eventually(t, "the end of the last process", gone(pid))
}

// change makes the changes of second n.
func (s *soak) change(n int) {
	s.t.Helper()
	ctx := s.t.Context()
	s.history.record(fmt.Sprintf("change %d", n), func() {
		s.apply(s.changing(n))
		eventually(s.t, "configuration", func() error { return s.marked(n) })
	})
	s.history.record(fmt.Sprintf("reload %d", n), func() {
		s.writeConfig(n)
		if _, err := s.admin.Reload(ctx); err != nil {
			s.t.Errorf("reload: %v", err)
		}
	})
	switch n % 4 {
	case 0:
		s.history.record("certificate", func() {
			serial := s.newCertificate()
			eventually(s.t, "certificate", func() error { return s.shows(serial) })
		})
	case 1:
		s.history.record("add a listener", s.addListener)
	case 2:
		s.history.record("log level", func() {
			if _, err := s.admin.SetLogLevel(ctx, []string{"debug", "info"}[n/4%2]); err != nil {
				s.t.Errorf("log level: %v", err)
			}
		})
	case 3:
		s.history.record("remove a listener", s.removeListener)
	}
}

const extraListener = "extra"

// addListener opens one more listener, and streams on it.
func (s *soak) addListener() {
	s.t.Helper()
	all, err := s.admin.AddListener(s.t.Context(), gateway.Listener{Name: extraListener, Address: "127.0.0.1:0"})
	if err != nil {
		s.t.Errorf("add a listener: %v", err)
		return
	}
	i := slices.IndexFunc(all.Items, func(l operate.Listener) bool { return l.Name == extraListener })
	at := all.Items[i].Bound
	for _, open := range []func() (pinned, error){
		func() (pinned, error) {
			e, err := s.openEvents(at, "/soak", "", "extra", endless)
			return pinned{"events on a listener that comes and goes", e, e.event}, err
		},
		func() (pinned, error) {
			w, err := s.openTalk(at, "/soak2", "", "extra")
			return pinned{"a tunnel on a listener that comes and goes", w, w.say}, err
		},
	} {
		p, err := open()
		if err != nil {
			s.t.Errorf("%s: %v", p.name, err)
			continue
		}
		s.extra = append(s.extra, p)
	}
	s.more()
}

// more reads from the streams of the listener that comes and goes.
func (s *soak) more() {
	s.t.Helper()
	for _, p := range s.extra {
		if err := p.more(); err != nil {
			s.t.Errorf("%s: %v", p.name, err)
		}
	}
}

// removeListener removes it. Its streams go on.
func (s *soak) removeListener() {
	s.t.Helper()
	if _, err := s.admin.RemoveListener(s.t.Context(), extraListener); err != nil {
		s.t.Errorf("remove a listener: %v", err)
	}
	for range 10 {
		s.more()
	}
	for _, p := range s.extra {
		p.stream.c.Close()
	}
	s.extra = nil
}

// marked returns nil once change n is in force.
func (r *rig) marked(n int) error {
	c, err := r.dial("http")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = get(c, bufio.NewReader(c), "/marker", fmt.Sprint(n))
	return err
}

// shows returns nil once new connections see the certificate with that number.
func (r *rig) shows(serial int64) error {
	c, err := r.open("https")
	if err != nil {
		return err
	}
	defer c.Close()
	certs := c.(*tls.Conn).ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return errors.New("there is no certificate")
	}
	if got := certs[0].SerialNumber.Int64(); got != serial {
		return fmt.Errorf("certificate %d, want %d", got, serial)
	}
	return nil
}
