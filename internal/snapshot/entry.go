package snapshot

import "time"

// ReaderVersion is the newest form of entries that this build can run. An entry with a higher MinReader is kept
// and passed over if it is not critical, and refuses the whole checkpoint if it is (contract N-2).
const ReaderVersion = 1

// Buckets is the number of buckets that entries are spread over by the hash of their key.
const Buckets = 4096

// Hash is a SHA-256 digest.
type Hash [32]byte

// Entry is one piece of a configuration. Bytes is the JSON of the content type of the key's class.
type Entry struct {
	Key       string
	Seq       uint64 // change set that last changed it
	Hash      Hash   // over all other fields but Seq
	MinReader uint16
	Critical  bool
	Bytes     []byte
}

// Checkpoint is the signed statement of what one view's configuration is.
type Checkpoint struct {
	Cluster   string
	Epoch     uint64
	Seq       uint64
	View      string // "<organization>/<gateway group>"
	Root      Hash
	Count     uint32
	Bytes     uint64
	Compiler  string
	IssuedAt  time.Time
	KeyID     string
	Signature []byte // Ed25519 over SignedBytes
}
