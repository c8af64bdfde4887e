// Package mux is a connection to a backend that speaks HTTP/2 (RFC 9113), with many requests on it at a time. It knows no
// backends, endpoints or policies: upstream chooses the connection, and encodes and decodes what a request means.
//
// One goroutine, that of Serve, reads frames; one, of package flush, writes what all requests have to say. The goroutine of a
// request waits on its Stream for the head of the response, for data and for windows. Nothing is buffered beyond the windows
// that the backend was given. Deadlines are coarse: package x/sweep.
//
// A Stream and its memory belong to who makes the requests: what was received stays valid until the Stream is opened again.
package mux
