package exchange

// Code is the stable reason for which a request was refused or broken off by the gateway. It stands in the body
// of the refusal, in the access log and in metrics. Zero means none: the answer came from the backend or from a
// policy that answers.
type Code uint8

// The codes. A new one is added here and in the table below; the status belongs to the code.
const (
	CodeNone Code = iota

	// The request itself.
	BadRequestLine
	VersionNotSupported
	BadRequestMethod
	BadRequestTarget
	BadRequestPath
	BadRequestHost
	BadRequestHeader
	BadRequestFraming
	BadRequestConnection
	BadRequestExpect
	BadRequestBody
	BadRequestTargetTooLong
	BadRequestHeadersTooLarge
	BadRequestBodyTooLarge
	BadRequestTimeout
	BadRequestUpgrade
	NotImplemented
	MisdirectedRequest

	// Who asks, and what for.
	NoRoute
	KeyMissing
	KeyInvalid
	KeyExpired
	NotSubscribed
	Revoked
	RateLimited
	QuotaExceeded
	QuotaNoRights
	ClientCertificateRequired
	ClientCertificateInvalid

	// The backend.
	UpstreamConnect
	UpstreamBusy
	UpstreamTimeout
	UpstreamReset
	UpstreamProtocol
	UpstreamTooLarge
	UpstreamNone

	// The gateway.
	NotConfigured
	Draining
	Overloaded
	LoopDetected
	Internal

	// ClientGone is not answered: nobody is there to read it.
	ClientGone

	numCodes
)

// codeInfo is what there is to say about a code.
type codeInfo struct {
	name   string
	status int
	title  string
}

var codes = [numCodes]codeInfo{
	CodeNone: {"", 0, ""},

	BadRequestLine:            {"bad-request-line", 400, "The request line is malformed"},
	VersionNotSupported:       {"version-not-supported", 505, "The protocol version is not supported"},
	BadRequestMethod:          {"bad-request-method", 400, "The method is malformed"},
	BadRequestTarget:          {"bad-request-target", 400, "The request target is malformed"},
	BadRequestPath:            {"bad-request-path", 400, "The path is ambiguous"},
	BadRequestHost:            {"bad-request-host", 400, "The host is missing, malformed or given twice"},
	BadRequestHeader:          {"bad-request-header", 400, "A header field is malformed"},
	BadRequestFraming:         {"bad-request-framing", 400, "The length of the body is ambiguous"},
	BadRequestConnection:      {"bad-request-connection", 400, "The Connection field names a field that cannot be dropped"},
	BadRequestExpect:          {"bad-request-expect", 417, "The expectation cannot be met"},
	BadRequestBody:            {"bad-request-body", 400, "The body is malformed or incomplete"},
	BadRequestTargetTooLong:   {"bad-request-target-too-long", 414, "The request target is too long"},
	BadRequestHeadersTooLarge: {"bad-request-headers-too-large", 431, "The header fields are too large or too many"},
	BadRequestBodyTooLarge:    {"bad-request-body-too-large", 413, "The body is too large"},
	BadRequestTimeout:         {"bad-request-timeout", 408, "The request took too long to arrive"},
	BadRequestUpgrade:         {"bad-request-upgrade", 400, "The upgrade is not possible here"},
	NotImplemented:            {"not-implemented", 501, "The transfer coding or method is not implemented"},

	MisdirectedRequest: {"misdirected-request", 421, "The connection was made for another host"},

	NoRoute:                   {"no-route", 404, "No API answers here"},
	KeyMissing:                {"key-missing", 401, "An API key is required"},
	KeyInvalid:                {"key-invalid", 401, "The API key is not valid"},
	KeyExpired:                {"key-expired", 401, "The API key has expired"},
	NotSubscribed:             {"not-subscribed", 403, "The subscription does not allow this API"},
	Revoked:                   {"revoked", 403, "The credential has been revoked"},
	RateLimited:               {"rate-limited", 429, "Too many requests in a short time"},
	QuotaExceeded:             {"quota-exceeded", 429, "The quota is used up"},
	ClientCertificateRequired: {"client-certificate-required", 403, "A client certificate is required"},
	ClientCertificateInvalid:  {"client-certificate-invalid", 403, "The client certificate is not valid"},
	QuotaNoRights:             {"quota-no-rights", 429, "The quota cannot be granted at this place at present"},

	UpstreamConnect:  {"upstream-connect", 502, "The backend cannot be reached"},
	UpstreamBusy:     {"upstream-busy", 503, "All connections to the backend are in use"},
	UpstreamTimeout:  {"upstream-timeout", 504, "The backend took too long to answer"},
	UpstreamReset:    {"upstream-reset", 502, "The backend broke off the connection"},
	UpstreamProtocol: {"upstream-protocol", 502, "The backend sent an answer that cannot be understood"},
	UpstreamTooLarge: {"upstream-too-large", 502, "The answer of the backend is longer than is allowed"},
	UpstreamNone:     {"upstream-none", 503, "The backend has no endpoint"},

	NotConfigured: {"not-configured", 503, "The gateway has no configuration yet"},
	Draining:      {"draining", 503, "The gateway is shutting down"},
	Overloaded:    {"overloaded", 503, "The gateway has too many connections"},
	LoopDetected:  {"loop-detected", 508, "The request has come back to where it was before"},
	Internal:      {"internal", 500, "The gateway failed"},

	ClientGone: {"client-gone", 499, "The client closed the connection"},
}

