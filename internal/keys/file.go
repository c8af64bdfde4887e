package keys

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"hansa.dev/hansa/internal/x/durable"
)

// maxKeyFile bounds what is read of a key file.
const maxKeyFile = 64 << 10

// SavePrivateKey writes a private key to a new file with mode 0600: sealed, or without a sealer as PKCS #8 in PEM. It
// takes what x509.MarshalPKCS8PrivateKey takes. An existing file is never overwritten: the error is fs.ErrExist.
func SavePrivateKey(path string, sealer *Sealer, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode private key for %q: %w", path, err)
	}
	if sealer == nil {
		return durable.CreateFile(path, 0o600, durable.Bytes(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	}
	return durable.CreateFile(path, 0o600, durable.Bytes(sealer.Seal(fileContext, der)))
}

// fileContext is what every sealed key file is bound to. Its name is not, so that it may be moved: what each holds is
// checked against the ID, certificate or fingerprint that it must belong to.
const fileContext = "private key file"

// LoadPrivateKey reads what SavePrivateKey wrote, in either form; a sealed file needs a sealer. A file that everybody may
// read is refused. The error is fs.ErrNotExist if there is no such file and ErrUnseal if it was sealed with another key.
func LoadPrivateKey(path string, sealer *Sealer) (crypto.PrivateKey, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	der := []byte(nil)
	switch block, _ := pem.Decode(text); {
	case block != nil && block.Type == "PRIVATE KEY":
		der = block.Bytes
	case !bytes.HasPrefix(text, []byte(sealMagic)):
		return nil, fmt.Errorf("key file %q: neither sealed nor a PEM block \"PRIVATE KEY\" (PKCS #8)", path)
	case sealer == nil:
		return nil, fmt.Errorf("key file %q: it is sealed, and no at-rest key is given: %w", path, ErrUnseal)
	default:
		if der, err = sealer.Open(fileContext, text); err != nil {
			return nil, fmt.Errorf("key file %q: %w", path, err)
		}
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("key file %q: %w", path, err)
	}
	return key, nil
}

// SealPrivateKey seals a key file that SavePrivateKey wrote without a sealer, in place. One that is sealed already is
// left alone.
func SealPrivateKey(path string, sealer *Sealer) error {
	text, err := readPrivate(path)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(text, []byte(sealMagic)) {
		return nil
	}
	key, err := LoadPrivateKey(path, sealer)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode private key for %q: %w", path, err)
	}
	if err := durable.WriteFile(path, 0o600, durable.Bytes(sealer.Seal(fileContext, der))); err != nil {
		return fmt.Errorf("seal key file %q: %w", path, err)
	}
	return nil
}

func loadEd25519(path string, sealer *Sealer) (ed25519.PrivateKey, error) {
	key, err := LoadPrivateKey(path, sealer)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key file %q holds a %T, not an Ed25519 key", path, key)
	}
	return private, nil
}

// readPrivate reads a small file that others must not be able to read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close() // read only: nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 {
		return nil, fmt.Errorf("key file %q has mode %#o: everybody may use it; run chmod 600 on it", path, perm)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("key file %q is larger than %d bytes", path, maxKeyFile)
	}
	return b, nil
}
