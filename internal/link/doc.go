// Package link connects nodes: gRPC over mutual TLS 1.3, in three connections per pair of nodes, so that bulk never
// delays events.
//
// A [Link] is the client's end. It keeps one connection per [Class] up for as long as it lives, comes back at once
// after a cut and with growing pauses after failures, works through an HTTP CONNECT proxy, and has no time-out that
// a round trip of 60 s would exceed. A [Server] is the other end. It knows each caller by its certificate
// ([PeerFrom]), and lets a call through only if its table of permissions says so: what is not in the table is refused.
// A certificate that has expired is good for nothing but its renewal; a revoked node is refused whatever it shows.
//
// The enrolment of new gateways ([Enrol]) is on the same port, as the one thing that may be called without a
// certificate; a [Keeper] renews a gateway's certificate and its trust document.
//
// Who dialled is not tied to who serves: Options.Dial may return a connection that came in, and Server.Serve takes
// any listener, also one that dials out.
//
// All types are safe for concurrent use. The package is used by feed, the networked halves of quota, revocation and
// health, and app. linktest holds networks with delays and cuts for tests of what runs over a link.
package link
