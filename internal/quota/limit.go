package quota

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Key is the identity of a limit. Limits with equal keys share a count within one subject, whatever their bounds.
type Key uint64

// NewKey derives the key of a limit from what makes it the same limit in two configurations. The length of the
// window is part of it: counts of different windows cannot be carried over into one another.
func NewKey(window time.Duration, sliding bool, names ...string) Key {
	h := digest(names)
	k := Key(binary.LittleEndian.Uint64(h[:8])) ^ Key(window)
	if sliding {
		return k | 1
	}
	return k &^ 1
}

// fixed tells whether the key is that of a limit with fixed windows.
func (k Key) fixed() bool { return k&1 == 0 }

// MaxCount is the highest bound that is kept to: 2^40-1, a million million requests in a window. Higher ones are
// taken for this one.
const MaxCount = 1<<countBits - 1

// Limit is a bound on the number of requests of one subject in a window.
type Limit struct {
	Key Key
	// Max is how many requests may pass in a window. 0 lets none pass.
	Max uint64
	// Window is the length of the window; positive.
	Window time.Duration
	// Sliding asks for a window that ends now instead of one that starts at a multiple of Window since 1970 UTC.
	Sliding bool
}

// Decision is the answer to one request for admission.
type Decision struct {
	OK bool
	// Limit is the bound that was applied and Remaining how much of it is left after this request.
	Limit, Remaining uint64
	// Reset is how long it takes until more may pass than Remaining says: the end of a fixed window; of a sliding
	// one its length, or when refused the time until the same request would pass.
	Reset time.Duration
}

// digest hashes names so that no two lists of names run into one another.
func digest(names []string) [sha256.Size]byte {
	var stack [128]byte
	b := stack[:0]
	for _, n := range names {
		b = binary.AppendUvarint(b, uint64(len(n)))
		b = append(b, n...)
	}
	return sha256.Sum256(b)
}
