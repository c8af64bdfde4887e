// Package quota counts requests against limits, in this gateway's memory.
//
// A [Subject] is whoever shares a limit: a subscription, an application, an API. It hangs on what the hot path has
// in its hands already (the record of a credential, the plan of a route), so that an admission is one atomic
// operation on one word, without a lock, a map or an allocation. A [Limit] is a bound on what one subject may do in
// a window, fixed (quota) or sliding (rate limit). Counters belong to the subject and to the identity of the limit
// ([Key]), not to a configuration: a changed bound applies to the running window.
//
// [Subjects] keeps the subjects of a gateway by identity, so that they outlive every change of configuration, and
// [Clients] does the same within bounded memory for addresses, of which there is no end.
//
// This is the local half: a counter knows what its own gateway admitted. An engine that shares a limit between
// gateways takes its place behind the same call, Admit(subject, limit, now, cost).
//
// Everything is safe for concurrent use. Time is an argument, in Unix nanoseconds.
package quota
