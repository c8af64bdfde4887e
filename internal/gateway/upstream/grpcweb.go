package upstream

import (
	"bytes"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/grpcweb"
)

// webCall is what a call of gRPC-Web needs to become one of gRPC, as which every backend that speaks HTTP/2 gets it.
type webCall struct {
	web         grpcweb.Kind
	contentType []byte // of the same in gRPC
	sending     []byte // the taken body
	request     grpcweb.Request
	response    grpcweb.Response
}

// translate prepares a request of gRPC-Web.
func (m *muxCall) translate() *exchange.Fault {
	c := m.call
	m.sending = c.sending
	m.web, m.contentType = grpcweb.Of(c.x.Req.Known(exchange.IDContentType), m.contentType[:0])
	if m.web != grpcweb.Text || c.stream {
		return nil
	}
	decoded, err := grpcweb.Decode(bytes.Clone(c.sending)) // what was taken may have to be sent in another way
	if err != nil {
		return faultOf(err, errProtocol)
	}
	m.sending = decoded
	return nil
}

// requestBody returns the body to pass on.
func (m *muxCall) requestBody() exchange.Source {
	if m.web != grpcweb.Text {
		return m.call.x.Body
	}
	m.request = grpcweb.Request{Source: m.call.x.Body}
	return &m.request
}

// translated returns the body of the response as the client understands it.
func (m *muxCall) translated() exchange.Source {
	if m.web == grpcweb.None {
		return m
	}
	resp := &m.call.x.Resp
	var buf [64]byte
	resp.Set(exchange.IDContentType.Name(), m.web.ContentType(buf[:0], resp.Known(exchange.IDContentType)))
	m.response.Reset(m.web, m)
	return &m.response
}
