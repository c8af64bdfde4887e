package http2

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/flush"
	"hansa.dev/hansa/internal/x/sweep"
)

const (
	// bufferSize is what buffers begin with.
	bufferSize = 4 << 10
	// parkedSize is what a parked connection reads a first piece into.
	parkedSize = 64
	// streamWindow and connWindow bound what is taken in of bodies that nobody has asked for yet.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	// maxOut is how much may wait to be written before whoever has more waits, too.
	maxOut = 64 << 10
	// keepOut bounds the memory for writing that is kept.
	keepOut = maxOut + h2.MaxFrame + 1<<10
)

// conn is the connection of one client.
type conn struct {
	srv    *Server
	tcp    *sweep.Conn
	stream io.ReadWriter // on top of tcp
	plain  bool          // stream is tcp
	scheme string
	tls    *exchange.TLS
	client ingress.Client
	wg     sync.WaitGroup // the goroutines that serve streams

	finished atomic.Bool // the reading goroutine must come to its end
	gone     atomic.Bool // so must everybody: nobody is there any more

	// What follows belongs to the goroutine that reads.
	*work    // nil while the connection is parked
	ids      exchange.IDGenerator
	decoder  *h2.Decoder
	scrap    *scrap // for header blocks that nobody wants
	budget   h2.Budget
	now      time.Time // of the last read
	prefaced int       // how much of the client's preface has come
	settled  bool      // the client's settings have come
	data     incoming  // the DATA frame that is being read
	block    h2.Block  // the header block that is being read
	parked   [parkedSize]byte

	mu        sync.Mutex         // guards what follows
	streams   map[uint32]*stream // those that frames may be about
	idle      []*stream          // with a goroutine that waits
	workers   int                // goroutines that serve streams
	active    int                // of those, the ones that do
	since     time.Duration      // when active was last above 0, on the clock of the sweeper, or the connection began
	maxID     uint32             // the highest number of a stream that the client has opened
	recent    recent
	window    h2.Window // of the connection, for sending
	initial   h2.Window // of a stream, for sending
	credit    h2.Credit
	update    bool // the next header block must say that the table is empty
	earned    int  // for the budget
	partial   bool // a frame or a header block has begun and not ended
	away      bool // the client has been told, or must be told at once, to open no more streams
	awaySaid  bool // and has been told so
	awayFinal bool // and which was the last that will be served
	lastID    uint32
	awayAlarm sweep.Alarm
	awayArmed bool

	w       flush.Buffer // frames that wait to be written
	waiters []*stream    // that wait for room in it, or for window
	closing bool         // the reading goroutine has ended
}

// work is what a connection needs while it is not parked.
type work struct {
	buf          []byte // buf[:filled] has been read and not been understood
	filled       int
	small        []byte                // what buf is, unless more is needed
	large        *[h1.LargeBuffer]byte // the buffer, if it came from the pool
	out, writing []byte                // those of the conn, while nobody uses them
}

// scrap takes up what is decoded for the sake of the table alone.
type scrap struct {
	message h2.Message
	head    exchange.Head
}

func newConn(s *Server, info Conn) *conn {
	c := &conn{
		srv: s, tcp: info.TCP, stream: info.Stream, scheme: info.Scheme, tls: info.TLS, client: s.Client(info.Peer),
		decoder: h2.NewDecoder(), streams: make(map[uint32]*stream), update: true,
		window: h2.DefaultWindow, initial: h2.DefaultWindow, credit: h2.NewCredit(connWindow),
		plain: info.Stream == io.ReadWriter(info.TCP), since: s.Sweeper.Now(),
	}
	c.w = flush.Buffer{Mu: &c.mu, Write: c.write, Taken: c.wakeWaitersLocked, Failed: c.breakLocked, Guard: s.guard, Keep: keepOut}
	c.budget.Reset(s.Sweeper.Now())
	seed(&c.ids)
	c.unpark()
	c.reserve(len(info.Read))
	c.filled = copy(c.buf, info.Read)
	return c
}

// Cancelled implements sweep.Owner: it tells whoever was woken from reading whether to give up.
func (c *conn) Cancelled() bool { return c.finished.Load() }

// serve reads frames until the connection ends. What panics here is a fault of the gateway, and costs the connection.
func (c *conn) serve() {
	c.tcp.Owner = c
	defer c.end()
	defer c.srv.guard.Catch("reading a connection", c.cut)
	c.greet()
	if c.filled > 0 && c.advance() == sweep.Leave {
		return
	}
	buffer, handle := c.buffer, c.handle // made once: each is an allocation
	for {
		err := c.pull(buffer, handle)
		switch {
		case err == nil:
			return
		case !errors.Is(err, sweep.ErrTimeout):
			if !errors.Is(err, sweep.ErrCancelled) {
				c.gone.Store(true)
			}
			return
		case !c.timedOut():
			return
		}
	}
}

