package mux

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/x/flush"
	"hansa.dev/hansa/internal/x/guard"
	"hansa.dev/hansa/internal/x/sweep"
)

const (
	bufferSize = 4 << 10
	// streamWindow and connWindow bound what is taken in of bodies that nobody has asked for yet.
	streamWindow = 256 << 10
	connWindow   = 4 << 20
	// maxOut is how much may wait to be written before whoever has more waits, too.
	maxOut  = 64 << 10
	keepOut = maxOut + h2.MaxFrame + 1<<10
	// farewell is how long the last frames to a backend may take.
	farewell = time.Second
	// lookAfter is how often a connection is read from though nothing seems to be there: an end that comes together with data is
	// not seen otherwise.
	lookAfter = time.Second
	// maxStreams bounds the requests on one connection, whatever the backend allows; until it has said so, firstStreams.
	maxStreams   = 1000
	firstStreams = 100
	// hesitation is how long the answer to a ping may take before no more requests are sent on the connection.
	hesitation = 2 * time.Second
	// calm is how far apart pings are at most. Servers of gRPC end a connection after the third ping that comes within five
	// minutes of the one before, unless they have sent a frame of a response meanwhile (gRPC A8, A9).
	calm = 5*time.Minute + 10*time.Second
)

// Options configure a Conn.
type Options struct {
	// TCP is the connection, and Stream what frames are read from and written to: TLS on top of TCP, or TCP itself.
	TCP    *sweep.Conn
	Stream io.ReadWriter
	// Sweeper keeps the deadlines.
	Sweeper *sweep.Sweeper
	// Bodies is buffers for reading.
	Bodies *h1.Pool
	// Limits bound the head of a response.
	Limits h1.Limits
	// Write is how long the backend may take to accept what is written.
	Write time.Duration
	// Ping is after how long a silence the backend is asked whether it is still there while requests wait for it, and Pong
	// how long it may take to answer.
	Ping, Pong time.Duration
	// Guard catches what panics while frames are written, at the price of the connection. Who runs Serve sees to the rest.
	Guard *guard.Guard
	// Changed is called when the connection can take more requests than before, or will take no more, with the locks of the
	// connection held.
	Changed func()
}

// What ends a request, besides the Fault of a response.
var (
	// ErrUnprocessed: the backend has not processed any of the request, and never will. It may be sent again.
	ErrUnprocessed = errors.New("the backend did not process the request")
	// ErrReset: the stream or the connection was broken off.
	ErrReset = errors.New("the backend broke off the stream")
	// ErrTimeout: the backend took too long.
	ErrTimeout = errors.New("the backend took too long")
	// ErrProtocol: the response cannot be understood.
	ErrProtocol = errors.New("the backend sent what cannot be understood")
	// ErrTooLarge: the head of the response is larger than the limit.
	ErrTooLarge = errors.New("the head of the response is too large")
	// ErrCancelled: Interrupt was called, and the exchange is cancelled.
	ErrCancelled = errors.New("the exchange was cancelled")
)

// Conn is a connection to a backend. Make it with New, and run Serve.
type Conn struct {
	opts  Options
	plain bool

	// What follows belongs to the goroutine of Serve.
	buf     []byte
	small   []byte
	filled  int
	large   *[h1.LargeBuffer]byte
	decoder *h2.Decoder
	scrap   received
	budget  h2.Budget
	settled bool
	block   h2.Block
	data    incoming

	finished atomic.Bool

	mu      sync.Mutex // guards what follows
	streams map[uint32]*Stream
	next    uint32 // number of the next stream
	most    int    // streams at a time
	window  h2.Window
	initial h2.Window
	credit  h2.Credit
	update  bool
	tunnels bool // the backend takes extended CONNECT
	away    bool // no more streams can be opened
	pinging bool // an answer to a ping is awaited
	pings   int  // that were sent since the last frame of a response
	doubt   bool // a stream was given up, and nothing has been heard since it was opened
	heard   time.Duration
	asked   time.Duration // when the last ping was sent
	since   time.Duration // without streams since
	uses    int
	w       flush.Buffer
	waiters []*Stream
	alarm   sweep.Alarm
}

