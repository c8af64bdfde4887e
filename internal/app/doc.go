// Package app wires processes: it alone knows all roles and puts their components together.
//
// A role is an Options struct and a type with New, Start and Stop: [Control], [Gateway] and [Dev], which is both of
// them and a sample backend. New prepares and opens nothing that outlives a failure; Start binds listeners, so that
// the addresses are known when it returns; Stop takes the steps back in the opposite order, each within its own
// bound. Nothing here is global: any number of roles live in one process, which the tests do.
package app
