package keys

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"hansa.dev/hansa/internal/x/secret"
)

// SealKeySize is the size of a sealing key in bytes.
const SealKeySize = 32

// A sealed value begins with a header: the magic, the name of the key and a random salt. The key of the value is
// derived of the sealing key, the salt and the context, so that no two values share one and a value that is put in
// another's place does not open. What follows is a [Sealer.Seal] box or the chunks of a stream.
const (
	sealMagic  = "HSEAL1"
	keyTagSize = 8
	saltSize   = 32
	headerSize = len(sealMagic) + keyTagSize + saltSize
	gcmTagSize = 16
)

// SealOverhead is how much longer a value is once Seal has sealed it.
const SealOverhead = headerSize + gcmTagSize

// Sealer seals and opens what is kept on disk: AES-256-GCM with a key of its own for every value, derived with HKDF.
// Every call names a context ("localstore generation 7"), which must be the same for opening.
type Sealer struct{ keys []sealKey }

type sealKey struct {
	tag    [keyTagSize]byte
	secret secret.Bytes
}

// NewSealer makes a sealer that seals with the first of the keys and opens with any of them, so that a key can be
// replaced while older values are still about.
func NewSealer(keys ...secret.Bytes) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("sealer without a key")
	}
	s := &Sealer{}
	for i, k := range keys {
		if k.Len() != SealKeySize {
			return nil, fmt.Errorf("sealing key %d has %d bytes instead of %d", i, k.Len(), SealKeySize)
		}
		sum := sha256.Sum256(append([]byte("hansa sealing key name\x00"), k.Reveal()...))
		s.keys = append(s.keys, sealKey{tag: [keyTagSize]byte(sum[:keyTagSize]), secret: k})
	}
	return s, nil
}

// OpenSealer makes a sealer with the keys of a provider.
func OpenSealer(ctx context.Context, p Provider) (*Sealer, error) {
	keys, err := p.SealingKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("get sealing keys: %w", err)
	}
	return NewSealer(keys...)
}

// Seal returns plaintext sealed for the context.
func (s *Sealer) Seal(context string, plaintext []byte) []byte {
	out := make([]byte, headerSize, SealOverhead+len(plaintext))
	aead := s.begin(out, context)
	return aead.Seal(out, nonceOf(0, true), plaintext, nil)
}

// Open returns what was sealed for the context. The error is ErrUnseal.
func (s *Sealer) Open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) < SealOverhead {
		return nil, fmt.Errorf("open %s: %d bytes are too short: %w", context, len(sealed), ErrUnseal)
	}
	aead, err := s.resume(sealed[:headerSize], context)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nonceOf(0, true), sealed[headerSize:], nil)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, ErrUnseal)
	}
	return plaintext, nil
}

// NewWriter returns a writer that seals a stream of any length to w. Only after Close is the stream whole: a reader
// notices if the end is missing. Close does not close w.
func (s *Sealer) NewWriter(w io.Writer, context string) (io.WriteCloser, error) {
	header := make([]byte, headerSize)
	aead := s.begin(header, context)
	if _, err := w.Write(header); err != nil {
		return nil, err
	}
	return newStreamWriter(w, aead), nil
}

// NewReader returns a reader of what NewWriter sealed for the context. Nothing is returned before it is checked. A
// changed, cut or foreign stream ends with ErrUnseal.
func (s *Sealer) NewReader(r io.Reader, context string) (io.Reader, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("open %s: read header: %w", context, shortIsUnseal(err))
	}
	aead, err := s.resume(header, context)
	if err != nil {
		return nil, err
	}
	return newStreamReader(r, aead, context), nil
}

// begin fills the header of a new value and returns its cipher.
func (s *Sealer) begin(header []byte, context string) cipher.AEAD {
	key := s.keys[0]
	n := copy(header, sealMagic)
	n += copy(header[n:], key.tag[:])
	// rand.Read never fails: it ends the program if the system has no randomness.
	_, _ = rand.Read(header[n:headerSize])
	return deriveAEAD(key.secret, header[n:headerSize], context)
}

// resume returns the cipher of an existing value.
func (s *Sealer) resume(header []byte, context string) (cipher.AEAD, error) {
	rest, ok := bytes.CutPrefix(header, []byte(sealMagic))
	if !ok {
		return nil, fmt.Errorf("open %s: not a sealed value: %w", context, ErrUnseal)
	}
	for _, key := range s.keys {
		if bytes.Equal(rest[:keyTagSize], key.tag[:]) {
			return deriveAEAD(key.secret, rest[keyTagSize:], context), nil
		}
	}
	return nil, fmt.Errorf("open %s: sealed with key %x, which is not among the keys at hand: %w", context, rest[:keyTagSize], ErrUnseal)
}

func deriveAEAD(key secret.Bytes, salt []byte, context string) cipher.AEAD {
	derived, err := hkdf.Key(sha256.New, key.Reveal(), salt, "hansa at rest v1\x00"+context, SealKeySize)
	if err != nil {
		panic(err) // only for lengths that HKDF cannot make
	}
	return newGCM(derived)
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for key sizes that are not AES's
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for ciphers with another block size than AES's
	}
	return aead
}

func shortIsUnseal(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cut short: %w", ErrUnseal)
	}
	return err
}
