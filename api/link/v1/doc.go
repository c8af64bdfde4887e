// Package linkv1 is what control nodes and gateways say to each other over the link: the protocol buffers of the feed
// and of enrolment, and the gRPC services that carry them.
//
// The .proto files are the source and hold the documentation of the protocol; the .pb.go files are generated from
// them by generate.sh and checked in. Fields are never renumbered and never change their meaning: either end may be
// two minor versions older than the other.
package linkv1

//go:generate ./generate.sh
