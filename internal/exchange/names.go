package exchange

import "strings"

// ID is a small number for a well-known field name. Zero means any other name.
type ID uint8

// The well-known field names.
const (
	IDOther ID = iota
	IDHost
	IDConnection
	IDContentLength
	IDTransferEncoding
	IDKeepAlive
	IDProxyConnection
	IDTE
	IDTrailer
	IDUpgrade
	IDExpect
	IDProxyAuthenticate
	IDProxyAuthorization
	IDHTTP2Settings
	IDDate
	IDServer
	IDVia
	IDForwarded
	IDXForwardedFor
	IDXForwardedProto
	IDXForwardedHost
	IDXForwardedPort
	IDXRealIP
	IDXRequestID
	IDXAPIKey
	IDAuthorization
	IDContentType
	IDContentEncoding
	IDAcceptEncoding
	IDAccept
	IDAcceptLanguage
	IDUserAgent
	IDCookie
	IDSetCookie
	IDLocation
	IDCacheControl
	IDETag
	IDLastModified
	IDVary
	IDAge
	IDExpires
	IDRetryAfter
	IDRateLimit
	IDRateLimitPolicy
	IDOrigin
	IDReferer
	IDRange
	IDContentRange
	IDIfNoneMatch
	IDIfModifiedSince
	IDAllow
	IDWWWAuthenticate
	IDTraceparent
	IDTracestate
	IDAltSvc
	IDPragma
	IDAcceptRanges
	IDStrictTransportSecurity
	IDPriority
	IDProxy
	IDClientCert
	IDClientCertChain

	numIDs
)

// idNames holds the names by ID, as they are written when the gateway makes the field itself.
var idNames = [numIDs]string{
	IDHost:                    "Host",
	IDConnection:              "Connection",
	IDContentLength:           "Content-Length",
	IDTransferEncoding:        "Transfer-Encoding",
	IDKeepAlive:               "Keep-Alive",
	IDProxyConnection:         "Proxy-Connection",
	IDTE:                      "TE",
	IDTrailer:                 "Trailer",
	IDUpgrade:                 "Upgrade",
	IDExpect:                  "Expect",
	IDProxyAuthenticate:       "Proxy-Authenticate",
	IDProxyAuthorization:      "Proxy-Authorization",
	IDHTTP2Settings:           "HTTP2-Settings",
	IDDate:                    "Date",
	IDServer:                  "Server",
	IDVia:                     "Via",
	IDForwarded:               "Forwarded",
	IDXForwardedFor:           "X-Forwarded-For",
	IDXForwardedProto:         "X-Forwarded-Proto",
	IDXForwardedHost:          "X-Forwarded-Host",
	IDXForwardedPort:          "X-Forwarded-Port",
	IDXRealIP:                 "X-Real-IP",
	IDXRequestID:              "X-Request-Id",
	IDXAPIKey:                 "X-API-Key",
	IDAuthorization:           "Authorization",
	IDContentType:             "Content-Type",
	IDContentEncoding:         "Content-Encoding",
	IDAcceptEncoding:          "Accept-Encoding",
	IDAccept:                  "Accept",
	IDAcceptLanguage:          "Accept-Language",
	IDUserAgent:               "User-Agent",
	IDCookie:                  "Cookie",
	IDSetCookie:               "Set-Cookie",
	IDLocation:                "Location",
	IDCacheControl:            "Cache-Control",
	IDETag:                    "ETag",
	IDLastModified:            "Last-Modified",
	IDVary:                    "Vary",
	IDAge:                     "Age",
	IDExpires:                 "Expires",
	IDRetryAfter:              "Retry-After",
	IDRateLimit:               "RateLimit",
	IDRateLimitPolicy:         "RateLimit-Policy",
	IDOrigin:                  "Origin",
	IDReferer:                 "Referer",
	IDRange:                   "Range",
	IDContentRange:            "Content-Range",
	IDIfNoneMatch:             "If-None-Match",
	IDIfModifiedSince:         "If-Modified-Since",
	IDAllow:                   "Allow",
	IDWWWAuthenticate:         "WWW-Authenticate",
	IDTraceparent:             "Traceparent",
	IDTracestate:              "Tracestate",
	IDAltSvc:                  "Alt-Svc",
	IDPragma:                  "Pragma",
	IDAcceptRanges:            "Accept-Ranges",
	IDStrictTransportSecurity: "Strict-Transport-Security",
	IDPriority:                "Priority",
	IDProxy:                   "Proxy",
	IDClientCert:              "Client-Cert",
	IDClientCertChain:         "Client-Cert-Chain",
}

// String returns the name, or "" for IDOther.
func (id ID) String() string { return idNames[id] }

// IDSet is a set of well-known names.
type IDSet uint64

// SetOf returns the set of ids.
func SetOf(ids ...ID) IDSet {
	var s IDSet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// Has tells whether id is in s.
func (s IDSet) Has(id ID) bool { return s>>id&1 != 0 }

// HopByHop are the fields that speak of one connection and are never forwarded (RFC 9110, section 7.6.1).
// Expect is not among them. Trailer is: the relay of trailers is announced anew where it takes place. So is Proxy, which
// no standard knows and CGI programs take for a setting of theirs (CVE-2016-5385).
const HopByHop IDSet = 1<<IDConnection | 1<<IDKeepAlive | 1<<IDProxyConnection | 1<<IDTE | 1<<IDTrailer |
	1<<IDTransferEncoding | 1<<IDUpgrade | 1<<IDProxyAuthenticate | 1<<IDProxyAuthorization | 1<<IDHTTP2Settings | 1<<IDProxy

// idHash is free of collisions for the names of idNames; a test holds it to that. c must not be empty.
func idHash(c []byte) uint8 {
	n := len(c)
	return uint8(n) + (c[0]|0x20)*38 + (c[n-1]|0x20)*30 + (c[n*3/4] | 0x20)
}

// idSlot is one place of the table behind IDOf: a name in lower case.
type idSlot struct {
	id   ID
	name string
}

var idTable = func() (t [256]idSlot) {
	for id := ID(1); id < numIDs; id++ {
		name := strings.ToLower(idNames[id])
		t[idHash([]byte(name))] = idSlot{id, name}
	}
	return t
}()

// IDOf returns the ID of a field name in any case. The name must be a token (RFC 9110, section 5.6.2).
func IDOf(name []byte) ID {
	if len(name) == 0 {
		return IDOther
	}
	slot := &idTable[idHash(name)]
	if len(slot.name) != len(name) {
		return IDOther
	}
	for i := range len(name) {
		// Of the characters of a token, setting this bit changes capital letters and "^" and "_" alone, and no
		// well-known name holds what the latter two become.
		if name[i]|0x20 != slot.name[i] {
			return IDOther
		}
	}
	return slot.id
}

// Name is a field name prepared for look-up. Make it once, with NameOf, where configuration is read.
type Name struct {
	id   ID
	text string
}

// NameOf prepares a field name. Case does not matter for look-up; fields made under the name carry it as given.
func NameOf(name string) Name { return Name{IDOf([]byte(name)), name} }

// Name returns id as a Name.
func (id ID) Name() Name { return Name{id, idNames[id]} }

// ID returns the number of a well-known name, and IDOther for any other.
func (n Name) ID() ID { return n.id }

// String returns the name as it was given.
func (n Name) String() string { return n.text }

// lower maps the bytes of a token to lower case and leaves others alone.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] = byte(i) + 'a' - 'A'
		}
	}
	return t
}()

// EqualFold compares ASCII text without regard to case.
func EqualFold[A, B ~string | ~[]byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}
