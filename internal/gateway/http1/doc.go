// Package http1 is the engine for clients that speak HTTP/1.0 and HTTP/1.1: it reads requests from connections, feeds
// them to an exchange.Handler, and writes the responses.
//
// # A connection
//
// One goroutine serves one connection, from the first byte to the last. Requests on it, pipelined or not, are served
// one after the other. What a connection needs for them (exchange, buffers, parser) is taken from a pool when there is
// something to read, and given back before it waits for another request: an idle connection holds its goroutine and
// little more, 7 kB. Where the system cannot tell in time that there is nothing to read, a connection keeps it for
// Timeouts.Park.
//
// # Rules
//
// Parsing is strict: see exchange/h1. Beyond that:
//
//   - Exactly one Host with a well-formed authority (HTTP/1.0: at most one). In absolute-form the authority of the
//     target wins and its scheme must be the connection's. Asterisk-form and authority-form are refused.
//   - The path becomes canonical by x/pathnorm before anybody sees it.
//   - Fields that speak of the connection are removed, with those that Connection names. To name Host, Content-Length
//     or a field of the gateway's own is refused.
//   - Names that would be a field of the gateway's own if "_" were "-" are removed.
//   - X-Forwarded-For, -Proto and -Host are made anew, or continued if the peer is trusted. X-Request-Id is made
//     anew and sent both ways.
//   - "Expect: 100-continue" is forwarded; the backend's 100 comes back. An answer of the gateway's own comes without
//     100, and then the connection is closed.
//   - Trailers are forwarded where both sides use chunks (to the client: if it sent "TE: trailers"), without those
//     that RFC 9110, section 6.5.1, forbids. They are never merged into the header.
//   - A protocol upgrade is offered to the backend, and if that answers 101 the connection becomes a tunnel. What the
//     client sends after its head is forwarded only then; after any other answer it is the next request. Upgrades to h2c,
//     HTTP or TLS, of HTTP/1.0 and of requests with a body are ignored, as RFC 9110 wants it.
//   - If a response is complete before the request's body, a short rest is read and dropped; otherwise the
//     connection is closed, and lingers so that the client can read the response.
//
// # Large bodies
//
// A body of known length passes from one plain connection to another through a pipe of the system (splice(2)), in both
// directions, unless a filter wants to see it: from 32 KiB of rest on, without being copied to memory. Pipes are kept for
// later use; if there is none to be had the body is copied, as it is with TLS and on other systems than Linux.
//
// # Time
//
// Every wait has a deadline, see Timeouts. They are coarse: package x/sweep.
package http1
