package fdpass

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const soon = time.Minute

func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessagesAndFiles(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	type message struct{ Text string }
	large := strings.Repeat("x", maxMessage-100)
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(a.Send(message{"one"}, []*os.File{f, socket}, soon), a.Send(message{large}, nil, soon))
	}()
	var got message
	files, err := b.Receive(&got, soon)
	if err != nil || len(files) != 2 || got.Text != "one" {
		t.Fatalf("%v, %d files, %v", got, len(files), err)
	}
	f.Close()
	if _, err := files[0].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	if text, err := os.ReadFile(path); err != nil || string(text) != "through" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	passed, err := net.FileListener(files[1])
	if err != nil {
		t.Fatal(err)
	}
	files[1].Close()
	socket.Close()
	passed.Close()
	// The listener that was shared still ends when it is closed: a socket that blocks would hang here.
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	l.Close()
	select {
	case err := <-accepted:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
	case <-time.After(soon):
		t.Error("Accept does not end")
	}
	if files, err := b.Receive(&got, soon); err != nil || len(files) != 0 || got.Text != large {
		t.Errorf("%d bytes, %d files, %v", len(got.Text), len(files), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	var v any
	if _, err := b.Receive(&v, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing is sent: %v", err)
	}
	if err := a.Send(strings.Repeat("x", maxMessage), nil, soon); err == nil {
		t.Error("a message that is too long was sent")
	}
	if err := a.Send(1, make([]*os.File, MaxFiles+1), soon); err == nil {
		t.Error("too many files were sent")
	}
	if err := a.Send("unread", nil, soon); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := a.Receive(&v, soon); err != io.EOF {
		t.Errorf("the other end is gone, with something unread: %v", err)
	}

	a, b = pair(t)
	if _, err := a.c.Write([]byte{0, 0, 0, 9, '1'}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := b.Receive(&v, soon); err != io.EOF {
		t.Errorf("the other end is gone in the middle: %v", err)
	}

	a, b = pair(t)
	if _, err := a.c.Write([]byte{255, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(&v, soon); err == nil || err == io.EOF {
		t.Errorf("a message that is too long: %v", err)
	}
}
