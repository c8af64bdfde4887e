package handshake

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// counted counts the writes.
type counted struct {
	net.Conn
	writes int
	fails  bool
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes++
	if c.fails {
		return 0, errors.New("broken")
	}
	return c.Conn.Write(p)
}

// TestWrites: what is written together is sent together, and arrives in order.
func TestWrites(t *testing.T) {
	t.Parallel()
	certificates, _ := store(t)
	s, err := New(Options{Certificates: certificates})
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	type made struct {
		conn *Conn
		err  error
	}
	done := make(chan made)
	go func() {
		c, err := s.Handshake(there)
		done <- made{c, err}
	}()
	client := tls.Client(here, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
	received := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(client)
		received <- all
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	to := &counted{Conn: there}
	nc, err := m.conn.Over(to)
	if err != nil {
		t.Fatal(err)
	}
	stream := nc.(*Stream)
	var want []byte
	piece := func(n int) []byte {
		p := bytes.Repeat([]byte{byte(len(want))}, n)
		want = append(want, p...)
		return p
	}
	for _, test := range []struct {
		name   string
		pieces [3]int
		writes int
	}{
		{"short", [3]int{100, 0, 0}, 1},
		{"a record", [3]int{maxRecord, 0, 0}, 1},
		{"two records", [3]int{maxRecord + 1, 0, 0}, 1},
		{"64 kB", [3]int{64 << 10, 0, 0}, 1},
		{"three pieces", [3]int{100, 32 << 10, 2}, 1},
		{"200 kB", [3]int{10, 200_000, 10}, 4},
	} {
		to.writes = 0
		p, q, r := piece(test.pieces[0]), piece(test.pieces[1]), piece(test.pieces[2])
		var n int
		if len(q)+len(r) == 0 {
			n, err = stream.Write(p)
		} else {
			n, err = stream.WriteAll(p, q, r)
		}
		if n != len(p)+len(q)+len(r) || err != nil || to.writes != test.writes {
			t.Errorf("%s: %d, %v in %d writes, want %d", test.name, n, err, to.writes, test.writes)
		}
	}
	to.fails = true
	if _, err := stream.Write(make([]byte, 20_000)); err == nil {
		t.Error("a write that fails: no error")
	}
	there.Close()
	if got := <-received; !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrive, want %d", len(got), len(want))
	}
}

// records notes the types of the records that a client of TLS 1.2 receives, which are not encrypted.
type records struct {
	net.Conn
	rest  []byte
	types []byte
}

func (r *records) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.rest = append(r.rest, p[:n]...)
	for len(r.rest) >= 5 {
		size := 5 + int(binary.BigEndian.Uint16(r.rest[3:]))
		if len(r.rest) < size {
			break
		}
		r.types = append(r.types, r.rest[0])
		r.rest = r.rest[size:]
	}
	return n, err
}

// TestCloseIsSaid has the gateway end connections, for several reasons.
func TestCloseIsSaid(t *testing.T) {
	t.Parallel()
	const alert = 21
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "GET /large HTTP/1.0\r\nHost: a.example\r\n\r\n", "nonsense\r\n\r\n"} {
		r := newRig(t, Options{})
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		seen := &records{Conn: nc}
		c := tls.Client(seen, &tls.Config{ServerName: "a.example", RootCAs: serverCA.ca.Pool(), MaxVersion: tls.VersionTLS12})
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(c); err != nil || len(answer) == 0 {
			t.Errorf("%q: answered with %d bytes, %v", request, len(answer), err)
		}
		if n := len(seen.types); n == 0 || seen.types[n-1] != alert || len(seen.rest) > 0 {
			t.Errorf("%q: the records are of the types %v, want an alert (%d) at the end", request, seen.types, alert)
		}
	}
}
