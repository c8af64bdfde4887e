package exchange

// Route is where a request goes: the operation that was found, what it passes and who answers. Routes are made when
// configuration is read and never change; an exchange keeps the one it was given, whatever happens to the
// configuration meanwhile.
type Route struct {
	// Flow is what the operation mostly shares with the others of its API: among 100,000 routes none is in the processor's
	// cache, so there should be little of each.
	*Flow
	// Data belongs to whoever made the route: counters, for example.
	Data any
	// Operation is the name of the operation; empty if the API has none.
	Operation string
}

// Flow is the way that requests take once their API is known.
type Flow struct {
	// What every request needs comes first and lies together.

	// Request and Response are the steps before the request is forwarded and before the response is sent.
	Request, Response []Step
	// Backend answers; nil if one of the request steps always does.
	Backend Backend
	// Owner belongs to whoever made the flow.
	Owner any
	// MaxRequestBytes bounds the body of a request; 0: no bound.
	MaxRequestBytes int64
	// LogMembers is what all lines of the access log about the flow have in common: its names, as members of a JSON object.
	LogMembers string

	Organization string
	Environment  string
	API          string
	Revision     uint64
}

// Verdict is what a step decides.
type Verdict uint8

// The verdicts.
const (
	// Continue passes the exchange on to what comes next.
	Continue Verdict = iota
	// Responded says that the answer stands in the exchange: by Refuse or Answer.
	Responded
	// Abort says that no answer is wanted or possible: the connection or stream is broken off.
	Abort
)

// Step is one policy at work on one route. Steps are shared by all exchanges of the route. A step may block; on
// HTTP/1 it then holds up its own connection only.
type Step interface {
	Run(x *Exchange) Verdict
}

// RunSteps runs steps in order until one does not continue.
func RunSteps(steps []Step, x *Exchange) Verdict {
	for _, s := range steps {
		if v := s.Run(x); v != Continue {
			return v
		}
	}
	return Continue
}

// Backend is a service that answers requests. It survives changes of the configuration.
type Backend interface {
	// Call forwards the request and returns once the head of the response stands in x.Status and x.Resp. Informational
	// responses that come before it are passed on to d.
	//
	// Continue: the Source is the body, to be closed by the caller. Responded: there is no response, x carries the
	// refusal. Abort: the client is gone.
	Call(x *Exchange, d Down) (Source, Verdict)
}

// Down is the way back to the client, one exchange at a time.
type Down interface {
	// Inform sends an informational (1xx) response with the fields of head.
	Inform(status int, head *Head) error
	// Respond sends what stands in x: the refusal or the answer if x carries one, else x.Status, x.Resp and the body,
	// which may be nil. The fields of x.Own are added to any of them. It closes the body. If the client or the
	// backend goes away meanwhile the exchange is broken off, and x.Code says why.
	Respond(x *Exchange, body Source)
	// Abort breaks the exchange off without a response, or in the middle of one.
	Abort(x *Exchange)
	// Gone looks whether the client is still there. It costs a system call: ask once a second, not more.
	Gone() bool
	// StopBody makes a pending call of x.Body.Next, and every later one, fail. Any goroutine may call it, also one that is in
	// Exchange.Cancel: an engine that cancels with a lock held must not need it then.
	StopBody()
}

// Handler serves exchanges. Everything it is given is void when the call returns.
type Handler interface {
	// Serve ends the exchange with exactly one call of Respond or Abort, from the goroutine that it was called on.
	Serve(x *Exchange, d Down)
	// Done is called once for every exchange when all of it is over: for those that went through Serve, and for those
	// that the engine refused by itself, which have no Route and may lack what could not be parsed. Logs and
	// counters belong here.
	Done(x *Exchange)
}
