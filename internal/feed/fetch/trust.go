package fetch

import (
	"errors"
	"fmt"
	"time"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
)

// errNoTrust: the node has no trust document to check signatures with.
var errNoTrust = errors.New("there is no trust document yet")

// TrustVerifier returns what Options.Verify needs: it checks checkpoints with the trust document that is in force at the
// moment, in which the root says which keys may sign and up to which epoch. Now is the clock; nil: time.Now.
func TrustVerifier(trust func() *keys.Trust, now func() time.Time) func(c snapshot.Checkpoint, held bool) error {
	if now == nil {
		now = time.Now
	}
	return func(c snapshot.Checkpoint, held bool) error {
		t := trust()
		if t == nil {
			return errNoTrust
		}
		if c.Cluster != t.Cluster {
			return fmt.Errorf("checkpoint of cluster %q, trust document of %q: %w", c.Cluster, t.Cluster, keys.ErrForeignRoot)
		}
		if c.Epoch > t.Epoch {
			return fmt.Errorf("epoch %d of the checkpoint is beyond %d, which the root has allowed", c.Epoch, t.Epoch)
		}
		return c.Verify(func(keyID string, message, signature []byte) error {
			if held {
				return t.VerifyHeld(keys.PurposeCheckpoint, keyID, message, signature)
			}
			return t.Verify(keys.PurposeCheckpoint, keyID, message, signature, now())
		})
	}
}
