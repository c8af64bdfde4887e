package h1

import "hansa.dev/hansa/internal/exchange"

// ErrForeign is the fault of a line in which nothing but two spaces is like a request line: neither target nor version.
var ErrForeign = fault(exchange.BadRequestLine, "the request line is not one of HTTP/1: neither its target nor its version is")

// The faults of a message.
var (
	errRequestLine   = fault(exchange.BadRequestLine, "the request line is not method, target and version with one space between them")
	errVersion       = fault(exchange.VersionNotSupported, "the major version of HTTP in the request line is not 1")
	errMethod        = fault(exchange.BadRequestMethod, "the method is not a token of at most 32 characters")
	errTarget        = fault(exchange.BadRequestTarget, "the request target holds a space, a control character or one outside ASCII")
	errTargetTooLong = fault(exchange.BadRequestTargetTooLong, "the request target is longer than the limit")
	errHeadTooLarge  = fault(exchange.BadRequestHeadersTooLarge, "the header fields are larger than the limit")
	errTooMany       = fault(exchange.BadRequestHeadersTooLarge, "there are more header fields than the limit")
	errStatusLine    = fault(exchange.BadRequestLine, "the status line is malformed")
	errFieldName     = fault(exchange.BadRequestHeader, "the name of a header field is not a token of at most 1024 characters")
	errSpaceColon    = fault(exchange.BadRequestHeader, "there is white space between the name of a header field and its colon")
	errNoColon       = fault(exchange.BadRequestHeader, "a header line has no colon")
	errFolded        = fault(exchange.BadRequestHeader, "a header line begins with white space")
	errFieldValue    = fault(exchange.BadRequestHeader, "the value of a header field holds a control character")
	errBareLF        = fault(exchange.BadRequestHeader, "a line ends without a carriage return")
	errBareCR        = fault(exchange.BadRequestHeader, "a carriage return does not end a line")

	errLengthTwice    = fault(exchange.BadRequestFraming, "Content-Length is given more than once")
	errLength         = fault(exchange.BadRequestFraming, "Content-Length is not a number")
	errBoth           = fault(exchange.BadRequestFraming, "both Content-Length and Transfer-Encoding are given")
	errCodingTwice    = fault(exchange.BadRequestFraming, "Transfer-Encoding is given more than once")
	errCoding         = fault(exchange.BadRequestFraming, "the last transfer coding is not chunked")
	errCodingUnknown  = fault(exchange.NotImplemented, "the only transfer coding that is known here is chunked")
	errCodingHTTP10   = fault(exchange.BadRequestFraming, "HTTP/1.0 has no Transfer-Encoding")
	errChunkSize      = fault(exchange.BadRequestBody, "the size of a chunk is not a hexadecimal number of at most 15 digits")
	errChunkExtension = fault(exchange.BadRequestBody, "an extension of a chunk is malformed")
	errChunkExcess    = fault(exchange.BadRequestBody, "the extensions of the chunks are larger than the limit")
	errChunkEnd       = fault(exchange.BadRequestBody, "a chunk is not followed by the end of its line")
	errTrailers       = fault(exchange.BadRequestBody, "the trailers are larger than the limit")
	errIncomplete     = fault(exchange.BadRequestBody, "the connection was closed before the end of the body")
)

func fault(code exchange.Code, detail string) *exchange.Fault {
	return &exchange.Fault{Code: code, Detail: detail}
}
