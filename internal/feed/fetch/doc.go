// Package fetch is the gateway's end of the feed: it keeps the configuration and the credentials of one gateway current.
//
// A new version is accepted only if a key that the cluster's root vouches for signed its checkpoint, if it is of the same
// cluster and view, if its (epoch, seq) is higher than what the gateway has, and if the content that results has the
// checkpoint's root. Then it goes the same way always: to the disk, to the [Sink], which builds and swaps, and only then
// is it acknowledged. Whatever fails on the way, the gateway goes on with what it has. Two contents of one version mean
// that somebody else signs for the cluster: the follower freezes, shows it, and takes nothing until the epoch is raised
// or the gateway is started anew.
//
// A gateway needs nobody: [Fetcher.LoadLocal] starts it from its disk, and a disk that is full stops it neither from
// applying nor from serving. What is interrupted is resumed: pieces that arrived are not fetched again.
//
// A Fetcher's methods may be called from any goroutine; LoadLocal and Offer come before Run. The package is used by app.
package fetch
