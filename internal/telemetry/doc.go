// Package telemetry holds what every part of Hansa needs to tell how it is doing and the libraries do not offer in
// the form needed: a histogram cheap enough for every request, and the making of
// a process's logger and registry of metrics.
//
// Metrics are registered by the packages that own them, on a registry that they are given. Everything is safe for
// concurrent use.
package telemetry
