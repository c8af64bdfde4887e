package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hansa.dev/hansa/internal/x/durable"
	"hansa.dev/hansa/internal/x/secret"
)

// Provider gives the keys that files at rest are sealed with: the one in use first, then those it replaced.
type Provider interface {
	SealingKeys(ctx context.Context) ([]secret.Bytes, error)
}

// FileProvider reads sealing keys from a file: one key a line, 32 bytes in base64, the one in use first; lines that
// begin with "#" and empty ones do not count. A Kubernetes secret that is mounted as a file works the same way.
type FileProvider struct {
	// Path is the file.
	Path string
	// Outside, if not empty, is the data folder that the key protects: a key file inside it is refused, because
	// whoever takes the folder would have the key too.
	Outside string
	// Generate makes the file with a new key if there is none. For development, and for nodes whose operator keeps
	// the file safe.
	Generate bool
}

var _ Provider = FileProvider{}

// SealingKeys implements Provider.
func (p FileProvider) SealingKeys(context.Context) ([]secret.Bytes, error) {
	if p.Outside != "" {
		if inside, err := isInside(p.Path, p.Outside); err != nil {
			return nil, err
		} else if inside {
			return nil, fmt.Errorf("sealing key file %q is inside the data folder %q, which it is to protect: put it elsewhere", p.Path, p.Outside)
		}
	}
	if p.Generate {
		if err := generateSealingKey(p.Path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	text, err := readPrivate(p.Path)
	if err != nil {
		return nil, err
	}
	return parseSealingKeys(p.Path, text)
}

// CredentialProvider reads sealing keys from a systemd credential (LoadCredential= or LoadCredentialEncrypted= in the
// unit), in the form of a FileProvider's file.
type CredentialProvider struct {
	// Name is the name of the credential.
	Name string
	// Dir is where systemd puts credentials: the value of $CREDENTIALS_DIRECTORY.
	Dir string
}

var _ Provider = CredentialProvider{}

// SealingKeys implements Provider.
func (p CredentialProvider) SealingKeys(context.Context) ([]secret.Bytes, error) {
	if p.Dir == "" {
		return nil, fmt.Errorf("systemd credential %q: $CREDENTIALS_DIRECTORY is not set; add LoadCredential=%s:… to the unit", p.Name, p.Name)
	}
	if p.Name == "" || strings.ContainsRune(p.Name, filepath.Separator) {
		return nil, fmt.Errorf("systemd credential %q: not a name", p.Name)
	}
	path := filepath.Join(p.Dir, p.Name)
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	return parseSealingKeys(path, text)
}

// StaticProvider gives fixed keys; tests use it.
type StaticProvider []secret.Bytes

var _ Provider = StaticProvider{}

// SealingKeys implements Provider.
func (p StaticProvider) SealingKeys(context.Context) ([]secret.Bytes, error) { return p, nil }

// GenerateSealingKey makes a new sealing key.
func GenerateSealingKey() secret.Bytes {
	b := make([]byte, SealKeySize)
	_, _ = rand.Read(b) // never fails: it ends the program if the system has no randomness
	return secret.New(b)
}

func generateSealingKey(path string) error {
	if err := durable.Mkdir(filepath.Dir(path)); err != nil {
		return err
	}
	text := base64.StdEncoding.AppendEncode(nil, GenerateSealingKey().Reveal())
	return durable.CreateFile(path, 0o600, durable.Bytes(append(text, '\n')))
}

func parseSealingKeys(path string, text []byte) ([]secret.Bytes, error) {
	var keys []secret.Bytes
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.AppendDecode(nil, line)
		if err != nil || len(key) != SealKeySize {
			return nil, fmt.Errorf("sealing key file %q, line %d: want 32 bytes in base64 (head -c 32 /dev/urandom | base64)", path, i+1)
		}
		keys = append(keys, secret.New(key))
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("sealing key file %q holds no key (head -c 32 /dev/urandom | base64)", path)
	}
	return keys, nil
}

// isInside tells whether path is in dir, links resolved as far as the files exist.
func isInside(path, dir string) (bool, error) {
	resolve := func(p string) (string, error) {
		abs, err := filepath.Abs(p)
		if err != nil {
			return "", fmt.Errorf("resolve %q: %w", p, err)
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			return real, nil
		}
		if real, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			return filepath.Join(real, filepath.Base(abs)), nil
		}
		return abs, nil
	}
	p, err := resolve(path)
	if err != nil {
		return false, err
	}
	d, err := resolve(dir)
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(d, p)
	if err != nil {
		return false, fmt.Errorf("compare %q with %q: %w", path, dir, err)
	}
	return rel != ".." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator)), nil
}
