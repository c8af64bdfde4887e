// Package exchange is one request and its response, whatever the protocol on either side.
//
// An engine (internal/gateway/http1 and its siblings) parses a request into an [Exchange] and hands it to a
// [Handler] together with the way back, a [Down]. The handler finds the [Route], passes its steps, calls its
// [Backend] and responds. HTTP/1, HTTP/2 and HTTP/3 feed the same exchange, so routing, policies and the log
// exist once.
//
// # Ownership
//
// Engines reuse exchanges. Everything of type [View] lies in memory of the exchange or of its connection and is
// void after the exchange ends: who wants to keep it clones it. The body of a message is pulled from a
// [Source], and a [Chunk] is valid until the next call on the same source; nothing is buffered in between, so
// whoever is slow slows down the other side.
//
// # Tunnels
//
// A protocol upgrade (RFC 9110, section 7.8; of HTTP/2 the extended CONNECT of RFC 8441) is an ordinary exchange whose
// Upgrade is set. Its method is that of HTTP/1.1, GET for WebSocket. Its Body is everything that the client sends after
// its head; nobody may pull it before the answer is 101. If the backend switches protocols, Status is 101, Upgrade the
// protocol, and the response's body everything that the backend sends from then on; pulling that begins the tunnel: what
// implements the Backend then passes on Body as well. The End of either body is a half-close, which the engine and the
// backend pass on; closing the response's body after its End waits for the other direction. With any other status the
// exchange is one like all others, and Body was never touched. Filters and limits of bodies do not concern tunnels.
//
// # Concurrency
//
// An exchange belongs to one goroutine at a time. The one exception is [Exchange.Cancel], which any goroutine may
// call.
//
// The package imports only the standard library and x.
//
//go:generate go test -run TestReferencePageIsCurrent -update .
package exchange
