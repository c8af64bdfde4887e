package http1

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/sweep"
)

const (
	// bufferSize is what buffers for reading and writing begin with; most heads and small bodies fit.
	bufferSize = 4 << 10
	// parkedSize is what a parked connection reads a first piece into.
	parkedSize = 64
)

// conn is the connection of one client. All of it but the atomic fields belongs to the goroutine that serves it; while
// a body is passed on by another goroutine, that one has the reading side.
type conn struct {
	srv    *Server
	tcp    sweep.Conn
	stream io.ReadWriter // on top of tcp
	plain  bool          // stream is tcp
	info   Conn
	client ingress.Client
	ids    exchange.IDGenerator
	*work  // nil while the connection waits for a request, if that is known in time, or is parked

	idle      bool // waiting for a request
	begun     bool // some of a head has been read
	armed     bool // and what is missing of it has a deadline
	collect   int  // how much must be read until the body is whole, head included; 0: it need not be
	pending   bool // begin has prepared a request that advance could not serve
	bulky     bool // the last request had a body that was collected, and more than the small buffer takes: the next one may, too
	regular   bool // the client has kept the connection for a second request, so it is not going to close it at once
	isParked  bool
	keep      bool // read another request when this one is done
	wrote     bool // some of the response has been written
	broken    bool // the connection cannot be used any more
	left      bool // it was the client that ended it, or the network
	tunnel    bool // what the client sends is no request any more
	http2     bool // the client speaks HTTP/2
	stopBody  atomic.Bool
	bodyBegun atomic.Bool // somebody has pulled the request's body
	bodyDone  atomic.Bool // the request's body has been read to its end
	isCut     atomic.Bool
	dismissed atomic.Bool // close it: at once if it is idle after a response, or else with the response under way
	parked    [parkedSize]byte
}

// work is what a connection needs while it is not parked.
type work struct {
	x      exchange.Exchange
	parser h1.Parser
	body   h1.Body
	buf    []byte // buf[:filled] has been read; it begins with the head of the request
	filled int
	small  []byte                // what buf is, unless more is needed; what the head lies in, if apart
	large  *[h1.LargeBuffer]byte // the buffer, if it came from the pool
	out    []byte
	end    []byte // what follows a piece of a body

	clean      bool // x is as Reset leaves it
	apart      bool // nothing of the head lies in large
	headSize   int64
	minor      int
	head       bool // the method is HEAD
	expect     bool // the client waits for 100 before it sends the body
	hasBody    bool
	bodyWaited time.Duration // how long the client was waited for within the body, on the sweeper's clock
	bodyBegin  time.Duration // when that began, while the body is collected
	whole      bool          // serving the request needs no reading
	faulty     bool          // the head was refused; more of the like may be on its way
}

func newConn(s *Server, info Conn) *conn {
	if info.Scheme == "" {
		info.Scheme = "http"
	}
	if !info.Peer.IsValid() {
		if a, ok := info.Net.RemoteAddr().(*net.TCPAddr); ok {
			info.Peer = a.AddrPort()
		}
	}
	c := &conn{srv: s, info: info, client: s.Rules.Client(info.Peer)}
	seed(&c.ids)
	s.Sweeper.Add(&c.tcp, info.Net)
	c.tcp.Owner, c.tcp.Starved = c, c.shed
	return c
}

// Cancelled implements sweep.Owner: it tells whoever was woken from reading whether to give up.
func (c *conn) Cancelled() bool {
	if c.isCut.Load() || c.stopBody.Load() {
		return true
	}
	// A request that has arrived already is answered.
	return c.idle && (c.srv.draining.Load() || c.dismissed.Load() && c.regular) && c.tcp.Quiet()
}

// cut ends the connection from outside, in whatever it does.
func (c *conn) cut() {
	c.isCut.Store(true)
	_ = c.tcp.Conn.Close()
}

// park notes that the connection has given back its memory, or has it again.
func (c *conn) park(parked bool) {
	if c.isParked == parked {
		return
	}
	c.isParked = parked
	if parked {
		c.srv.metrics.parked.Inc()
	} else {
		c.srv.metrics.parked.Dec()
	}
}

func (c *conn) close() {
	c.park(false)
	if c.work != nil {
		c.release()
	}
	if c.info.Upgrade != nil && c.stream != nil && !c.left && !c.broken && !c.isCut.Load() {
		c.closeWrite() // a client of TLS can tell the end from a cut only if it is said (RFC 9112, section 9.8)
	}
	_ = c.tcp.Close()
}

// serve serves requests until the connection ends. What panics is a fault of the gateway, and costs the connection.
func (c *conn) serve() {
	defer c.srv.guard.Catch("serving a connection", c.panicked)
	c.tcp.ArmRead(c.srv.Timeouts.Head)
	c.stream, c.plain = &c.tcp, true
	if c.info.Upgrade != nil {
		s, err := c.info.Upgrade(&c.tcp)
		if err != nil {
			return
		}
		c.stream, c.plain = s, false
	}
	c.work = c.srv.work()
	buffer, handle := c.buffer, c.handle // made once: each is an allocation
	c.awaitRequest()
	for c.readRequest(buffer, handle) {
		c.exchange()
		if !c.keep {
			return
		}
		c.next()
		c.regular = true
		if c.filled == 0 {
			c.awaitRequest()
		}
	}
}

// release gives the memory back that only a busy connection needs.
func (c *conn) release() {
	w := c.work
	c.work = nil
	w.body.Release()
	if w.large != nil {
		c.srv.Bodies.Put(w.large)
	}
	if cap(w.out) > 8*bufferSize {
		return // grown for something unusual
	}
	w.buf, w.large, w.filled = w.small, nil, 0
	w.x.Reset()
	w.clean = true
	c.srv.works.Put(w)
}

// exchange serves the request that begin has prepared.
func (c *conn) exchange() {
	if c.x.Refused() {
		c.Respond(&c.x, nil)
	} else {
		c.srv.Handler.Serve(&c.x, c)
	}
	c.x.Duration = time.Since(c.x.Start)
	c.srv.Handler.Done(&c.x)
	c.endBody()
}

// refuse answers without having read anything.
func (c *conn) refuse(code exchange.Code) {
	c.stream, c.plain, c.work = &c.tcp, true, c.srv.work()
	c.filled = 0
	c.x.Reset()
	c.x.Start = time.Now()
	c.begin(0, &exchange.Fault{Code: code})
	c.exchange()
	c.linger()
}

// panicked lets go of what the exchange may hold, and tries to tell the client. The memory is not used again.
func (c *conn) panicked() {
	if c.work == nil || c.begun || c.idle {
		return
	}
	c.x.Abandon()
	c.keep = false
	c.x.Code = exchange.Internal
	if c.wrote {
		c.reset()
	} else {
		c.x.Refuse(exchange.Internal, "")
		c.Respond(&c.x, nil)
	}
	c.x.Duration = time.Since(c.x.Start)
	c.srv.Handler.Done(&c.x)
	c.work = nil
}
