package snapshot

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Checkpoint is the signed statement of what one view's content is. A view is what one group of readers sees:
// the configuration of a gateway group ([ConfigView]) or the credentials of an organization ([CredentialView]).
type Checkpoint struct {
	Cluster   string
	Epoch     uint64
	Seq       uint64
	View      string
	Root      Hash
	Count     uint32
	Bytes     uint64
	Compiler  string
	IssuedAt  time.Time
	KeyID     string
	Signature []byte // Ed25519 over SignedBytes
}

// The limits of the fields of a received checkpoint.
const (
	maxNameBytes      = 256
	maxSignatureBytes = 256
)

// ErrMismatch is in the chain of an error about content that is not what its checkpoint says.
var ErrMismatch = errors.New("the content is not what the checkpoint says")

// ConfigView names the view of a gateway group's configuration.
func ConfigView(organization, group string) string { return organization + "/" + group }

// CredentialView names the view of an organization's credentials. No gateway group can have that name.
func CredentialView(organization string) string { return organization + "/@credentials" }

// Compare orders checkpoints of one view by (epoch, seq): a higher epoch is newer, whatever the seq.
func (c Checkpoint) Compare(d Checkpoint) int {
	return cmp.Or(cmp.Compare(c.Epoch, d.Epoch), cmp.Compare(c.Seq, d.Seq))
}

// SignedBytes returns what the signature covers: every field but Signature, each with its length.
func (c Checkpoint) SignedBytes() []byte {
	b := make([]byte, 0, 320)
	b = append(b, "hansa checkpoint 1\x00"...)
	b = appendString(b, c.Cluster)
	b = binary.BigEndian.AppendUint64(b, c.Epoch)
	b = binary.BigEndian.AppendUint64(b, c.Seq)
	b = appendString(b, c.View)
	b = append(b, c.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Count))
	b = binary.BigEndian.AppendUint64(b, c.Bytes)
	b = appendString(b, c.Compiler)
	b = binary.BigEndian.AppendUint64(b, uint64(c.IssuedAt.UnixNano()))
	return appendString(b, c.KeyID)
}

// Sign sets KeyID and Signature. sign signs with the key of that ID.
func (c *Checkpoint) Sign(keyID string, sign func(message []byte) ([]byte, error)) error {
	c.KeyID, c.Signature = keyID, nil
	sig, err := sign(c.SignedBytes())
	if err != nil {
		return fmt.Errorf("sign checkpoint %d.%d of %q: %w", c.Epoch, c.Seq, c.View, err)
	}
	c.Signature = sig
	return nil
}

// Verify checks the signature. verify says whether the signature over message was made by the key of that ID,
// and whether that key may sign checkpoints.
func (c Checkpoint) Verify(verify func(keyID string, message, signature []byte) error) error {
	if err := verify(c.KeyID, c.SignedBytes(), c.Signature); err != nil {
		return fmt.Errorf("verify checkpoint %d.%d of %q: %w", c.Epoch, c.Seq, c.View, err)
	}
	return nil
}

// Content is what a checkpoint can stand over: a Set or a table of Credentials.
type Content interface {
	Root() Hash
	Len() int
	Bytes() uint64
}

// Describe sets the fields that follow from the content.
func (c *Checkpoint) Describe(content Content) {
	c.Root, c.Count, c.Bytes = content.Root(), uint32(content.Len()), content.Bytes()
}

// Matches returns nil if the content is what c says, and otherwise an error with ErrMismatch in its chain.
func (c Checkpoint) Matches(content Content) error {
	if c.Root != content.Root() || uint64(c.Count) != uint64(content.Len()) || c.Bytes != content.Bytes() {
		return fmt.Errorf("checkpoint %d.%d of %q over %d pieces with root %.8s; found %d with root %.8s: %w",
			c.Epoch, c.Seq, c.View, c.Count, c.Root, content.Len(), content.Root(), ErrMismatch)
	}
	return nil
}

// AppendCheckpoint appends the binary form of a checkpoint, which ParseCheckpoint reads.
func AppendCheckpoint(dst []byte, c Checkpoint) []byte {
	dst = appendString(dst, c.SignedBytes())
	return appendString(dst, c.Signature)
}

// ParseCheckpoint reads a checkpoint from the front of b and returns what follows. It checks no signature.
func ParseCheckpoint(b []byte) (Checkpoint, []byte, error) {
	outer := reader[[]byte]{b: b}
	r := reader[[]byte]{b: outer.bytes(8 * maxNameBytes)}
	if string(r.take(len("hansa checkpoint 1\x00"))) != "hansa checkpoint 1\x00" {
		r.fail()
	}
	var c Checkpoint
	c.Cluster = r.text(maxNameBytes)
	c.Epoch = r.uint64()
	c.Seq = r.uint64()
	c.View = r.text(maxNameBytes)
	c.Root = r.hash()
	count := r.uint64()
	c.Count = uint32(count)
	c.Bytes = r.uint64()
	c.Compiler = r.text(maxNameBytes)
	c.IssuedAt = time.Unix(0, int64(r.uint64())).UTC()
	c.KeyID = r.text(maxNameBytes)
	if len(r.b) > 0 || count > 1<<32-1 {
		r.fail()
	}
	c.Signature = append([]byte(nil), outer.bytes(maxSignatureBytes)...)
	if err := cmp.Or(r.err, outer.err); err != nil {
		return Checkpoint{}, nil, fmt.Errorf("parse checkpoint: %w", err)
	}
	return c, outer.b, nil
}
