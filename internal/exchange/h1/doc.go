// Package h1 is HTTP/1.0 and HTTP/1.1 as bytes (RFC 9112): a strict parser of message heads, the reading and writing
// of bodies. Both ends of the gateway use it: the engine for clients and the connections to backends.
//
// # Strictness
//
// What two readers could read differently is refused, never repaired: both Content-Length and Transfer-Encoding, a
// Content-Length that is repeated or is not plain digits, a transfer coding other than one "chunked", line ends
// without CR, CR elsewhere, NUL and other control characters, folded lines, space before the colon of a request's
// field, chunk sizes that are overlong or not plain hexadecimal digits.
//
// # Cost
//
// Nothing here allocates in the steady state. A parser keeps offsets into the buffer of its caller and takes up where
// it stopped when more has been read; the buffer may move in between. Bodies are decoded in place.
//
// Everything belongs to one goroutine at a time. The package imports exchange and the standard library.
package h1
