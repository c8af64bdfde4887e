package ingress

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
)

// The fields of the handshake of WebSocket (RFC 6455, section 4).
var (
	webSocketKey    = exchange.NameOf("Sec-WebSocket-Key")
	webSocketAccept = exchange.NameOf("Sec-WebSocket-Accept")
)

// Tunnelled tells whether a protocol that a client wants to switch to is one to ask the backend for. Those that would only
// change how requests are sent are not: that is a matter of each connection, and a backend that took "h2c" would be sent
// requests that nobody here has seen.
func Tunnelled(protocol []byte) bool {
	name, _, _ := bytes.Cut(protocol, slash)
	for _, p := range [...]string{"h2c", "h2", "h3", "http", "tls"} {
		if exchange.EqualFold(name, p) {
			return false
		}
	}
	return true
}

var errProtocol = &exchange.Fault{Code: exchange.BadRequestUpgrade, Detail: ":protocol is not one to make a tunnel for"}

// SetTunnel makes an extended CONNECT (RFC 8441; RFC 9220 for HTTP/3) what HTTP/1.1 asks for the same: a GET that wants to
// switch to protocol. WebSocket's handshake has a field there that the newer protocols do without; it is made up.
// The error is an *exchange.Fault.
func SetTunnel(x *exchange.Exchange, protocol []byte) error {
	if !h1.Token(protocol) || !Tunnelled(protocol) {
		return errProtocol
	}
	x.Method, x.Upgrade = exchange.View("GET"), x.Scratch(protocol)
	x.Req.DelKnown(exchange.IDExpect) // there is no body to wait for
	if !exchange.EqualFold(protocol, "websocket") {
		return nil
	}
	var nonce [16]byte
	var text [24]byte
	_, _ = rand.Read(nonce[:]) // never fails
	base64.StdEncoding.Encode(text[:], nonce[:])
	if !x.Req.Set(webSocketKey, text[:]) {
		return errTooManyFields
	}
	return nil
}

// NoTunnel tells whether a backend has answered an extended CONNECT with success, but without switching protocols. The client must
// not see that success: it would take what is the body of a response for what comes through a tunnel.
func NoTunnel(x *exchange.Exchange) bool {
	_, own := x.LocalAnswer()
	return !own && x.Status/100 == 2
}

// EndTunnel takes what belongs to HTTP/1.1 alone out of the answer to an extended CONNECT. An answer of 101 stands for 200
// there, which the caller sends.
func EndTunnel(x *exchange.Exchange) { x.Resp.Del(webSocketAccept) }
