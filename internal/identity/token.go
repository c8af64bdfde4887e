package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"strings"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/secret"
)

const (
	tokenPrefix     = "hj1_"
	tokenSecretSize = 32
	maxTokenText    = 4096
	maxAddresses    = 16
)

// JoinToken is what a new gateway needs to join: where the cluster is, how to know it, and the right to join once. It
// prints as its ID; only Text gives it out.
type JoinToken struct {
	// Cluster is the name of the cluster.
	Cluster string
	// ID names the token in the record; it is no secret.
	ID string
	// Root is the fingerprint of the cluster's root. The gateway believes nobody else.
	Root keys.Fingerprint
	// Secret is the right to join: 256 random bits, of which the record knows only the hash.
	Secret secret.Bytes
	// Addresses are the link addresses (host:port) of control nodes; there may be none.
	Addresses []string
}

// MintJoinToken makes a token with a new secret. The record keeps ID and SecretHash.
func MintJoinToken(cluster, id string, root keys.Fingerprint, addresses ...string) (JoinToken, error) {
	random := make([]byte, tokenSecretSize)
	_, _ = rand.Read(random) // never fails: it ends the program if the system has no randomness
	t := JoinToken{Cluster: cluster, ID: id, Root: root, Secret: secret.New(random), Addresses: addresses}
	if err := t.validate(); err != nil {
		return JoinToken{}, fmt.Errorf("mint join token: %w", err)
	}
	return t, nil
}

// SecretHash returns the SHA-256 of the secret in lower-case hexadecimal, as api/v1.JoinTokenSpec holds it.
func (t JoinToken) SecretHash() string { return HashSecret(t.Secret) }

// HashSecret returns the SHA-256 of the secret of a token in lower-case hexadecimal.
func HashSecret(s secret.Bytes) string {
	sum := sha256.Sum256(s.Reveal())
	return hex.EncodeToString(sum[:])
}

// String names the token without its secret.
func (t JoinToken) String() string { return "join token " + t.ID }

// Text returns the token as it is handed over, "hj1_…". It is a secret.
func (t JoinToken) Text() string {
	b := append([]byte(nil), t.Root[:]...)
	b = append(b, t.Secret.Reveal()...)
	for _, s := range append([]string{t.Cluster, t.ID}, t.Addresses...) {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	// The checksum is there to tell a token that was not copied whole from one that is refused.
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseJoinToken reads what Text returns; space around it is cut off. The error is ErrBadToken; it does not repeat
// the text.
func ParseJoinToken(text string) (JoinToken, error) {
	t, err := parseJoinToken(strings.TrimSpace(text))
	if err != nil {
		return JoinToken{}, fmt.Errorf("%w: %w", ErrBadToken, err)
	}
	return t, nil
}

func parseJoinToken(text string) (JoinToken, error) {
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return JoinToken{}, fmt.Errorf("it does not begin with %q", tokenPrefix)
	}
	if len(body) > maxTokenText {
		return JoinToken{}, fmt.Errorf("it is longer than %d characters", maxTokenText)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || strings.ContainsAny(body, "\r\n") { // the decoder passes over line breaks
		return JoinToken{}, fmt.Errorf("it has characters that do not belong in it, or lacks some") // the cause would show parts
	}
	if len(b) < 4 || crc32.ChecksumIEEE(b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return JoinToken{}, fmt.Errorf("its checksum is wrong: it was not copied whole")
	}
	b = b[:len(b)-4]
	var t JoinToken
	if len(b) < len(t.Root)+tokenSecretSize {
		return JoinToken{}, fmt.Errorf("it is too short")
	}
	b = b[copy(t.Root[:], b):]
	t.Secret, b = secret.New(b[:tokenSecretSize]), b[tokenSecretSize:]
	var fields []string
	for len(b) > 0 {
		n := int(b[0])
		if n > len(b)-1 {
			return JoinToken{}, fmt.Errorf("it is cut short")
		}
		fields, b = append(fields, string(b[1:1+n])), b[1+n:]
	}
	if len(fields) < 2 {
		return JoinToken{}, fmt.Errorf("it names no cluster")
	}
	t.Cluster, t.ID = fields[0], fields[1]
	t.Addresses = slices.Clip(fields[2:])
	return t, t.validate()
}

func (t JoinToken) validate() error {
	if err := validateName("cluster", t.Cluster); err != nil {
		return err
	}
	if err := validateName("token", t.ID); err != nil {
		return err
	}
	if len(t.Addresses) > maxAddresses {
		return fmt.Errorf("%d addresses are more than %d", len(t.Addresses), maxAddresses)
	}
	for _, a := range t.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil || len(a) > 255 {
			return fmt.Errorf("address %.255q: want host:port", a)
		}
	}
	return nil
}
