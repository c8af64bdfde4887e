package snapshot

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() Checkpoint {
	c := Checkpoint{Cluster: "c1", Epoch: 2, Seq: 7, View: ConfigView("acme", "eu"), Compiler: "1", IssuedAt: time.Unix(1, 5).UTC()}
	c.Describe(NewSet())
	return c
}

func TestCheckpointSignature(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(keyID string, message, signature []byte) error {
		if keyID != "k" || !ed25519.Verify(public, message, signature) {
			return errors.New("bad signature")
		}
		return nil
	}
	c := sample()
	if err := c.Sign("k", func(m []byte) ([]byte, error) { return ed25519.Sign(private, m), nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(verify); err != nil {
		t.Fatal(err)
	}
	parsed, rest, err := ParseCheckpoint(append(AppendCheckpoint(nil, c), "tail"...))
	if err != nil || string(rest) != "tail" {
		t.Fatalf("ParseCheckpoint: rest %q, error %v", rest, err)
	}
	if diff := cmp.Diff(c, parsed); diff != "" {
		t.Fatalf("parsed (-want +got)\n%s", diff)
	}
	for name, change := range map[string]func(*Checkpoint){
		"cluster":  func(c *Checkpoint) { c.Cluster = "c2" },
		"epoch":    func(c *Checkpoint) { c.Epoch++ },
		"seq":      func(c *Checkpoint) { c.Seq++ },
		"view":     func(c *Checkpoint) { c.View = ConfigView("acme", "us") },
		"root":     func(c *Checkpoint) { c.Root[0]++ },
		"count":    func(c *Checkpoint) { c.Count++ },
		"bytes":    func(c *Checkpoint) { c.Bytes++ },
		"compiler": func(c *Checkpoint) { c.Compiler = "2" },
		"issuedAt": func(c *Checkpoint) { c.IssuedAt = c.IssuedAt.Add(1) },
		"keyID":    func(c *Checkpoint) { c.KeyID = "l" },
		// The border between two fields must count as well.
		"border": func(c *Checkpoint) { c.Cluster, c.KeyID = "c", "1k" },
	} {
		forged := c
		change(&forged)
		if forged.Verify(verify) == nil {
			t.Errorf("the signature holds after a change of %s", name)
		}
	}
}

func TestCheckpointOrder(t *testing.T) {
	t.Parallel()
	low, high := Checkpoint{Epoch: 1, Seq: 900}, Checkpoint{Epoch: 2, Seq: 1}
	if low.Compare(high) != -1 || high.Compare(low) != 1 || low.Compare(low) != 0 {
		t.Error("a higher epoch must be newer, whatever the seq")
	}
	c := sample()
	if err := c.Matches(NewSet()); err != nil {
		t.Error(err)
	}
	if err := c.Matches(NewSet().With([]Entry{entry(t, "a/b", "x")}, nil)); !errors.Is(err, ErrMismatch) {
		t.Errorf("Matches of another set: error %v, want ErrMismatch", err)
	}
	if c.Matches(NewCredentials()) == nil {
		t.Error("the empty table of credentials passes for the empty set")
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(AppendCheckpoint(nil, sample()))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, rest, err := ParseCheckpoint(in)
		if err != nil {
			return
		}
		if out := AppendCheckpoint(nil, c); !bytes.Equal(out, in[:len(in)-len(rest)]) {
			t.Fatalf("parsed %x and wrote %x", in[:len(in)-len(rest)], out)
		}
	})
}
