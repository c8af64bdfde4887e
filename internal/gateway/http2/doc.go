// Package http2 is the engine for clients that speak HTTP/2 (RFC 9113): over TLS by ALPN, or without it by prior knowledge.
// It reads requests from connections, feeds them to an exchange.Handler, and writes the responses.
//
// # A connection
//
// One goroutine reads frames. Every stream is served by a goroutine, which is kept with its exchange and buffers for the
// streams that come after. Whoever has frames to send appends them to one piece of memory, and one goroutine writes it: what
// several streams have to say while it writes goes out together by the next system call. A connection that is idle for a
// while gives all of that back and holds little more than the goroutine that reads and the table of its header compression.
//
// # Rules
//
// The rules of requests are those of package http1: canonical path, one authority, X-Forwarded-*, X-Request-Id, names with
// underscores, limits. Beyond that:
//
//   - A message that RFC 9113, section 8, calls malformed is not answered: its stream is reset with PROTOCOL_ERROR. What is
//     wrong by other rules is answered like everywhere.
//   - The scheme must be that of the connection. If there is a Host field it must be the authority.
//   - Several Cookie fields become one.
//   - Trailers are forwarded both ways, without those that RFC 9110, section 6.5.1, forbids.
//   - Extended CONNECT (RFC 8441) is a tunnel like that of an upgrade in HTTP/1.1; other CONNECT is refused.
//   - A response that is complete before the request resets the stream with NO_ERROR.
//   - Priorities are not used; the Priority field is forwarded.
//
// # Memory and floods
//
// A stream takes in no more than its window of a body that nobody has asked for yet, a connection no more than its own; what
// is sent waits in at most two buffers. No more streams are served at a time than the settings allow, among them those that
// the client has reset and whose work has not ended. Frames that cost work and carry nothing are budgeted (h2.Budget): who
// overdraws is told ENHANCE_YOUR_CALM.
//
// # Time
//
// Every wait has a deadline, see Timeouts. They are coarse: package x/sweep.
package http2
