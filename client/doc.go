// Package client is the Go client of Hansa's control API.
//
// It speaks in the types of api/v1 and of the standard library only. Every call takes a context, which bounds it,
// and returns a [*Error] with the code and the correlation id if the server refused, or an error that wraps
// [ErrUnreachable] if no answer came. Bodies are streamed both ways: an import of a million keys or a backup of
// the whole record is never held in memory.
//
// A [Client] is safe for concurrent use. It holds idle connections and nothing else; [Client.Close] drops them.
package client
