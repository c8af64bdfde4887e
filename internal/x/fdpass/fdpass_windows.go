package fdpass

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Conn is one end. There is none on this system, which hands no files on with messages.
type Conn struct{}

// Pair fails.
func Pair() (*Conn, *os.File, error) {
	return nil, nil, fmt.Errorf("hand open files to another process: %w", errors.ErrUnsupported)
}

// FromFile fails; it closes the file.
func FromFile(f *os.File) (*Conn, error) {
	return nil, errors.Join(fmt.Errorf("take open files from another process: %w", errors.ErrUnsupported), f.Close())
}

// Send fails.
func (*Conn) Send(any, []*os.File, time.Duration) error { return errors.ErrUnsupported }

// Receive fails.
func (*Conn) Receive(any, time.Duration) ([]*os.File, error) { return nil, errors.ErrUnsupported }

// Close ends the conversation.
func (*Conn) Close() error { return nil }
