// Package http3 is the engine for clients that speak HTTP/3 (RFC 9114): it serves the requests of QUIC connections by an
// exchange.Handler.
//
// QUIC, QPACK and the framing are quic-go's, which also refuses what is malformed: such requests end with a stream error
// of theirs and reach neither the handler nor the access log. The rules for what is well-formed are those of the other
// engines (package ingress).
//
// One goroutine serves one request. Bodies are streamed both ways, and whoever is slow slows down the other side, by
// QUIC's flow control. Requests in early data (0-RTT), which an attacker could replay, are not taken.
//
// A server has one UDP socket. It cannot be handed to another process: when the binary is upgraded, clients open a new
// connection. Package http3 is used by gateway.
package http3
