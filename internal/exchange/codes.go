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

// Title returns what c means, as a sentence without a full stop.
func (c Code) Title() string { return codes[c].title }
