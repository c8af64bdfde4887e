package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// probe sends one request after the other on a kept connection. It is for one goroutine.
type probe struct {
	addr, host string
	conn       net.Conn
	reader     *bufio.Reader
}

// answer is what a probe sees of a response.
type answer struct {
	status int
	header http.Header
}

func newProbe(addr, host string) *probe { return &probe{addr: addr, host: host} }

func (p *probe) close() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// get sends a GET, with the key in X-API-Key unless that is empty. After an error the next call connects again.
func (p *probe) get(path, key string) (answer, error) {
	a, err := p.try(path, key)
	if err != nil {
		p.close()
	}
	return a, err
}

func (p *probe) try(path, key string) (answer, error) {
	if p.conn == nil {
		conn, err := net.DialTimeout("tcp", p.addr, time.Second)
		if err != nil {
			return answer{}, err
		}
		p.conn, p.reader = conn, bufio.NewReader(conn)
	}
	if err := p.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return answer{}, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, p.host)
	if key != "" {
		fmt.Fprintf(&b, "X-API-Key: %s\r\n", key)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(p.conn, b.String()); err != nil {
		return answer{}, err
	}
	res, err := http.ReadResponse(p.reader, nil)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return answer{}, err
	}
	if res.Close {
		p.close()
	}
	return answer{status: res.StatusCode, header: res.Header}, nil
}
