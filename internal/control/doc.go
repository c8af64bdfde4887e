// Package control is the control API: HTTP over TLS on port 8090, under /api/v1.
//
// Every route stands in routes.go together with the role that it asks for; a route without a role does not exist, and
// every request is authenticated and decided upon before its handler runs (deny by default). Whatever changes the
// record goes through one function, [Server.commit]: it derives the change set from the state at the head, decides on
// every resource that it touches, checks references and compiles the prospective state, and commits if the record
// has not moved on; if it has, it begins again from the new head. So a change is either whole and compilable or not
// there at all.
//
// A [Server] is safe for concurrent use and holds no state but caches: everything is in the record. It starts no
// goroutine of its own; watches and waits live in the goroutines of their requests. It is used by app, which owns
// the listener; the limits and deadlines of the HTTP server are in [Server.HTTPServer].
//
//go:generate go test -run TestReference -update .
package control
