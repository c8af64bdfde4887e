// Package upstream calls backends: it picks endpoints, keeps connections to them, sends requests and reads the responses.
//
// # Identity
//
// A [Registry] holds backends by organization and name. Their handles, endpoints, pools, health and counters survive every
// change of the configuration that does not concern them: a [Plan] is prepared without side effects, and committing it
// changes the settings of what stays, and lets go of what is gone, which finishes what it has begun.
//
// # Picking an endpoint
//
// A backend has a table of the endpoints that are to be used at present: by rank, with their weights. A request loads it
// and picks by one of the methods of balancing, without a lock and without a look at anybody's health. Whoever finds that
// health has changed (checks, outliers, refused connections, DNS, the end of an ejection) has the table made anew. Health is
// therefore an overlay, and never a change of the configuration. The rules of ranks and of panic are in newTable.
//
// # Trying again
//
// A request of which nothing could be sent is tried with other endpoints, up to three by default. What may have arrived is
// tried again only for the reasons that the backend names, within a budget, and if sending it twice does no harm: its
// method allows it (RFC 9110, section 9.2.2) and its body, if any, is still at hand. In any case a request is sent once more that was
// sent over a connection used before, which then turned out to be closed, if nothing of a response had been received
// and it does no harm.
//
// Hedging sends a slow request a second time. There both run on copies (shadow), as what a mirror gets does, so that who
// loses can end at its leisure while the exchange goes on.
//
// # Versions of HTTP
//
// A transport is one try over one version of HTTP; everything above does not know which. A request with a body whose length is
// known and small is read first and sent in one piece; any other body is passed on as it comes, by a second
// goroutine, while the first one waits for the response, which may come early.
//
// # Failure
//
// A call that fails is refused with one of the codes upstream-connect, upstream-busy, upstream-timeout, upstream-reset,
// upstream-protocol, upstream-too-large and upstream-none. A response that breaks off after its head has been passed on
// breaks off the exchange: it never looks complete.
//
// Locks are taken in the order Registry, Backend, pool, queue; no two of a kind. Goroutines belong to the Registry, which
// waits for them when Run ends. Everything exported may be called by any goroutine. Package upstream is used by gateway.
package upstream
