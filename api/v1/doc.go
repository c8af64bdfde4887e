// Package v1 defines the resources of the API hansa.dev/v1: what a user writes in files, sends to the
// control API and reads back.
//
// A resource is an [Object]: apiVersion, kind, metadata, spec and status. Users write the spec, Hansa writes
// the status. Every exported field carries its documentation and its default in its comment; the JSON Schema,
// "hansa explain" and the reference pages are generated from these comments.
//
// The package holds types and tables only: decoding, defaulting and validation are internal/resource. It must
// not import anything outside the standard library.
package v1
