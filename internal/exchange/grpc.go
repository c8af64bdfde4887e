package exchange

import (
	"strconv"
	"time"
)

var (
	grpcStatus  = NameOf("Grpc-Status")
	grpcMessage = NameOf("Grpc-Message")
	grpcTimeout = NameOf("Grpc-Timeout")
)

const (
	grpcType     = "application/grpc"
	grpcHexUpper = "0123456789ABCDEF"
)

// GRPC tells whether the request is one of gRPC or gRPC-Web, by its Content-Type.
func (x *Exchange) GRPC() bool {
	t := x.Req.Known(IDContentType)
	if len(t) < len(grpcType) || !EqualFold(t[:len(grpcType)], grpcType) {
		return false
	}
	return len(t) == len(grpcType) || t[len(grpcType)] == '+' || t[len(grpcType)] == ';' || t[len(grpcType)] == '-'
}

// GRPC returns the status of gRPC that goes with c (grpc.github.io/grpc/core/md_doc_statuscodes.html).
func (c Code) GRPC() int {
	const (
		cancelled         = 1
		invalidArgument   = 3
		deadlineExceeded  = 4
		permissionDenied  = 7
		resourceExhausted = 8
		unimplemented     = 12
		internal          = 13
		unavailable       = 14
		unauthenticated   = 16
	)
	switch c.Status() {
	case 401:
		return unauthenticated
	case 403:
		return permissionDenied
	case 404, 501:
		return unimplemented
	case 408, 504:
		return deadlineExceeded
	case 413, 429, 431:
		return resourceExhausted
	case 499:
		return cancelled
	case 500:
		return internal
	case 502, 503:
		return unavailable
	}
	return invalidArgument
}

// SpeakGRPC makes a refusal one that clients of gRPC understand, if the request is one of theirs: a response that consists
// of the fields Grpc-Status and Grpc-Message, under the status 200. Engines call it before they respond.
func (x *Exchange) SpeakGRPC() {
	if !x.Refused() || !x.GRPC() {
		return
	}
	x.grpc = true
	x.Status = 200
	x.local.Reset(nil)
	x.Own.Set(IDContentType.Name(), x.Req.Known(IDContentType))
	x.AddGRPCStatus(&x.Own)
}

// AddGRPCStatus adds the fields to h that tell a client of gRPC what x.Code and x.Detail say.
func (x *Exchange) AddGRPCStatus(h *Head) {
	h.SetUint(grpcStatus, uint64(x.Code.GRPC()))
	message := []byte(x.Code.Title())
	if x.Detail != "" {
		message = append(append(message, ": "...), x.Detail...)
	}
	var buf [256]byte
	h.Set(grpcMessage, appendPercent(buf[:0], message))
}

// appendPercent appends text as it stands in Grpc-Message.
func appendPercent(dst, text []byte) []byte {
	for _, c := range text {
		if c < 0x20 || c >= 0x7f || c == '%' {
			dst = append(dst, '%', grpcHexUpper[c>>4], grpcHexUpper[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// GRPCTimeout returns how long the client of a gRPC call waits for its end; 0: it does not say, or not in a way that can be
// understood.
func (x *Exchange) GRPCTimeout() time.Duration {
	if !x.GRPC() {
		return 0
	}
	v := x.Req.Get(grpcTimeout)
	if len(v) < 2 || len(v) > 9 {
		return 0
	}
	n, err := strconv.ParseUint(string(v[:len(v)-1]), 10, 32)
	if err != nil {
		return 0
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	}
	return max(time.Duration(min(n, uint64(10_000*time.Hour/max(unit, 1))))*unit, unit)
}
