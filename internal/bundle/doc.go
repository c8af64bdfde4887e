// Package bundle reads and writes bundles: one file that holds a gateway group's signed configuration, its
// organization's credentials, the trust to check both with and, if it is sealed, join tokens to spend once a control
// node can be reached. A gateway that starts from a bundle needs no control plane.
//
// The manifest is signed, and through the checkpoints in it everything else. A bundle does not age: it is accepted
// after its signing key has expired, like the generation on a gateway's disk, unless the key was revoked. The
// package is used by the command line and app; making a bundle from files is internal/bundle/build.
package bundle