// advice is what whoever reads a refusal can do. It is the detail of a refusal that has no other, so that it says nothing
// of what is behind the gateway.
var advice = [numCodes]string{
	BadRequestLine:            "send a method, a target and a version, with one space between them",
	VersionNotSupported:       "speak HTTP/1.0, HTTP/1.1, HTTP/2 or HTTP/3",
	BadRequestMethod:          "send a method of letters, at most 32",
	BadRequestTarget:          "send a path, or an absolute URI",
	BadRequestPath:            "send a path that every reader understands alike: without .. above the root, backslashes and control characters",
	BadRequestHost:            "send one Host field with a hostname or address, and a port if need be",
	BadRequestHeader:          "send fields as RFC 9112 has them: a name, a colon, a value without control characters, on one line",
	BadRequestFraming:         "send one Content-Length, or Transfer-Encoding: chunked, and never both",
	BadRequestConnection:      "name in Connection only fields that concern the connection",
	BadRequestExpect:          "expect nothing but 100-continue",
	BadRequestBody:            "send as much as the length says, or whole chunks up to the last one",
	BadRequestTargetTooLong:   "send a shorter path and query",
	BadRequestHeadersTooLarge: "send fewer or shorter header fields",
	BadRequestBodyTooLarge:    "send a shorter body; maxRequestBytes of the API bounds it",
	BadRequestTimeout:         "send the request again, without pauses",
	BadRequestUpgrade:         "send the request without Upgrade, or with a list of protocols and without a body",
	NotImplemented:            "send the request without that transfer coding or method",
	MisdirectedRequest:        "open another connection for this host",
	NoRoute:                   "check the host, the path and the method: no API that is deployed here has an operation for them",
	KeyMissing:                "send the key of a subscription where WWW-Authenticate says",
	KeyInvalid:                "send the key as it was shown when it was made",
	KeyExpired:                "have the key rotated, and send the new one",
	NotSubscribed:             "subscribe to a product that holds this API",
	Revoked:                   "have another key made",
	RateLimited:               "wait as long as Retry-After says",
	QuotaExceeded:             "wait as long as Retry-After says, or subscribe to a product with a larger quota",
	QuotaNoRights:             "wait as long as Retry-After says",
	ClientCertificateRequired: "connect over TLS with a certificate that is signed by a CA of this host",
	ClientCertificateInvalid:  "connect with a certificate that is signed by a CA of this host and has not expired",
	UpstreamConnect:           "try again later; the log of the gateway says why no endpoint of the backend could be connected to",
	UpstreamBusy:              "try again later; the limits of the Backend say how much it takes at once",
	UpstreamTimeout:           "try again later; the time-outs of the Backend say how long it may take",
	UpstreamReset:             "try again if the request may be repeated: it may have arrived",
	UpstreamProtocol:          "the service must answer in HTTP as the Backend has it; the log of the gateway says what was wrong",
	UpstreamTooLarge:          "ask for less; the limits of the Backend say how long an answer may be",
	UpstreamNone:              "try again later; no endpoint of the Backend is in service, or its names have not been found yet",
	NotConfigured:             "try again later, or at another gateway",
	Draining:                  "try again at another gateway",
	Overloaded:                "try again later, or at another gateway",
	LoopDetected:              "have the Backend lead to a service, and not to this gateway",
	Internal:                  "tell the operator the request id: the log of the gateway has the cause under it",
	ClientGone:                "nothing: nobody reads this",
}

// Codes returns every code but CodeNone, in the order of the table.
func Codes() []Code {
	all := make([]Code, 0, numCodes-1)
	for c := CodeNone + 1; c < numCodes; c++ {
		all = append(all, c)
	}
	return all
}

// String returns the code as users see it, "key-missing"; "" for CodeNone.
func (c Code) String() string { return codes[c].name }

// Status returns the HTTP status that goes with c.
func (c Code) Status() int { return codes[c].status }

// Advice returns what can be done about c, as a sentence without capital and full stop.
func (c Code) Advice() string { return advice[c] }

// Title returns what c means, as a sentence without a full stop.
func (c Code) Title() string { return codes[c].title }
