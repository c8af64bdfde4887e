// Package handshake makes TLS of connections that come in: certificates by hostname, rules by hostname, sessions that any
// gateway of a group can resume, and limits.
//
// # Rules
//
// A [Rule] says for a set of hostnames which versions of TLS are taken and whether clients must show a certificate. The
// name that a client asks for (SNI) decides with which rule its connection is made. Client certificates are asked for
// within the first handshake, never later: neither TLS 1.3 nor HTTP/2 knows renegotiation. What a client
// shows is not judged by the handshake, which could only break it off, but for each request by [Admit]: so the client
// is told what is wrong, a change of the rules holds for connections that exist, and a session that is resumed brings no
// more than what is judged anew.
//
// A request whose host belongs to another rule than the connection, where that matters, or to another certificate, is
// misdirected (RFC 9110, section 15.5.20), and the client may repeat it on a connection of its own.
//
// Where a rule says so, the certificate that a trusted proxy tells of in Client-Cert (RFC 9440) is judged in place of one that
// was shown in the handshake.
//
// # Sessions
//
// Tickets are sealed with keys that are derived from a secret of the gateway group for windows of twelve hours, so that
// a session resumes on another gateway of the group, and no longer than for a day. A ticket names the rule and the
// hostname that it was given under, and is worth nothing under others: what follows is a full handshake.
//
// # Limits
//
// A handshake has a deadline, and the number of those under way is bounded; where it is reached, one that has been going
// on for more than a second gives way to a new one.
//
// Everything may be called by any goroutine. Package gateway uses it.
package handshake
