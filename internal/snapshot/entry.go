package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ReaderVersion is the newest form of entries that this build can run. An entry with a higher MinReader is kept
// and passed over if it is not critical, and refuses the whole checkpoint if it is (contract N-2).
const ReaderVersion = 3

// ReaderHostTLS is the form of entries of hostnames that ask something of TLS. A gateway that does not know it would let in
// whoever has no certificate.
const ReaderHostTLS = 2

// ReaderClientCRL is the form of entries of hostnames that have lists of revoked client certificates. A gateway that does
// not know them would let those in.
const ReaderClientCRL = 3

// The limits of one entry. They hold for what is made and for what is received.
const (
	MaxKeyBytes   = 512
	MaxEntryBytes = 16 << 20
)

// ErrMalformed is in the chain of every error about bytes that do not decode.
var ErrMalformed = errors.New("malformed")

// Hash is a SHA-256 digest.
type Hash [sha256.Size]byte

// String returns the digest in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero tells whether h is the digest of nothing: an empty bucket or shard.
func (h Hash) IsZero() bool { return h == Hash{} }

// Entry is one piece of a configuration. Bytes is the JSON of the content type of the key's class. An Entry is
// immutable: whoever holds one must not change what Bytes points to.
type Entry struct {
	Key       string
	Seq       uint64 // change set that last changed it; informative, not covered by Hash
	Hash      Hash   // over all other fields but Seq
	MinReader uint16
	Critical  bool
	Bytes     []byte
}

// NewEntry makes the entry of a content. The same content always gives the same bytes.
func NewEntry(key string, seq uint64, minReader uint16, critical bool, content any) (Entry, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(content); err != nil {
		return Entry{}, fmt.Errorf("encode entry %q: %w", key, err)
	}
	// Encode ends with a newline; clipping also drops the buffer's spare room, which a set would hold on to.
	return RawEntry(key, seq, minReader, critical, bytes.Clone(bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})))
}

// RawEntry makes an entry of bytes that are already encoded, such as bytes that were received. It takes
// ownership of raw.
func RawEntry(key string, seq uint64, minReader uint16, critical bool, raw []byte) (Entry, error) {
	switch {
	case key == "" || len(key) > MaxKeyBytes || !utf8.ValidString(key):
		return Entry{}, fmt.Errorf("%w entry key %.80q: it must be 1 to %d bytes of UTF-8", ErrMalformed, key, MaxKeyBytes)
	case len(raw) > MaxEntryBytes:
		return Entry{}, fmt.Errorf("%w entry %q: it has %d bytes and may have %d", ErrMalformed, key, len(raw), MaxEntryBytes)
	}
	e := Entry{Key: key, Seq: seq, MinReader: minReader, Critical: critical, Bytes: raw}
	e.Hash = e.digest()
	return e, nil
}

// digest computes what Hash must be. Every field has its length in front or a fixed one, so that no two entries
// share an input.
func (e *Entry) digest() Hash {
	h := sha256.New()
	head := make([]byte, 0, 64+len(e.Key))
	head = append(head, "hansa entry 1\x00"...)
	head = appendString(head, e.Key)
	head = binary.BigEndian.AppendUint16(head, e.MinReader)
	head = append(head, flag(e.Critical))
	h.Write(head)
	h.Write(e.Bytes)
	var sum Hash
	h.Sum(sum[:0])
	return sum
}

// Class returns the part of the key before the first "/".
func (e *Entry) Class() string {
	class, _, _ := strings.Cut(e.Key, "/")
	return class
}

// Size is what an entry counts for in Set.Bytes and Checkpoint.Bytes.
func (e *Entry) Size() uint64 { return uint64(len(e.Key) + len(e.Bytes)) }

// Decode returns the content of an entry. Fields that T does not know are passed over: a newer control node may
// add fields, and raises MinReader when they must not be ignored.
func Decode[T any](e Entry) (T, error) {
	var content T
	if err := json.Unmarshal(e.Bytes, &content); err != nil {
		return content, fmt.Errorf("decode entry %q: %w: %w", e.Key, ErrMalformed, err)
	}
	return content, nil
}

// AppendEntry appends the binary form of an entry, which ParseEntry reads. The hash is not part of it: the reader
// computes it.
func AppendEntry(dst []byte, e Entry) []byte {
	dst = appendString(dst, e.Key)
	dst = binary.AppendUvarint(dst, e.Seq)
	dst = binary.AppendUvarint(dst, uint64(e.MinReader))
	dst = append(dst, flag(e.Critical))
	return appendString(dst, e.Bytes)
}

// ParseEntry reads one entry from the front of b and returns what follows. The entry shares no memory with b.
func ParseEntry(b []byte) (Entry, []byte, error) {
	r := reader[[]byte]{b: b}
	key := r.text(MaxKeyBytes)
	seq := r.uvarint()
	minReader := r.uvarint()
	critical := r.byte()
	raw := r.bytes(MaxEntryBytes)
	if minReader > 1<<16-1 || critical > 1 {
		r.fail()
	}
	if r.err != nil {
		return Entry{}, nil, fmt.Errorf("parse entry: %w", r.err)
	}
	e, err := RawEntry(key, seq, uint16(minReader), critical == 1, bytes.Clone(raw))
	return e, r.b, err
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