type incoming struct {
	stream        uint32
	left, padding int
	end           bool
}

// New returns a connection on which requests can be sent at once. What the backend sends is read by Serve.
func New(o Options) *Conn {
	b := make([]byte, bufferSize)
	c := &Conn{
		opts: o, plain: o.Stream == io.ReadWriter(o.TCP), buf: b, small: b, decoder: h2.NewDecoder(), streams: map[uint32]*Stream{},
		next: 1, most: firstStreams, window: h2.DefaultWindow, initial: h2.DefaultWindow, credit: h2.NewCredit(connWindow), update: true,
	}
	c.budget.Reset(o.Sweeper.Now())
	c.heard = o.Sweeper.Now()
	c.w = flush.Buffer{Mu: &c.mu, Write: c.write, Taken: c.wakeWaitersLocked, Failed: c.failedLocked, Guard: o.Guard, Keep: keepOut}
	o.TCP.Owner = c
	_, _ = o.TCP.Send(nil) // prepares for sending from another goroutine
	o.Sweeper.AddAlarm(&c.alarm, c.ping)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w.Out = append(c.w.Out, h2.Preface...)
	c.w.Out = h2.AppendSettings(c.w.Out,
		h2.SettingValue{Setting: h2.EnablePush, Value: 0},
		h2.SettingValue{Setting: h2.InitialWindowSize, Value: streamWindow},
		h2.SettingValue{Setting: h2.MaxHeaderListSize, Value: uint32(o.Limits.Head)},
	)
	c.w.Out = h2.AppendWindowUpdate(c.w.Out, 0, connWindow-h2.DefaultWindow)
	c.w.Kick()
	return c
}

// Cancelled implements sweep.Owner.
func (c *Conn) Cancelled() bool { return c.finished.Load() }

// Serve reads what the backend sends until the connection ends, and closes it. Requests that are under way then fail.
func (c *Conn) Serve() {
	defer c.end()
	buffer, handle := c.buffer, c.handle
	if c.plain {
		for {
			c.opts.TCP.ArmRead(lookAfter)
			err := c.opts.TCP.Loop(nil, buffer, handle)
			if err == nil || !errors.Is(err, sweep.ErrTimeout) {
				return
			}
		}
	}
	c.opts.TCP.ArmRead(0)
	for {
		n, err := c.opts.Stream.Read(buffer())
		if n > 0 && handle(n) == sweep.Leave || n == 0 && err != nil {
			return
		}
	}
}

func (c *Conn) buffer() []byte { return c.buf[c.filled:] }

func (c *Conn) handle(n int) sweep.Next {
	c.filled += n
	used, err := c.parse(c.buf[:c.filled])
	if err != nil {
		c.fail(err)
		return sweep.Leave
	}
	full := c.filled == len(c.buf)
	c.filled = copy(c.buf, c.buf[used:c.filled])
	switch {
	case full && c.large == nil:
		c.large = c.opts.Bodies.Get()
		copy(c.large[:], c.buf[:c.filled])
		c.buf = c.large[:]
	case c.large != nil && c.filled == 0 && used < bufferSize/2:
		c.opts.Bodies.Put(c.large)
		c.large, c.buf = nil, c.small
	}
	if c.finished.Load() {
		return sweep.Leave
	}
	return sweep.Wait
}

// fail ends the connection for a fault of the backend.
func (c *Conn) fail(err error) {
	fault := &h2.Fault{Code: h2.InternalError}
	errors.As(err, &fault)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
	c.w.Out = h2.AppendGoAway(c.w.Out, 0, fault.Code, fault.Detail)
	c.w.Kick()
	for id, s := range c.streams {
		delete(c.streams, id)
		s.endLocked(ErrProtocol)
	}
}

// end lets go of everything.
func (c *Conn) end() {
	c.endStreams()
	c.alarm.Remove()
	_ = c.opts.TCP.Close() // nothing is lost that was not lost before
	if c.large != nil {
		c.opts.Bodies.Put(c.large)
	}
	c.opts.Changed()
}

