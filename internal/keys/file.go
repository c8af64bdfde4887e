package keys

import (
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

// SavePrivateKey writes a private key (PKCS #8 in PEM) to a new file with mode 0600. It takes what
// x509.MarshalPKCS8PrivateKey takes. An existing file is never overwritten: the error is fs.ErrExist.
func SavePrivateKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode private key for %q: %w", path, err)
	}
	return durable.CreateFile(path, 0o600, durable.Bytes(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// LoadPrivateKey reads what SavePrivateKey wrote. A file that everybody may read is refused. The error is
// fs.ErrNotExist if there is no such file.
func LoadPrivateKey(path string) (crypto.PrivateKey, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("key file %q: no PEM block \"PRIVATE KEY\" (PKCS #8)", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key file %q: %w", path, err)
	}
	return key, nil
}

func loadEd25519(path string) (ed25519.PrivateKey, error) {
	key, err := LoadPrivateKey(path)
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
