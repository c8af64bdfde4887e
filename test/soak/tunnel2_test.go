package soak

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// tunnel2 is WebSocket over HTTP/2 (RFC 8441), on a connection of its own. net/http's client has no extended CONNECT.
type tunnel2 struct {
	c      net.Conn
	framer *http2.Framer
	heard  []byte // of the stream, and not yet taken
}

// tunnelStream is the number of the only stream.
const tunnelStream = 1

// openTunnel2 opens the stream.
func (r *rig) openTunnel2(listener, path string) (_ *tunnel2, err error) {
	c, err := r.open(listener, func(t *tls.Config) { t.NextProtos = []string{"h2"} })
	if err != nil {
		return nil, err
	}
	t := &tunnel2{c: c, framer: http2.NewFramer(c, c)}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	t.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := t.framer.WriteSettings(); err != nil {
		return nil, err
	}
	for allowed := false; !allowed; {
		f, err := t.next()
		if err != nil {
			return nil, err
		}
		if f, ok := f.(*http2.SettingsFrame); ok {
			v, _ := f.Value(http2.SettingEnableConnectProtocol)
			if allowed = v == 1; !allowed && !f.IsAck() {
				return nil, errors.New("the gateway takes no extended CONNECT")
			}
		}
	}
	scheme := "https"
	if listener == "http" {
		scheme = "http"
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "CONNECT"},
		{Name: ":protocol", Value: "websocket"},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: path},
		{Name: ":authority", Value: hostname},
		{Name: "sec-websocket-version", Value: "13"},
	} {
		if err := encoder.WriteField(f); err != nil {
			return nil, err
		}
	}
	if err := t.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: tunnelStream, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		return nil, err
	}
	for {
		f, err := t.next()
		if err != nil {
			return nil, err
		}
		if f, ok := f.(*http2.MetaHeadersFrame); ok {
			if status := f.PseudoValue("status"); status != "200" || f.StreamEnded() {
				return nil, fmt.Errorf("%s is answered with %s", path, status)
			}
			return t, nil
		}
	}
}

// next reads a frame and answers what is to be answered. That the connection takes no more streams does not matter.
func (t *tunnel2) next() (http2.Frame, error) {
	f, err := t.framer.ReadFrame()
	if err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			err = t.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			err = t.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		err = fmt.Errorf("the stream is reset: %v", f.ErrCode)
	case *http2.GoAwayFrame:
		if f.LastStreamID < tunnelStream || f.ErrCode != http2.ErrCodeNo {
			err = fmt.Errorf("the connection ends: %v, last stream %d", f.ErrCode, f.LastStreamID)
		}
	case *http2.DataFrame:
		t.heard = append(t.heard, f.Data()...)
		if n := f.Length; n > 0 {
			err = errors.Join(t.framer.WriteWindowUpdate(0, n), t.framer.WriteWindowUpdate(tunnelStream, n))
		}
		if f.StreamEnded() {
			err = errors.Join(err, io.EOF)
		}
	}
	return f, err
}

// say says a short message of text, as WebSocket frames it (RFC 6455, section 5.2), and hears it again.
func (t *tunnel2) say(text string) error {
	if err := t.c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	const final, masked = 0x81, 0x80
	mask := [4]byte{1, 2, 3, 4}
	said := append([]byte{final, masked | byte(len(text))}, mask[:]...)
	for i := range len(text) {
		said = append(said, text[i]^mask[i%4])
	}
	if err := t.framer.WriteData(tunnelStream, false, said); err != nil {
		return err
	}
	want := append([]byte{final, byte(len(text))}, text...)
	for len(t.heard) < len(want) {
		if _, err := t.next(); err != nil {
			return err
		}
	}
	if !bytes.Equal(t.heard, want) {
		return fmt.Errorf("heard %q, said %q", t.heard, text)
	}
	t.heard = t.heard[:0]
	return nil
}

// webSocketHTTP2 talks in messages of WebSocket over HTTP/2.
func (k *task) webSocketHTTP2(listener, api string, messages int) error {
	t, err := k.openTunnel2(listener, api+"/ws/"+k.next())
	if err != nil {
		return err
	}
	defer t.c.Close()
	return k.converse(messages, func(i int) error { return t.say("message " + strconv.Itoa(i)) })
}
