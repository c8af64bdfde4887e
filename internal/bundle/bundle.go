package bundle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/secret"
)

// Bundle is the content of a bundle.
type Bundle struct {
	Trust *keys.Trust
	// Config is the checkpoint over Set, CredentialConfig the one over Credentials.
	Config           snapshot.Checkpoint
	Set              *snapshot.Set
	CredentialConfig snapshot.Checkpoint
	Credentials      *snapshot.Credentials
	// JoinTokens are for enrolment; a bundle that has any must be sealed with a passphrase.
	JoinTokens []string
	// GroupKeys open the secrets in Set; a bundle that has any must be sealed with a passphrase.
	GroupKeys keys.GroupKeys
	// Control are the link addresses (host:port) of control nodes.
	Control   []string
	CreatedAt time.Time

	signed signedManifest
}

// Why a bundle is refused, beside the errors of keys and snapshot.
var (
	ErrNotBundle       = errors.New("not a bundle")
	ErrDamaged         = errors.New("the bundle is damaged, or was changed by somebody")
	ErrNeedsPassphrase = errors.New("the bundle is sealed: give the passphrase file that it was made with")
	ErrUnsealedSecrets = errors.New("a bundle with join tokens or group keys must be sealed with a passphrase")
	ErrUnsigned        = errors.New("the bundle is not signed")
)

// The limits of what Read accepts.
const (
	maxManifest  = 2 << 20
	maxSetBytes  = 1 << 30
	maxShard     = 64 << 20
	sealContext  = "hansa bundle"
	endOfShards  = ^uint32(0)
	headerLength = len(magic) + 1
)

const magic = "HANSABUNDLE1"

// How the body of a bundle is kept.
const (
	modePlain  = 'P'
	modeSealed = 'S'
)

// manifest is the signed part.
type manifest struct {
	Trust            []byte           `json:"trust"`
	Root             keys.Fingerprint `json:"root"`
	Config           []byte           `json:"config"`
	CredentialConfig []byte           `json:"credentialConfig"`
	CreatedAt        time.Time        `json:"createdAt"`
}

// signedManifest is a manifest and the signature over its bytes.
type signedManifest struct {
	Manifest  []byte `json:"manifest"`
	KeyID     string `json:"keyId"`
	Signature []byte `json:"signature"`
}

// header comes first. What is not signed in it needs no signature: a join token names the root that it trusts, at an
// address nobody is believed who is not of that root, and a wrong group key opens nothing.
type header struct {
	signedManifest
	JoinTokens []string `json:"joinTokens,omitempty"`
	GroupKeys  []byte   `json:"groupKeys,omitempty"`
	Control    []string `json:"control,omitempty"`
}

// Sign signs the bundle. One that was read is signed already, also when join tokens are added.
func (b *Bundle) Sign(signer keys.Signer) error {
	m, err := json.Marshal(manifest{
		Trust: b.Trust.Encoded(), Root: b.Trust.Fingerprint(), CreatedAt: b.CreatedAt,
		Config:           snapshot.AppendCheckpoint(nil, b.Config),
		CredentialConfig: snapshot.AppendCheckpoint(nil, b.CredentialConfig),
	})
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	signature, err := signer.Sign(keys.PurposeBundle, m)
	if err != nil {
		return fmt.Errorf("sign bundle: %w", err)
	}
	b.signed = signedManifest{Manifest: m, KeyID: signer.KeyID(), Signature: signature}
	return nil
}

// Write writes a signed bundle, sealed if the passphrase is not empty.
func Write(w io.Writer, b *Bundle, passphrase secret.Bytes) error {
	if b.signed.Manifest == nil {
		return ErrUnsigned
	}
	if (len(b.JoinTokens) > 0 || b.GroupKeys.Len() > 0) && passphrase.Len() == 0 {
		return ErrUnsealedSecrets
	}
	mode := byte(modePlain)
	if passphrase.Len() > 0 {
		mode = modeSealed
	}
	if _, err := w.Write(append([]byte(magic), mode)); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	body := nopCloser(w)
	if mode == modeSealed {
		sealed, err := keys.NewPassphraseWriter(w, passphrase, sealContext)
		if err != nil {
			return fmt.Errorf("seal bundle: %w", err)
		}
		body = sealed
	}
	if err := writeBody(body, b); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := body.Close(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

func writeBody(w io.Writer, b *Bundle) error {
	h := header{signedManifest: b.signed, JoinTokens: b.JoinTokens, Control: b.Control}
	if b.GroupKeys.Len() > 0 {
		h.GroupKeys = b.GroupKeys.Marshal()
	}
	head, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode header: %w", err)
	}
	var set bytes.Buffer
	if err := snapshot.EncodeSet(&set, b.Set); err != nil {
		return fmt.Errorf("encode entries: %w", err)
	}
	for _, section := range [][]byte{head, set.Bytes()} {
		if err := writeSection(w, section); err != nil {
			return err
		}
	}
	for i := range snapshot.CredentialShards {
		shard := b.Credentials.Shard(i)
		if shard == nil {
			continue
		}
		if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			return err
		}
		if err := writeSection(w, shard.AppendTo(nil)); err != nil {
			return err
		}
	}
	_, err = w.Write(binary.BigEndian.AppendUint32(nil, endOfShards))
	return err
}