// greet sends the settings. Its write is the first one, before anybody else can write.
func (c *conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w.Out = h2.AppendSettings(c.w.Out,
		h2.SettingValue{Setting: h2.MaxConcurrentStreams, Value: uint32(c.srv.MaxStreams)},
		h2.SettingValue{Setting: h2.InitialWindowSize, Value: streamWindow},
		h2.SettingValue{Setting: h2.MaxHeaderListSize, Value: uint32(c.srv.Limits.Head)},
		h2.SettingValue{Setting: h2.EnableConnectProtocol, Value: 1},
	)
	c.w.Out = h2.AppendWindowUpdate(c.w.Out, 0, connWindow-h2.DefaultWindow)
	_, _ = c.tcp.Send(nil) // prepares for sending from another goroutine
	c.tcp.ArmRead(c.srv.Timeouts.Head)
	c.partial = true // until the client's settings have come
	if c.away {
		c.goAwayLocked()
	}
	c.w.Kick()
}

// pull reads into buffer and has it handled until handle wants to leave, or reading fails.
func (c *conn) pull(buffer func() []byte, handle func(int) sweep.Next) error {
	if c.plain {
		return c.tcp.Loop(nil, buffer, handle)
	}
	for {
		n, err := c.stream.Read(buffer())
		if n == 0 && err != nil {
			return err
		}
		if n > 0 && handle(n) == sweep.Leave {
			return nil
		}
	}
}

// buffer returns where to read the next piece to.
func (c *conn) buffer() []byte {
	if c.work == nil {
		return c.parked[:]
	}
	return c.buf[c.filled:]
}

// handle takes in what has been read.
func (c *conn) handle(n int) sweep.Next {
	if c.work == nil {
		c.unpark()
		c.srv.metrics.parked.Dec()
		copy(c.buf, c.parked[:n])
	}
	c.filled += n
	return c.advance()
}

// advance takes in what is in the buffer.
func (c *conn) advance() sweep.Next {
	c.now = time.Now()
	used, err := c.parse(c.buf[:c.filled])
	if err != nil {
		c.fail(err)
		return sweep.Leave
	}
	full := c.filled == len(c.buf)
	c.filled = copy(c.buf, c.buf[used:c.filled])
	switch {
	case full:
		c.reserve(h1.LargeBuffer)
	case c.large != nil && c.filled == 0 && used < bufferSize/2:
		c.srv.Bodies.Put(c.large)
		c.large, c.buf = nil, c.small
	}
	switch {
	case !c.arm():
		c.fail(errIdle)
		return sweep.Leave
	case c.finished.Load():
		return sweep.Leave
	case c.partial:
		return sweep.ReadOn // in the middle of a frame there may be an end, and nothing else tells of it soon
	}
	return sweep.Wait
}

// reserve makes the buffer at least n bytes long, but no longer than the largest one.
func (c *conn) reserve(n int) {
	if n <= len(c.buf) || c.large != nil {
		return
	}
	c.large = c.srv.Bodies.Get()
	copy(c.large[:], c.buf[:c.filled])
	c.buf = c.large[:]
}

// arm gives what comes next its time. It returns false if that is over: the client has asked for nothing for too long, whatever
// else it has sent.
func (c *conn) arm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.srv.Timeouts
	switch {
	case c.filled > 0 || c.block.Open() || !c.settled:
		if !c.partial { // together, not each piece
			c.partial = true
			c.tcp.ArmRead(t.Head)
		}
		return true
	case c.data.left+c.data.padding > 0:
		c.partial = true
		c.tcp.ArmRead(t.Body)
		return true
	}
	c.partial = false
	if c.active > 0 {
		c.tcp.ArmRead(lookAfter)
		return true
	}
	left := c.patienceLocked()
	c.tcp.ArmRead(min(left, t.Park))
	return left > 0
}

// patienceLocked returns how much longer the connection may be without a stream.
func (c *conn) patienceLocked() time.Duration {
	return c.srv.Timeouts.Idle - (c.srv.Sweeper.Now() - c.since)
}

// lookAfter is how often a busy connection is read from though nothing seems to be there: an end that comes together with data
// is not seen otherwise.
const lookAfter = time.Second

var (
	errSlow = &h2.Fault{Code: h2.ProtocolError, Detail: "a frame or a header block did not arrive in time"}
	errIdle = &h2.Fault{Code: h2.NoError, Detail: "the connection was idle"}
)

