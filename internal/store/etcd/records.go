package etcd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hansa.dev/hansa/internal/store"
)

// The keys.
const (
	keyMeta      = "meta"
	keyHead      = "head"
	keyImage     = "image"
	prefixChange = "change/"
	prefixPiece  = "piece/"
)

// formatVersion is the form of the record that this build reads and writes.
const formatVersion = 1

const (
	// maxAuditEntries is how many changed resources a record names.
	maxAuditEntries = 1000
	// maxRecord is the size of the largest value under change/ and image, so that a transaction with two of them and
	// the keys is below etcd's limit of 1.5 MiB.
	maxRecord = 640 << 10
)

// digest is a SHA-256; in JSON it is hex.
type digest [sha256.Size]byte

func digestOf(b []byte) digest { return sha256.Sum256(b) }

// String returns d in hex.
func (d digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *digest) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("digest of %d characters, want %d", len(b), hex.EncodedLen(len(d)))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// metaRecord is the value of meta. It is written once.
type metaRecord struct {
	Format    int       `json:"format"`
	Cluster   string    `json:"cluster"`
	CreatedAt time.Time `json:"createdAt"`
}

// check tells whether this build can read the record.
func (m metaRecord) check() error {
	if m.Format != formatVersion {
		return fmt.Errorf("the record has format %d, this Hansa reads %d: use the version that wrote it, or a newer one", m.Format, formatVersion)
	}
	return nil
}

// headRecord is the value of head.
type headRecord struct {
	store.Version
	// Hash is that of the record of the change set; in the head of an empty record it is that of its meta.
	Hash digest `json:"hash"`
}

// changeRecord is the value of change/<seq>.
type changeRecord struct {
	store.Version
	Previous digest `json:"previous"` // the hash in the head before
	// Nonce tells two change sets apart that are equal otherwise, so that a committer knows its own.
	Nonce string     `json:"nonce"`
	At    time.Time  `json:"at"` // by the clock of the node that committed it
	Info  store.Info `json:"info"`
	// Pieces hold the changes; Bytes is how long these are, not compressed.
	Pieces      []digest           `json:"pieces,omitempty"`
	Bytes       int64              `json:"bytes"`
	Changes     []store.AuditEntry `json:"changes,omitempty"`
	Omitted     int                `json:"omitted,omitempty"` // from Changes
	Credentials int                `json:"credentials,omitempty"`
}

// imageRecord is the value of image: where the whole content at one version is.
type imageRecord struct {
	headRecord
	At   time.Time `json:"at"`
	List []digest  `json:"list"` // pieces with the JSON list of the image's parts
}

func changeKey(seq uint64) string { return fmt.Sprintf("%s%020d", prefixChange, seq) }

func pieceKey(d digest) string { return prefixPiece + d.String() }

// parseChangeKey returns the seq in a key of a change set.
func parseChangeKey(key string) (uint64, error) {
	s, ok := strings.CutPrefix(key, prefixChange)
	if !ok || len(s) != 20 {
		return 0, fmt.Errorf("%q is not the key of a change set", key)
	}
	return strconv.ParseUint(s, 10, 64)
}

// parsePieceKey returns the digest in a key of a piece.
func parsePieceKey(key string) (d digest, err error) {
	s, ok := strings.CutPrefix(key, prefixPiece)
	if !ok {
		return d, fmt.Errorf("%q is not the key of a piece", key)
	}
	return d, d.UnmarshalText([]byte(s))
}

// encode returns the JSON of one of the records above.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// decode reads what encode wrote under key.
func decode(key string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return corrupt("read %s: %w", key, err)
	}
	return nil
}