// writeSection writes b after its length.
func writeSection(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// Read reads a bundle and checks all of it. With pinned the bundle must come from the root with that fingerprint;
// without, whoever gave the bundle is believed, and the caller should pin Trust.Fingerprint from then on. The
// passphrase counts only for a sealed bundle.
func Read(r io.Reader, passphrase secret.Bytes, pinned *keys.Fingerprint) (*Bundle, error) {
	head := make([]byte, headerLength)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("read bundle: %w: it does not begin with %q", ErrNotBundle, magic)
	}
	switch head[len(magic)] {
	case modePlain:
	case modeSealed:
		if passphrase.Len() == 0 {
			return nil, ErrNeedsPassphrase
		}
		sealed, err := keys.NewPassphraseReader(r, passphrase, sealContext)
		if err != nil {
			return nil, fmt.Errorf("open bundle: %w", err)
		}
		r = sealed
	default:
		return nil, fmt.Errorf("read bundle: %w: made by a newer version (mode %q)", ErrNotBundle, head[len(magic)])
	}
	b, err := readManifest(r, pinned)
	if err == nil {
		err = readContent(r, b)
	}
	if errors.Is(err, keys.ErrForeignRoot) || errors.Is(err, keys.ErrUnseal) {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w: %w", ErrDamaged, err)
	}
	return b, nil
}

func readManifest(r io.Reader, pinned *keys.Fingerprint) (*Bundle, error) {
	section, err := readSection(r, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	var (
		head header
		m    manifest
	)
	if err := json.Unmarshal(section, &head); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := json.Unmarshal(head.Manifest, &m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	root := m.Root
	if pinned != nil {
		root = *pinned
	}
	trust, err := keys.ParseTrust(m.Trust, root)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if err := trust.VerifyHeld(keys.PurposeBundle, head.KeyID, head.Manifest, head.Signature); err != nil {
		return nil, fmt.Errorf("signature of the manifest: %w", err)
	}
	b := &Bundle{Trust: trust, JoinTokens: head.JoinTokens, Control: head.Control, CreatedAt: m.CreatedAt, signed: head.signedManifest}
	if len(head.GroupKeys) > 0 {
		if b.GroupKeys, err = keys.ParseGroupKeys(head.GroupKeys); err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
	}
	if b.Config, err = readCheckpoint(m.Config, trust); err != nil {
		return nil, fmt.Errorf("checkpoint of the configuration: %w", err)
	}
	if b.CredentialConfig, err = readCheckpoint(m.CredentialConfig, trust); err != nil {
		return nil, fmt.Errorf("checkpoint of the credentials: %w", err)
	}
	return b, nil
}

func readCheckpoint(raw []byte, trust *keys.Trust) (snapshot.Checkpoint, error) {
	c, rest, err := snapshot.ParseCheckpoint(raw)
	if err != nil {
		return c, err
	}
	if len(rest) > 0 {
		return c, fmt.Errorf("%w: %d bytes after its end", snapshot.ErrMalformed, len(rest))
	}
	if c.Cluster != trust.Cluster {
		return c, fmt.Errorf("of cluster %q, but the trust is of %q", c.Cluster, trust.Cluster)
	}
	return c, c.Verify(func(keyID string, message, signature []byte) error {
		return trust.VerifyHeld(keys.PurposeCheckpoint, keyID, message, signature)
	})
}

func readContent(r io.Reader, b *Bundle) error {
	raw, err := readSection(r, maxSetBytes)
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	if b.Set, err = snapshot.DecodeSet(bytes.NewReader(raw), maxSetBytes); err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	if err := b.Config.Matches(b.Set); err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	shards := map[int]*snapshot.Shard{}
	for {
		var word [4]byte
		if _, err := io.ReadFull(r, word[:]); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		i := binary.BigEndian.Uint32(word[:])
		if i == endOfShards {
			break
		}
		if i >= snapshot.CredentialShards {
			return fmt.Errorf("credentials: %w: shard %d", snapshot.ErrMalformed, i)
		}
		raw, err := readSection(r, maxShard)
		if err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		if shards[int(i)], err = snapshot.ParseShard(int(i), raw); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
	}
	// Reading on to the end makes a sealed stream prove that nothing was cut off or added.
	if n, err := io.Copy(io.Discard, io.LimitReader(r, 1)); err != nil || n > 0 {
		return fmt.Errorf("end: %w: %w", snapshot.ErrMalformed, cmp.Or(err, errors.New("there is more behind it")))
	}
	b.Credentials = snapshot.NewCredentials().WithShards(shards)
	if err := b.CredentialConfig.Matches(b.Credentials); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	return nil
}

// readSection reads what writeSection wrote. Memory grows with what really arrives, whatever length is claimed.
func readSection(r io.Reader, limit uint32) ([]byte, error) {
	var word [4]byte
	if _, err := io.ReadFull(r, word[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(word[:])
	if n > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", snapshot.ErrMalformed, n, limit)
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
		return nil, fmt.Errorf("%w: cut off: %w", snapshot.ErrMalformed, err)
	}
	return buf.Bytes(), nil
}

type writeNopCloser struct{ io.Writer }

// Close does nothing.
func (writeNopCloser) Close() error { return nil }

func nopCloser(w io.Writer) io.WriteCloser { return writeNopCloser{w} }
