// Package upstream calls backends: it keeps connections to their endpoints, sends requests over them and reads the
// responses.
//
// # Identity
//
// A [Registry] holds backends by organization and name. Their handles, pools and counters survive every change of the
// configuration that does not concern them: a [Plan] is prepared without side effects, and committing it changes the
// settings of what stays, and lets go of what is gone.
//
// # A call
//
// Endpoints take turns. One that could not be connected to is passed over for a while, unless there is no other. A request
// with a body whose length is known and small is read first and sent in one piece; any other body is passed on as it
// comes, by a second goroutine, while the first one waits for the response, which may come early.
//
// # Trying again
//
// A request that could not be connected is tried with other endpoints, up to four in all. One that was sent over a connection used
// before, which then turned out to be closed, is sent once more over a new one if nothing of a response had been received
// and sending it twice does no harm: its method is idempotent (RFC 9110, section 9.2.2) and its body, if any, is still
// at hand; or not a byte of it was accepted.
//
// # Failure
//
// A call that fails is refused with one of the codes upstream-connect, upstream-busy, upstream-timeout, upstream-reset,
// upstream-protocol and upstream-none. A response that breaks off after its head has been passed on breaks off the
// exchange: it never looks complete.
//
// Package upstream is used by gateway. Everything may be called by any goroutine.
package upstream
