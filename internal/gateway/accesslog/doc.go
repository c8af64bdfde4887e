// Package accesslog writes one JSON object a line for every request that the gateway answered.
//
// [Append] encodes a finished exchange without allocating; the fields and their names are fixed, and every line has
// all of them. Of the request target only the path is logged: a query may hold secrets.
//
// A [Writer] takes lines from any number of goroutines and writes them to a file from one of its own, so that no
// request ever waits for a disk. What does not fit into its bounded buffer, because the disk is slow or full, is
// dropped and counted. It is used by gateway.
package accesslog
