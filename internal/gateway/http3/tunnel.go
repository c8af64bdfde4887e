package http3

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	qhttp3 "github.com/quic-go/quic-go/http3"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// tunnel is the stream as the source of what the client sends through a tunnel. It has no time limit of its own: the
// backend's counts, for both directions.
type tunnel stream

// Next implements exchange.Source. Every error is a *exchange.Fault.
func (b *tunnel) Next() (exchange.Chunk, error) {
	if b.stopped.Load() {
		return exchange.Chunk{}, errBodyStopped
	}
	n, err := 0, error(nil)
	for n == 0 && err == nil {
		n, err = b.r.Body.Read(b.buf[:])
	}
	b.x.BytesIn += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return exchange.Chunk{}, errBodyGone
	}
	return exchange.Chunk{Data: b.buf[:n], End: err != nil}, nil
}

// Ready implements exchange.Source.
func (b *tunnel) Ready() bool { return false }

// Len implements exchange.Source.
func (b *tunnel) Len() int64 { return -1 }

// Trailers implements exchange.Source.
func (b *tunnel) Trailers() *exchange.Head { return nil }

// Close implements exchange.Source.
func (b *tunnel) Close() {}

// respondTunnel answers an extended CONNECT and passes on what the backend sends. What the client sends is pulled by the
// backend meanwhile. The stream is taken over from quic-go, which could not close one direction alone.
func (st *stream) respondTunnel(x *exchange.Exchange, body exchange.Source) {
	ingress.EndTunnel(x)
	st.head(x, nil, http.StatusOK)
	streamer, ok := st.w.(qhttp3.HTTPStreamer)
	if !ok {
		panic("the response is not quic-go's")
	}
	str, err := streamer.HTTPStream()
	if err != nil {
		st.clientFailed()
		body.Close()
		return
	}
	_ = st.ctrl.SetReadDeadline(time.Time{})
	code := qhttp3.ErrCodeNoError
	if st.passOn(x, body, str) {
		_ = str.Close()
	} else {
		code = qhttp3.ErrCodeConnectError
		str.CancelWrite(quic.StreamErrorCode(code))
	}
	body.Close() // after the end of what the backend has said this waits for the client to end its direction, too
	str.CancelRead(quic.StreamErrorCode(code))
}

// passOn writes what the backend sends, until it has said all.
func (st *stream) passOn(x *exchange.Exchange, body exchange.Source, str *qhttp3.Stream) bool {
	for {
		chunk, err := body.Next()
		if err != nil {
			if x.Code == exchange.CodeNone {
				x.Code = exchange.UpstreamReset
			}
			return false
		}
		if len(chunk.Data) > 0 {
			st.arm()
			if _, err := str.Write(chunk.Data); err != nil {
				st.clientFailed()
				return false
			}
			x.BytesOut += int64(len(chunk.Data))
		}
		if chunk.End {
			return true
		}
	}
}
