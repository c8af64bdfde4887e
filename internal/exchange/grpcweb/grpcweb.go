// Package grpcweb translates between gRPC-Web, which browsers can speak over any version of HTTP, and gRPC
// (github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md). The messages are the same; in gRPC-Web the trailers are one more
// message at the end of the body, and in its text form the body is Base64.
//
// It is used by upstream where a backend is known to speak HTTP/2. Everything belongs to one goroutine at a time.
package grpcweb

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"

	"hansa.dev/hansa/internal/exchange"
)

// Kind is the form of gRPC-Web.
type Kind uint8

// The forms.
const (
	None Kind = iota
	Binary
	Text
)

const (
	web  = "application/grpc-web"
	text = "application/grpc-web-text"
	grpc = "application/grpc"
)

// Of tells the form by the Content-Type of a request, and returns that of the same in gRPC, appended to dst.
func Of(contentType, dst []byte) (Kind, []byte) {
	for i, prefix := range [...]string{web, text} {
		n := len(prefix)
		if len(contentType) < n || !exchange.EqualFold(contentType[:n], prefix) {
			continue
		}
		if rest := contentType[n:]; len(rest) == 0 || rest[0] == '+' || rest[0] == ';' {
			return Binary + Kind(i), append(append(dst, grpc...), rest...)
		}
	}
	return None, dst
}

// ContentType appends the Content-Type of a response in that form to dst, given that of gRPC.
func (k Kind) ContentType(dst, contentType []byte) []byte {
	rest := contentType
	if len(rest) >= len(grpc) && exchange.EqualFold(rest[:len(grpc)], grpc) {
		rest = rest[len(grpc):]
	} else {
		rest = nil
	}
	if k == Text {
		return append(append(dst, text...), rest...)
	}
	return append(append(dst, web...), rest...)
}

var errText = &exchange.Fault{Code: exchange.BadRequestBody, Detail: "the body of a gRPC-Web text request is not Base64"}

// Decode decodes a whole body of the text form in place. Clients may encode piece by piece, so that there may be padding
// within. An error is an *exchange.Fault.
func Decode(b []byte) ([]byte, error) {
	out := b[:0]
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errText
		}
		var group [3]byte
		n, err := base64.StdEncoding.Decode(group[:], b[:4])
		if err != nil {
			return nil, errText
		}
		out = append(out, group[:n]...)
		b = b[4:]
	}
	return out, nil
}

// Request is the body of a request in the text form as one of gRPC.
type Request struct {
	exchange.Source
	rest []byte // of a group that is not complete
	buf  []byte
}

// Next implements exchange.Source.
func (r *Request) Next() (exchange.Chunk, error) {
	for {
		c, err := r.Source.Next()
		if err != nil {
			return c, err
		}
		r.buf = append(append(r.buf[:0], r.rest...), c.Data...)
		whole := len(r.buf) &^ 3
		if c.End && whole != len(r.buf) {
			return exchange.Chunk{}, errText
		}
		r.rest = append(r.rest[:0], r.buf[whole:]...)
		if whole > 0 || c.End {
			out, err := Decode(r.buf[:whole])
			return exchange.Chunk{Data: out, End: c.End}, err
		}
	}
}

// Len implements exchange.Source.
func (r *Request) Len() int64 { return -1 }

// Response is the body of a response of gRPC in a form of gRPC-Web: with its trailers at the end.
type Response struct {
	exchange.Source
	kind Kind
	buf  []byte
	text []byte
}

// Reset makes src the body, in that form.
func (r *Response) Reset(kind Kind, src exchange.Source) { r.kind, r.Source = kind, src }

// trailersFlag marks the message that holds the trailers.
const trailersFlag = 0x80

// Next implements exchange.Source.
func (r *Response) Next() (exchange.Chunk, error) {
	c, err := r.Source.Next()
	if err != nil {
		return c, err
	}
	r.buf = append(r.buf[:0], c.Data...)
	if c.End {
		r.buf = appendTrailers(r.buf, r.Source.Trailers())
	}
	out := r.buf
	if r.kind == Text {
		// Every piece is padded for itself: a piece may be a whole message that a client waits for.
		r.text = base64.StdEncoding.AppendEncode(r.text[:0], out)
		out = r.text
	}
	return exchange.Chunk{Data: out, End: c.End}, nil
}

// appendTrailers appends the message with the trailers. Their names are in lower case.
func appendTrailers(dst []byte, trailers *exchange.Head) []byte {
	if trailers == nil {
		return dst // they stood in the head: the call failed before there was a message
	}
	dst = append(dst, trailersFlag, 0, 0, 0, 0)
	from := len(dst)
	for i := range trailers.Size() {
		if _, name, value := trailers.At(i); name != nil {
			dst = append(append(dst, bytes.ToLower(name)...), ": "...)
			dst = append(append(dst, value...), "\r\n"...)
		}
	}
	binary.BigEndian.PutUint32(dst[from-4:], uint32(len(dst)-from))
	return dst
}

// Len implements exchange.Source.
func (r *Response) Len() int64 { return -1 }

// Trailers implements exchange.Source: they are part of the body.
func (r *Response) Trailers() *exchange.Head { return nil }
