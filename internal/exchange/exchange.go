package exchange

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Protocol is the version of HTTP that the client speaks.
type Protocol uint8

// The protocols.
const (
	HTTP10 Protocol = iota
	HTTP11
	HTTP2
	HTTP3
)

// String returns the protocol as it stands in the access log: "HTTP/1.1".
func (p Protocol) String() string {
	return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"}[p]
}

// NumSlots is the number of slots of an exchange.
const NumSlots = 8

// Slot is a place for what steps of one exchange tell each other. Its number is given out by whoever makes routes.
type Slot struct {
	Ptr any
	Num int64
}

// Consumer is on whose behalf the request is made, as far as a policy has found out.
type Consumer struct {
	// LogMembers is what lines of the access log say about the consumer, as members of a JSON object.
	LogMembers string
	// Record is the credential itself, for the policies that come after.
	Record any
}

// Exchange is one request and its response. Engines fill in the request, steps and backends the rest.
type Exchange struct {
	// ID names the request. It is never the client's.
	ID RequestID
	// Start is when the first byte of the request was there to read.
	Start time.Time

	// Protocol, Peer and Scheme tell how the request came. Peer is the other end of the connection, Scheme http or
	// https.
	Protocol Protocol
	Scheme   string
	Peer     netip.AddrPort
	// ClientIP is the address of the client in text: the peer's, or the one that trusted proxies in between report.
	ClientIP View

	// Method is the method as it was received.
	Method View
	// Authority is the host and, if one was given, the port that the client wants to speak to, in lower case.
	Authority View
	// Host is Authority without port and without a last dot. An IPv6 address keeps its brackets.
	Host View
	// RawTarget is the request target as it was received. Use it for nothing but to show it.
	RawTarget View
	// Path is the canonical path, by the rules of x/pathnorm. Routing, policies, logs and backends see no other.
	Path View
	// Query is what follows the "?" of the target, as it was received. HasQuery tells an empty query from none.
	Query    View
	HasQuery bool

	// Req is the fields of the request without those of HopByHop and without Host. Content-Length may be among them,
	// but it is Body that tells the length.
	Req Head
	// Body is the body of the request; nil if there is none.
	Body Source
	// Upgrade asks to make a tunnel of the exchange: the protocols that the client wants to switch to, as they stand in
	// the field of that name, and once Status is 101 the one that was chosen. Nil: none. See the package comment.
	Upgrade View

	// TakesTrailers tells that the client has said that it does not discard trailers.
	TakesTrailers bool

	// Route is where the request goes; nil until it is found.
	Route *Route
	// ForwardPrefix and ForwardPath, one after the other, are the path that the backend sees. Until they are set it
	// is Path. ForwardPath is a part of Path.
	ForwardPrefix string
	ForwardPath   View
	// TLS is what is known of the connection; nil if it is not one of TLS.
	TLS *TLS
	// Proxied tells that the peer is a proxy whose word about its client counts.
	Proxied bool
	// ClientCert is the certificate of the client, if the host asks for one and it is good.
	ClientCert *ClientCert
	// Consumer is set by the policies that find out who asks.
	Consumer Consumer
	// Slots are for the steps of the route.
	Slots [NumSlots]Slot

	// Status is the status of the response; 0 until there is one.
	Status int
	// Resp is the fields of the response without those of HopByHop. Content-Length may be among them, but it counts
	// only where no body is sent: for HEAD and 304.
	Resp Head
	// Own is fields that the gateway adds to the response, whoever makes it. They replace those of the same name.
	Own Head
	// Code is why the gateway refused the request or broke it off, Detail says more to the client.
	Code   Code
	Detail string

	// Backend and Endpoint tell who was called: the name of the backend and the address of the last endpoint tried.
	Backend, Endpoint string
	// Tries is how often the request was sent to an endpoint.
	Tries int
	// Upstream is the time from the first try to the end of the response's head, Duration the one from Start to the
	// last byte handed to the client's connection.
	Upstream, Duration time.Duration
	// BytesIn and BytesOut count the bytes of the two bodies, without their framing.
	BytesIn, BytesOut int64

	// Call is what the backend keeps from one exchange to the next: memory, mainly. Reset leaves it, Abandon does not.
	Call any

	local     Bytes
	answered  bool
	grpc      bool // the refusal is one for clients of gRPC
	scratch   []byte
	cancelled atomic.Bool
	waiting   atomic.Pointer[Interrupter]
}

