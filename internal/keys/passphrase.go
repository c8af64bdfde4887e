package keys

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"

	"hansa.dev/hansa/internal/x/secret"
)

// passphraseMagic begins a stream that a passphrase opens. The cost of the derivation and the salt follow.
const passphraseMagic = "HPASS1"

// MinPassphrase is the shortest passphrase that is accepted, in bytes.
const MinPassphrase = 12

// argonCost is the cost of Argon2id. The values used for writing are the second recommendation of RFC 9106, §4
// (64 MiB, three passes); the limits bound what a file can make a reader spend.
type argonCost struct {
	Passes uint8
	Lanes  uint8
	Memory uint32  // KiB
	Pad    [2]byte // zero
}

const (
	argonPasses    = 3
	argonLanes     = 4
	argonMemory    = 64 << 10
	argonMaxPasses = 16
	argonMaxLanes  = 16
	argonMaxMemory = 512 << 10
)

const passphraseHeader = len(passphraseMagic) + 8 + saltSize

// NewPassphraseWriter returns a writer that seals a stream to w under a passphrase. Only after Close is the stream
// whole. Close does not close w.
func NewPassphraseWriter(w io.Writer, passphrase secret.Bytes, context string) (io.WriteCloser, error) {
	if passphrase.Len() < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has %d bytes: at least %d are needed", passphrase.Len(), MinPassphrase)
	}
	var header bytes.Buffer
	header.WriteString(passphraseMagic)
	cost := argonCost{Passes: argonPasses, Lanes: argonLanes, Memory: argonMemory}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: it ends the program if the system has no randomness
	if err := errors.Join(binary.Write(&header, binary.BigEndian, cost), binary.Write(&header, binary.BigEndian, salt)); err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	if _, err := w.Write(header.Bytes()); err != nil {
		return nil, err
	}
	return newStreamWriter(w, passphraseAEAD(passphrase, cost, salt, context)), nil
}

// NewPassphraseReader returns a reader of what NewPassphraseWriter sealed for the context. The error, here or from
// Read, is ErrUnseal for a wrong passphrase and for a changed stream; the two cannot be told apart.
func NewPassphraseReader(r io.Reader, passphrase secret.Bytes, context string) (io.Reader, error) {
	header := make([]byte, passphraseHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("open %s: read header: %w", context, shortIsUnseal(err))
	}
	rest, ok := bytes.CutPrefix(header, []byte(passphraseMagic))
	if !ok {
		return nil, fmt.Errorf("open %s: not sealed with a passphrase: %w", context, ErrUnseal)
	}
	var cost argonCost
	n, err := binary.Decode(rest, binary.BigEndian, &cost)
	if err != nil {
		return nil, fmt.Errorf("open %s: decode header: %w", context, err)
	}
	if cost.Passes == 0 || cost.Passes > argonMaxPasses || cost.Lanes == 0 || cost.Lanes > argonMaxLanes ||
		cost.Memory < 8*uint32(cost.Lanes) || cost.Memory > argonMaxMemory || cost.Pad != [2]byte{} {
		return nil, fmt.Errorf("open %s: the header asks for %d passes over %d KiB: %w", context, cost.Passes, cost.Memory, ErrUnseal)
	}
	return newStreamReader(r, passphraseAEAD(passphrase, cost, rest[n:], context), context), nil
}

func passphraseAEAD(passphrase secret.Bytes, cost argonCost, salt []byte, context string) cipher.AEAD {
	stretched := argon2.IDKey(passphrase.Reveal(), salt, uint32(cost.Passes), cost.Memory, cost.Lanes, SealKeySize)
	return deriveAEAD(secret.New(stretched), salt, "passphrase "+context)
}
