package h1

import "hansa.dev/hansa/internal/exchange"

// Fault is what is wrong with a message. Faults are constant: nothing is allocated to report one.
type Fault struct {
	// Code is the refusal that a faulty request is answered with.
	Code exchange.Code
	// Detail says what is wrong, for the client or, if the message was a response, for the log.
	Detail string
}

// Error implements error.
func (f *Fault) Error() string { return f.Detail }

// The faults of a message.
var (
	errRequestLine   = &Fault{exchange.BadRequestLine, "the request line is not method, target and version with one space between them"}
	errVersion       = &Fault{exchange.VersionNotSupported, "HTTP/1.0 and HTTP/1.1 are spoken here"}
	errMethod        = &Fault{exchange.BadRequestMethod, "the method is not a token of at most 32 characters"}
	errTarget        = &Fault{exchange.BadRequestTarget, "the request target holds a space, a control character or one outside ASCII"}
	errTargetTooLong = &Fault{exchange.BadRequestTargetTooLong, "the request target is longer than the limit"}
	errHeadTooLarge  = &Fault{exchange.BadRequestHeadersTooLarge, "the header fields are larger than the limit"}
	errTooMany       = &Fault{exchange.BadRequestHeadersTooLarge, "there are more header fields than the limit"}
	errStatusLine    = &Fault{exchange.BadRequestLine, "the status line is malformed"}
	errFieldName     = &Fault{exchange.BadRequestHeader, "the name of a header field is not a token of at most 1024 characters"}
	errSpaceColon    = &Fault{exchange.BadRequestHeader, "there is white space between the name of a header field and its colon"}
	errNoColon       = &Fault{exchange.BadRequestHeader, "a header line has no colon"}
	errFolded        = &Fault{exchange.BadRequestHeader, "a header line begins with white space"}
	errFieldValue    = &Fault{exchange.BadRequestHeader, "the value of a header field holds a control character"}
	errBareLF        = &Fault{exchange.BadRequestHeader, "a line ends without a carriage return"}
	errBareCR        = &Fault{exchange.BadRequestHeader, "a carriage return does not end a line"}

	errLengthTwice    = &Fault{exchange.BadRequestFraming, "Content-Length is given more than once"}
	errLength         = &Fault{exchange.BadRequestFraming, "Content-Length is not a number"}
	errBoth           = &Fault{exchange.BadRequestFraming, "both Content-Length and Transfer-Encoding are given"}
	errCodingTwice    = &Fault{exchange.BadRequestFraming, "Transfer-Encoding is given more than once"}
	errCoding         = &Fault{exchange.BadRequestFraming, "the last transfer coding is not chunked"}
	errCodingUnknown  = &Fault{exchange.NotImplemented, "the only transfer coding that is known here is chunked"}
	errCodingHTTP10   = &Fault{exchange.BadRequestFraming, "HTTP/1.0 has no Transfer-Encoding"}
	errChunkSize      = &Fault{exchange.BadRequestBody, "the size of a chunk is not a hexadecimal number of at most 15 digits"}
	errChunkExtension = &Fault{exchange.BadRequestBody, "an extension of a chunk is malformed"}
	errChunkExcess    = &Fault{exchange.BadRequestBody, "the extensions of the chunks are larger than the limit"}
	errChunkEnd       = &Fault{exchange.BadRequestBody, "a chunk is not followed by the end of its line"}
	errTrailers       = &Fault{exchange.BadRequestBody, "the trailers are larger than the limit"}
	errIncomplete     = &Fault{exchange.BadRequestBody, "the connection was closed before the end of the body"}
)
