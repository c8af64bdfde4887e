package h1

import "hansa.dev/hansa/internal/exchange"

// MaxChunkHead is the longest size line that AppendChunkHead writes.
const MaxChunkHead = 18

// AppendChunkHead appends the size line of a chunk of n bytes; n must not be 0.
func AppendChunkHead(dst []byte, n int) []byte {
	return append(appendHex(dst, uint64(n)), '\r', '\n')
}

// LastChunk is the end of a chunked body without trailers.
const LastChunk = "0\r\n\r\n"

// AppendLastChunk appends the end of a chunked body with its trailers, of which there may be none. What must not stand
// in trailers is left out (RFC 9110, section 6.5.1).
func AppendLastChunk(dst []byte, trailers *exchange.Head) []byte {
	dst = append(dst, '0', '\r', '\n')
	if trailers != nil {
		dst = trailers.AppendLines(dst, NotInTrailers)
	}
	return append(dst, '\r', '\n')
}

// NotInTrailers are the fields that would change how a message is framed, routed, authenticated or read.
const NotInTrailers = exchange.HopByHop | 1<<exchange.IDHost | 1<<exchange.IDContentLength | 1<<exchange.IDContentType |
	1<<exchange.IDContentEncoding | 1<<exchange.IDContentRange | 1<<exchange.IDAuthorization | 1<<exchange.IDXAPIKey |
	1<<exchange.IDCookie | 1<<exchange.IDSetCookie | 1<<exchange.IDExpect | 1<<exchange.IDRange |
	1<<exchange.IDCacheControl | 1<<exchange.IDLocation | 1<<exchange.IDVary | 1<<exchange.IDDate | 1<<exchange.IDAge |
	1<<exchange.IDExpires | 1<<exchange.IDRetryAfter | 1<<exchange.IDWWWAuthenticate | 1<<exchange.IDForwarded |
	1<<exchange.IDXForwardedFor | 1<<exchange.IDXForwardedHost | 1<<exchange.IDXForwardedProto |
	1<<exchange.IDXForwardedPort | 1<<exchange.IDXRealIP | 1<<exchange.IDXRequestID | 1<<exchange.IDVia |
	1<<exchange.IDClientCert | 1<<exchange.IDClientCertChain

func appendHex(dst []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for v>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&15])
	}
	return dst
}