// endStreams ends what is under way. What has been said to the backend arrives.
func (c *Conn) endStreams() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
	for id, s := range c.streams {
		delete(c.streams, id)
		s.endLocked(ErrReset)
	}
	// A backend that has stopped reading must not hold this up. The sweeper may have ended already.
	cut := time.AfterFunc(farewell, func() { _ = c.opts.TCP.Conn.Close() })
	defer cut.Stop()
	c.w.End()
}

// write writes frames to the backend.
func (c *Conn) write(p []byte) (err error) {
	c.opts.TCP.ArmWrite(c.opts.Write)
	if c.plain {
		_, err = c.opts.TCP.Send(p)
	} else {
		_, err = c.opts.Stream.Write(p)
	}
	return err
}

func (c *Conn) failedLocked(error) {
	c.away = true
	for id, s := range c.streams {
		delete(c.streams, id)
		s.endLocked(ErrReset)
	}
	c.wakeWaitersLocked()
	c.finish()
}

func (c *Conn) finish() {
	c.finished.Store(true)
	c.opts.TCP.Interrupt()
}

func (c *Conn) wakeWaitersLocked() {
	for i, s := range c.waiters {
		s.queued = false
		s.cond.Broadcast()
		c.waiters[i] = nil
	}
	c.waiters = c.waiters[:0]
}

// Close ends the connection once the requests on it have ended: no more are taken.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
	c.retireLocked()
}

// retireLocked ends a connection that takes no more requests and has none.
func (c *Conn) retireLocked() {
	if c.away && len(c.streams) == 0 && !c.finished.Load() {
		c.w.Out = h2.AppendGoAway(c.w.Out, 0, h2.NoError, "")
		c.w.Kick()
		c.finish()
	}
}

// State is how a connection does.
type State struct {
	// Away tells that it takes no more requests.
	Away bool
	// Streams is the number of requests on it, and Free how many more it takes.
	Streams, Free int
	// Idle is since when it has had no request, on the clock of the sweeper, if it has none.
	Idle time.Duration
	// Uses is how many requests it has had.
	Uses int
	// Tunnels tells that the backend takes extended CONNECT.
	Tunnels bool
}

// State returns how the connection does.
func (c *Conn) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return State{c.away, len(c.streams), max(c.most-len(c.streams), 0), c.since, c.uses, c.tunnels}
}

// ping is called by the alarm: it asks a backend that has been silent while requests wait for it whether it is still there,
// and ends the connection to one that has not answered.
func (c *Conn) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 && !c.doubt && !c.pinging {
		return
	}
	now := c.opts.Sweeper.Now()
	next := c.asked + c.opts.Pong
	if !c.pinging {
		next = c.heard + c.opts.Ping
		if c.pings > 0 {
			next = max(next, c.asked+min(c.opts.Ping<<(3*min(c.pings, 3)), calm))
		}
	}
	switch {
	case now < next:
		c.alarm.Arm(next - now)
	case c.pinging:
		c.w.Break()
		c.failedLocked(ErrTimeout)
	default:
		c.w.Out = h2.AppendPing(c.w.Out, false, [8]byte{'h', 'a', 'n', 's', 'a'})
		c.w.Kick()
		c.pinging, c.asked = true, now
		c.pings++
		c.alarm.Arm(c.opts.Pong)
	}
}

// silentLocked tells whether the backend is likely to be gone, so that requests are better sent on another connection.
func (c *Conn) silentLocked() bool {
	if !c.pinging && !c.doubt {
		return false
	}
	now := c.opts.Sweeper.Now()
	return c.pinging && now-c.asked > hesitation || c.doubt && now-c.heard > c.opts.Ping+hesitation
}

// hearLocked notes that the backend has sent something.
func (c *Conn) hearLocked() {
	if c.pinging || c.doubt {
		c.pinging, c.doubt = false, false
		c.opts.Changed()
	}
	c.heard = c.opts.Sweeper.Now()
}

// answeredLocked notes that the backend has sent a frame of a response.
func (c *Conn) answeredLocked() {
	if c.pings > 0 {
		c.pings = 0
		c.alarm.Arm(c.opts.Ping)
	}
}

// received is a header block that was received.
type received struct {
	message h2.Message
	head    exchange.Head
}
