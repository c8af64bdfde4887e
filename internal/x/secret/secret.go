// Package secret holds values that must not appear in logs, dumps or error messages.
//
// A [Bytes] prints, marshals and logs as "[redacted]", whatever verb or encoder is used; only Reveal gives the value
// out, so that grep finds every place that does. It is used by keys, identity and every configuration type that
// carries a password.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every printed form of a secret says.
const Redacted = "[redacted]"

// Bytes is a secret value. The zero value is the empty secret. It is safe for concurrent use.
type Bytes struct{ value []byte }

// New makes a secret of a copy of b.
func New(b []byte) Bytes { return Bytes{value: append([]byte(nil), b...)} }

// Reveal returns the value. The caller must not change it.
func (b Bytes) Reveal() []byte { return b.value }

// Len returns the length of the value in bytes.
func (b Bytes) Len() int { return len(b.value) }

// Equal compares in constant time.
func (b Bytes) Equal(c Bytes) bool { return subtle.ConstantTimeCompare(b.value, c.value) == 1 }

// String returns "[redacted]".
func (b Bytes) String() string { return Redacted }

// Format writes "[redacted]" for every verb, also %x and %#v.
func (b Bytes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalText returns "[redacted]", so that JSON, YAML and text encoders do not show the value.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText takes the text as the value, so that a configuration field can be a secret.
func (b *Bytes) UnmarshalText(text []byte) error {
	*b = New(text)
	return nil
}

// LogValue returns "[redacted]".
func (b Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }
