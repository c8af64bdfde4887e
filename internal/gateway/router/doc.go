// Package router finds what a request is for: hostname, then base path, then operation.
//
// It holds three immutable tables that know nothing of what they lead to: [Hosts] by hostname, [Bases] by base path,
// [Operations] by method and path template. internal/gateway joins them. What a path means is said by
// internal/x/pathpattern, whose matchers are the plain reference; the tables decide alike, in time that depends on
// the request and not on the number of routes, and without allocating.
//
// Paths and hostnames must be in the canonical form that internal/exchange gives them. A path begins with a slash,
// a hostname is in lower case and carries no port. Literals are compared in the normal form of pathpattern, so that
// "%3A" and ":" are one.
//
// The tables are a few flat slices, so that little memory is read for a request where there are many routes. A change makes
// a new table and leaves the old one as it is; to copy that of 10,000 base paths takes half a millisecond. All tables are
// safe for concurrent use.
package router
