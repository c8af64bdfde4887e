// Package h2 is HTTP/2 as bytes (RFC 9113) and HPACK as the gateway uses it (RFC 7541): frames, header blocks to and from
// an exchange.Head, the arithmetic of flow control, and the budget of a peer that sends what costs work and carries
// nothing. Both ends of the gateway use it: the engine for clients and the connections to backends.
//
// # Frames
//
// Frames are parsed where they were read and appended to what will be written. x/net's Framer, which the first plan was
// to use, allocates a struct for most frames and wants a reader and a writer of its own, so that frames cannot be batched
// without another copy. Only its Huffman code is used; see docs/adr/0010.
//
// # Header blocks
//
// A decoded block stands in memory as lines of HTTP/1, so that a request passes from HTTP/2 to HTTP/1 in one piece. The
// encoder keeps no state: it writes names by the static table where it can and everything else literally, like nginx and
// HAProxy do. So any goroutine may encode at any time, and there is no table whose memory a peer could have grown.
//
// Nothing here does input or output or knows the time. Everything belongs to one goroutine at a time.
package h2
