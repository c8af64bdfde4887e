// Package ingress is the rules that hold for a request whatever protocol it came by: what its authority may look like,
// the one form of its path, and the fields that tell the backend who asks and what for.
//
// The engines (http1, http2, http3) parse in their own ways and then apply these rules to the exchange, so that a
// request means the same however it arrived. [Options] are what those over TCP are configured with. [Rules] are constant
// and may be shared by goroutines; a [Client] belongs to its connection.
package ingress