// Interrupter wakes a goroutine that waits for a connection. Waking it without need does no harm: it looks around
// and goes on waiting.
//
// Interrupt is called by Cancel, and so with the locks that an engine cancels with: it must not block; of the engine's methods it
// may call StopBody alone; and a lock that it takes must never be held by whoever calls an engine. It may also come late, when
// something else is waited on, or when the exchange has ended: what it wakes must still be there, or be something that does not
// mind.
type Interrupter interface {
	Interrupt()
}

// keepScratch bounds the memory that an exchange keeps for what is made up for a request.
const keepScratch = 16 << 10

// Reset makes x ready for the next request. It keeps memory.
func (x *Exchange) Reset() {
	x.Req.Reset()
	x.Resp.Reset()
	x.Own.Reset()
	x.Body, x.Upgrade = nil, nil
	x.Route = nil
	x.ForwardPrefix, x.ForwardPath = "", nil
	x.Consumer = Consumer{}
	x.TLS, x.ClientCert, x.Proxied, x.TakesTrailers = nil, nil, false, false
	x.Slots = [NumSlots]Slot{}
	x.Query, x.HasQuery = nil, false
	x.Path, x.RawTarget, x.Method, x.Authority, x.Host = nil, nil, nil, nil, nil
	x.Status, x.Code, x.Detail = 0, CodeNone, ""
	x.Backend, x.Endpoint = "", ""
	x.Tries, x.Upstream, x.Duration = 0, 0, 0
	x.BytesIn, x.BytesOut = 0, 0
	x.answered, x.grpc = false, false
	if x.scratch = x.scratch[:0]; cap(x.scratch) > keepScratch {
		x.scratch = nil
	}
	if x.waiting.Load() != nil {
		x.waiting.Store(nil)
	}
	if x.cancelled.Load() {
		x.cancelled.Store(false)
	}
}

// Refuse makes the refusal with that code the answer. The detail is for the client and must not hold secrets. Fields
// such as Retry-After are set in x.Own.
func (x *Exchange) Refuse(code Code, detail string) Verdict {
	x.Code, x.Detail, x.Status = code, detail, code.Status()
	x.answered = true
	return Responded
}

// Refused tells whether the answer is a refusal, to be written as AppendProblem has it.
func (x *Exchange) Refused() bool { return x.answered && x.Code != CodeNone && !x.grpc }

// Answer makes an answer of the gateway itself. Its fields are set in x.Own; the body must not change before the
// exchange ends.
func (x *Exchange) Answer(status int, body []byte) Verdict {
	x.Code, x.Detail, x.Status = CodeNone, "", status
	x.local.Reset(body)
	x.answered = true
	return Responded
}

// LocalAnswer returns the body given to Answer, and whether Answer or Refuse was called. Engines need it.
func (x *Exchange) LocalAnswer() (body *Bytes, ok bool) { return &x.local, x.answered }

// Scratch copies the parts, joined, to memory that lives as long as the exchange.
func (x *Exchange) Scratch(parts ...[]byte) View { return x.Extend(nil, parts...) }

// Extend is Scratch of v and then the parts. A v that is itself what was copied last is not copied again, so that what comes
// in many pieces takes memory in proportion to its length.
func (x *Exchange) Extend(v View, parts ...[]byte) View {
	from := len(x.scratch) - len(v)
	if len(v) == 0 || from < 0 || &x.scratch[from] != &v[0] {
		from = len(x.scratch)
		x.scratch = append(x.scratch, v...)
	}
	for _, p := range parts {
		x.scratch = append(x.scratch, p...)
	}
	return View(x.scratch[from:len(x.scratch):len(x.scratch)])
}

// Cancel ends the exchange from outside: its client is gone, or its API. Any goroutine may call it, also with locks held that the
// methods of Down take, but for StopBody, which then must do without. Who works on the exchange notices at the latest when it
// next waits.
func (x *Exchange) Cancel() {
	x.cancelled.Store(true)
	if w := x.waiting.Load(); w != nil {
		(*w).Interrupt()
	}
}

// Abandon lets go of what the backend holds for an exchange that has panicked, connections and counts, if its Call has such a
// method itself. Closing the body of the response, before or after, does no harm. What is in Call is not used again.
func (x *Exchange) Abandon() {
	if c, ok := x.Call.(interface{ Abandon() }); ok {
		c.Abandon()
	}
	x.Call = nil
}

// Cancelled tells whether Cancel was called.
func (x *Exchange) Cancelled() bool { return x.cancelled.Load() }

// WaitOn names the connection that Cancel wakes from now on; nil for none. See Interrupter for what is asked of it. It returns
// false if the exchange has been cancelled. Who waits need not call it before waiting becomes long, a second or so: it looks at
// Cancelled then.
func (x *Exchange) WaitOn(w *Interrupter) bool {
	x.waiting.Store(w)
	return !x.cancelled.Load()
}
