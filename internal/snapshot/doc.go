// Package snapshot defines what a gateway runs from: the entries of a configuration with their buckets and
// digests, the signed checkpoint over them, the typed content of entries and the records of credentials.
//
// Everything here is a value: a [Set] never changes once it is made, and deriving one from another shares what
// is equal. The package does no I/O. It is used by compile, which makes entries, by feed, which carries them, and
// by gateway, which runs them; it imports only the standard library and x.
package snapshot
