// Package certs holds the certificates that the gateway shows to clients, by hostname.
//
// # Choice
//
// A [Store] is fed by several sources, each of which replaces its own entries as a whole ([Store.Replace]) or in part
// ([Store.Update]); a handshake sees either all of a change or nothing of it. For the name that a client asks for (SNI)
// the exact hostname wins over the wildcard that covers it, "*.example.com", which stands for one label and no more.
// Where several entries have the same name, the order of the sources decides ([Options.Order]), then the entries' IDs;
// the first whose key the client can use is taken, so that an ECDSA and an RSA certificate may stand side by side. A
// client that asks for no name gets the default certificate. One that asks for a name which nobody has gets it too, or,
// if the store is strict or there is no default, the alert unrecognized_name (RFC 6066, section 3).
//
// # Cost
//
// A certificate is kept as it is encoded; what a handshake needs beyond that is made when it is first used and kept for
// the most recently used ones. Intermediate certificates are shared. Looking up a name allocates nothing and takes the
// same time for one hostname as for 100,000.
//
// # Sources in this package
//
// [Files] keeps pairs of files, and folders full of them, and looks for changes. [Staples] keeps OCSP responses and
// staples them.
//
// Everything may be called by any goroutine unless it says otherwise. Package gateway uses it; who has certificates
// from elsewhere (resources) calls Replace or Update under a name of its own.
package certs
