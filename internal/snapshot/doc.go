// Package snapshot defines what a gateway runs from: the entries of a configuration with their buckets and
// digests, the signed checkpoint over them, the typed content of entries, and tables of credentials.
//
// Everything here is a value: a [Set] and a table of [Credentials] never change once they are made, any number of
// goroutines may read them, and deriving one from another shares what is equal. Both are covered by one digest, the
// root, that is the same on every node with the same content, and that a signed [Checkpoint] states.
//
// The package does no I/O and knows no keys: whoever signs or verifies hands in a function. It is used by store and
// compile, which make content, by feed and localstore, which carry and keep it, and by gateway, which runs it; of
// the module it imports only x.
package snapshot