// timedOut is called when the client has been silent for as long as it may. It tells whether to go on reading.
func (c *conn) timedOut() bool {
	if c.partial { // which is this goroutine's to change
		c.fail(errSlow)
		return false
	}
	busy, left := c.rest()
	switch {
	case busy:
		c.tcp.ArmRead(lookAfter)
		return true
	case left <= 0:
		c.fail(errIdle)
		return false
	case c.work != nil:
		c.park()
	}
	c.tcp.ArmRead(left)
	return true
}

// rest tells whether streams are being served, and how much longer the connection may be without any.
func (c *conn) rest() (busy bool, left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active > 0, c.patienceLocked()
}

// park gives back what only a busy connection needs.
func (c *conn) park() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopIdleLocked()
	c.w.End()
	w := c.work
	c.work, c.scrap = nil, nil
	c.block.Free()
	if w.large != nil {
		c.srv.Bodies.Put(w.large)
	}
	w.buf, w.large, w.filled = w.small, nil, 0
	w.out, w.writing = c.w.Swap(nil, nil)
	if cap(w.out) > 4*bufferSize || cap(w.writing) > 4*bufferSize {
		w.out, w.writing = make([]byte, 0, bufferSize), make([]byte, 0, bufferSize)
	}
	c.srv.works.Put(w)
	c.srv.metrics.parked.Inc()
}

// unpark takes back what park gave away.
func (c *conn) unpark() {
	w := c.srv.work()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.work = w
	if c.w.Out == nil { // otherwise something was sent meanwhile
		c.w.Swap(w.out, w.writing)
	}
	w.out, w.writing = nil, nil
}

// stopIdleLocked ends the goroutines that wait for streams.
func (c *conn) stopIdleLocked() {
	for i, s := range c.idle {
		s.wake <- false
		c.idle[i] = nil
	}
	c.workers -= len(c.idle)
	c.idle = c.idle[:0]
}

// fail ends the connection for a fault of the client: it is told, and why.
func (c *conn) fail(err error) {
	fault := &h2.Fault{Code: h2.InternalError}
	errors.As(err, &fault)
	if fault.Code != h2.NoError {
		c.srv.metrics.errors[fault.Code].Inc()
		c.srv.Log.Debug("a connection ends by a fault of the client", slog.String("code", fault.Code.String()),
			slog.String("detail", fault.Detail), slog.String("peer", c.client.Peer.String()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.awayFinal { // what was said must not become higher (RFC 9113, section 6.8)
		c.lastID = c.maxID
	}
	c.w.Out = h2.AppendGoAway(c.w.Out, c.lastID, fault.Code, fault.Detail)
	c.awaySaid, c.awayFinal = true, true
	c.w.Kick()
}

// end waits for everything that the connection has begun. What has been said to the client arrives.
func (c *conn) end() {
	if broken := c.endStreams(); !broken {
		c.linger()
	}
	_ = c.tcp.Conn.Close() // so that nobody waits for those who still work on streams
	c.wg.Wait()
	if c.awayArmed {
		c.awayAlarm.Remove()
	}
	if c.work == nil {
		c.srv.metrics.parked.Dec()
	} else if c.large != nil {
		c.srv.Bodies.Put(c.large)
	}
}

// endStreams ends what is under way. It tells whether the client can be told nothing more.
func (c *conn) endStreams() (broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.gone.Load() {
		c.w.Break()
		c.breakLocked(nil)
	}
	for id, s := range c.streams {
		delete(c.streams, id)
		s.abandonLocked()
	}
	c.stopIdleLocked()
	c.w.End()
	return c.w.Broken()
}

const (
	lingerBytes = 1 << 20
	lingerTime  = time.Second
)

// linger closes the sending side and reads for a while what the client still sends. Closing at once would make the client's
// system drop what was sent last.
func (c *conn) linger() {
	t, ok := c.stream.(interface{ CloseWrite() error })
	if !ok {
		t, ok = c.tcp.Conn.(interface{ CloseWrite() error })
	}
	if !ok || t.CloseWrite() != nil {
		return
	}
	c.finished.Store(false)
	c.tcp.ArmRead(lingerTime)
	buf := make([]byte, bufferSize)
	for n := 0; n < lingerBytes; {
		m, err := c.tcp.Read(buf)
		if n += m; err != nil {
			return
		}
	}
}

// cut ends the connection from outside, in whatever it does.
func (c *conn) cut() {
	c.gone.Store(true)
	c.finished.Store(true)
	_ = c.tcp.Conn.Close()
}

// finish wakes the goroutine that reads, for it to end. It needs no lock.
func (c *conn) finish() {
	c.finished.Store(true)
	c.tcp.Interrupt()
}
