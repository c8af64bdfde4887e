// Package serve is the control node's end of the feed: it hands every new checkpoint of a view to the gateways that
// follow it, together with the change that leads to it, and keeps what they say of it.
//
// Whoever publishes gives it whole contents ([Server.Publish]); what changed, it finds by itself. A change is encoded
// once for all gateways that have the same version. A gateway that is slow, far away or lost holds up nobody: each has
// a goroutine of its own that sends the newest version when the link takes more, and skips those between. A gateway
// that was away asks for what it lacks on the bulk connection: by the keys that changed since its version, as long as
// the window reaches back, and by comparing digests of buckets otherwise.
//
// A gateway sees only the view of its group and the credentials of its organization; who it is comes from its
// certificate, through Options.Peer. All methods are safe for concurrent use. The package is used by publish and
// control.
package serve
