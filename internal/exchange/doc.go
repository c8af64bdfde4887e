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
// # Concurrency
//
// An exchange belongs to one goroutine at a time. The one exception is [Exchange.Cancel], which any goroutine may
// call.
//
// The package imports only the standard library and x.
package exchange
