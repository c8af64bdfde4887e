package snapshot

import "fmt"

// Refusal is the error of a gateway that does not run a content: it names what is to blame, so that the control node
// can show it to whoever made the change.
type Refusal struct {
	Code   string // stable: one of the Refused constants
	Entry  string // key of the entry; empty: the whole
	Field  string // path within the entry
	Detail string // for people
	// Retryable: the same content may be accepted later, when something on the gateway has changed.
	Retryable bool
}

// The codes of refusals.
const (
	RefusedSignature = "signature"  // not signed by a key that the cluster's root vouches for
	RefusedCluster   = "cluster"    // of another cluster or another view
	RefusedOlder     = "older"      // older than what the gateway has
	RefusedForked    = "forked"     // another content for a version that the gateway has
	RefusedContent   = "content"    // the content is not what the checkpoint says
	RefusedReader    = "reader"     // it has a critical entry that this build cannot run
	RefusedCannotRun = "cannot-run" // an entry is sound but cannot be built: a port in use, a certificate that does not parse
)

// Error implements error.
func (r *Refusal) Error() string {
	switch {
	case r.Entry != "" && r.Field != "":
		return fmt.Sprintf("refused (%s): entry %q, field %s: %s", r.Code, r.Entry, r.Field, r.Detail)
	case r.Entry != "":
		return fmt.Sprintf("refused (%s): entry %q: %s", r.Code, r.Entry, r.Detail)
	}
	return fmt.Sprintf("refused (%s): %s", r.Code, r.Detail)
}
