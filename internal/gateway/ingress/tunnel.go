package ingress

import (
	"crypto/rand"
	"encoding/base64"

	"hansa.dev/hansa/internal/exchange"
)

// The fields of the handshake of WebSocket (RFC 6455, section 4).
var (
	webSocketKey    = exchange.NameOf("Sec-WebSocket-Key")
	webSocketAccept = exchange.NameOf("Sec-WebSocket-Accept")
)

// SetTunnel makes an extended CONNECT (RFC 8441; RFC 9220 for HTTP/3) what HTTP/1.1 asks for the same: a GET that wants to
// switch to protocol. WebSocket's handshake has a field there that the newer protocols do without; it is made up.
func SetTunnel(x *exchange.Exchange, protocol []byte) bool {
	x.Method, x.Upgrade = exchange.View("GET"), x.Scratch(protocol)
	if !exchange.EqualFold(protocol, "websocket") {
		return true
	}
	var nonce [16]byte
	var text [24]byte
	_, _ = rand.Read(nonce[:]) // never fails
	base64.StdEncoding.Encode(text[:], nonce[:])
	return x.Req.Set(webSocketKey, text[:])
}

// EndTunnel takes what belongs to HTTP/1.1 alone out of the answer to an extended CONNECT. An answer of 101 stands for 200
// there, which the caller sends.
func EndTunnel(x *exchange.Exchange) { x.Resp.Del(webSocketAccept) }
