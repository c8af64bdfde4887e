package soak

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// blockSize is odd, so that what is lost or doubled in powers of two shows.
const blockSize = 65521

// block is what bodies consist of, again and again.
var block = sync.OnceValue(func() []byte {
	b := make([]byte, blockSize)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
})

// body is a body to be sent, in pieces with pauses. It is also a reader.
type body struct {
	left, piece int
	pause       time.Duration
	chunked     bool
	at          int
}

// time is how long sending takes at least.
func (b *body) time() time.Duration { return time.Duration(b.left/b.piece) * b.pause }

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.at > 0 {
		wait(b.pause)
	}
	n := copy(p[:min(len(p), b.left, b.piece)], block()[b.at%blockSize:])
	b.at, b.left = b.at+n, b.left-n
	return n, nil
}

// sendTo sends the body as HTTP/1.1 frames it.
func (b *body) sendTo(w io.Writer) error {
	p := make([]byte, b.piece)
	for {
		n, err := b.Read(p)
		switch {
		case err != nil && b.chunked:
			_, err = io.WriteString(w, "0\r\n\r\n")
			return err
		case err != nil:
			return nil
		case b.chunked:
			_, err = fmt.Fprintf(w, "%x\r\n%s\r\n", n, p[:n])
		default:
			_, err = w.Write(p[:n])
		}
		if err != nil {
			return fmt.Errorf("send a body, %d bytes from its end: %w", b.left, err)
		}
	}
}

// check takes in what a body of left bytes comes back as.
type check struct{ left, at int }

func (c *check) readFrom(r io.Reader) error {
	p := make([]byte, 32<<10)
	for {
		n, err := r.Read(p)
		for got := p[:n]; len(got) > 0; {
			part := min(len(got), blockSize-c.at%blockSize)
			if part > c.left || !bytes.Equal(got[:part], block()[c.at%blockSize:][:part]) {
				return fmt.Errorf("a body is not what was sent, between bytes %d and %d", c.at, c.at+part)
			}
			got, c.at, c.left = got[part:], c.at+part, c.left-part
		}
		switch {
		case err == io.EOF && c.left == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read a body, after %d bytes of %d: %w", c.at, c.at+c.left, err)
		}
	}
}
