package sweep

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hansa.dev/hansa/internal/x/guard"
)

// start runs a Sweeper over one end of a pipe, in fake time, and returns both ends.
func start(t *testing.T) (*Sweeper, *Conn, net.Conn) {
	t.Helper()
	s := New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	here, there := net.Pipe()
	c := new(Conn)
	s.Add(c, here)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		there.Close()
		cancel()
		<-done
		if s.Len() != 0 {
			t.Errorf("%d connections are left", s.Len())
		}
	})
	return s, c, there
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	f := func(name string, arm func(*Conn, time.Duration), use func(*Conn) error) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, c, _ := start(t)
				for _, d := range []time.Duration{1, 50 * time.Millisecond, time.Second, time.Minute} {
					begin := time.Now()
					arm(c, d)
					if err := use(c); !errors.Is(err, ErrTimeout) {
						t.Errorf("after %v: %v, want ErrTimeout", d, err)
					}
					if took := time.Since(begin); took < d || took > d+2*Tick {
						t.Errorf("a deadline of %v fired after %v", d, took)
					}
				}
			})
		})
	}
	f("read", (*Conn).ArmRead, func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err })
	f("write", (*Conn).ArmWrite, func(c *Conn) error { _, err := c.Write(make([]byte, 1)); return err })
}

// TestSpuriousWake shows that wakings without need are not seen, nor lost bytes.
func TestSpuriousWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, c, there := start(t)
		c.ArmRead(time.Hour)
		c.ArmWrite(time.Hour)
		go func() {
			for range 5 {
				c.Interrupt()
				_ = c.Conn.SetWriteDeadline(aLongTimeAgo)
				time.Sleep(time.Second)
			}
			if _, err := io.ReadFull(there, make([]byte, 2)); err != nil {
				t.Errorf("peer: %v", err)
			}
			for range 3 {
				c.Interrupt()
				time.Sleep(time.Second)
			}
			if _, err := there.Write([]byte("ab")); err != nil {
				t.Errorf("peer: %v", err)
			}
		}()
		if n, err := c.Write([]byte("xy")); n != 2 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
		p := make([]byte, 2)
		if n, err := c.Read(p); n != 2 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
	})
}

type flag struct{ atomic.Bool }

func (f *flag) Cancelled() bool { return f.Load() }

func TestCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, c, _ := start(t)
		var owner flag
		c.Owner = &owner
		go func() {
			time.Sleep(time.Second)
			owner.Store(true)
			c.Interrupt()
		}()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrCancelled) {
			t.Errorf("Read: %v, want ErrCancelled", err)
		}
	})
}

// TestLateWake shows that a deadline which passes while nobody waits is forgotten once another is armed.
func TestLateWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c, there := start(t)
		c.ArmRead(time.Second)
		c.ArmWrite(time.Second)
		time.Sleep(5 * time.Second)
		if now := s.Now(); now < 4*time.Second || now > 5*time.Second {
			t.Errorf("Now = %v", now)
		}
		c.ArmRead(time.Second)
		c.ArmWrite(time.Second)
		go func() {
			_, _ = there.Write([]byte("a"))
			_, _ = io.ReadFull(there, make([]byte, 1))
		}()
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		if n, err := c.Write([]byte("x")); n != 1 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	})
}

func BenchmarkArm(b *testing.B) {
	s := New()
	here, there := net.Pipe()
	var c Conn
	s.Add(&c, here)
	b.ReportAllocs()
	for b.Loop() {
		c.ArmRead(time.Second)
	}
	there.Close()
	c.Close()
}

// TestPanic has an alarm panic: the others ring.
func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New()
		s.Guard = guard.New(slog.New(slog.DiscardHandler), nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		var alarms [2 * shards]Alarm
		rung := 0
		for i := range alarms {
			s.AddAlarm(&alarms[i], func() {
				rung++
				panic("on purpose")
			})
			alarms[i].Arm(time.Second)
		}
		time.Sleep(2 * time.Second)
		cancel()
		<-done
		if rung != len(alarms) {
			t.Errorf("%d of %d alarms have rung", rung, len(alarms))
		}
	})
}
