package h2

import "strconv"

// ErrCode says why a stream or a connection is ended (RFC 9113, section 7).
type ErrCode uint32

// The codes.
const (
	NoError ErrCode = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var errNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String returns the name that the RFC gives to c.
func (c ErrCode) String() string {
	if int(c) < len(errNames) {
		return errNames[c]
	}
	return "0x" + strconv.FormatUint(uint64(c), 16)
}

// ErrCodes is how many codes have names.
const ErrCodes = len(errNames)

// Fault is what a peer got wrong. Faults are constant: nothing is allocated to report one.
type Fault struct {
	// Code is what the peer is told.
	Code ErrCode
	// Stream tells that only the stream must end. Otherwise the connection must.
	Stream bool
	// Detail says what is wrong.
	Detail string
}

// Error implements error.
func (f *Fault) Error() string { return f.Detail }

// The faults of frames and header blocks.
var (
	errFrameSize     = &Fault{FrameSizeError, false, "a frame has a size that its type does not allow"}
	errPrioritySize  = &Fault{FrameSizeError, true, "a PRIORITY frame is not 5 bytes long"}
	errStreamZero    = &Fault{ProtocolError, false, "a frame of a stream names none"}
	errStreamNotZero = &Fault{ProtocolError, false, "a frame of the connection names a stream"}
	errPadding       = &Fault{ProtocolError, false, "a frame is shorter than its padding"}
	errInterleaved   = &Fault{ProtocolError, false, "another frame stands within a header block"}
	errNoBlock       = &Fault{ProtocolError, false, "a CONTINUATION frame continues nothing"}
	errBlockSize     = &Fault{EnhanceYourCalm, false, "a header block is far larger than the limit"}
	errEnablePush    = &Fault{ProtocolError, false, "SETTINGS_ENABLE_PUSH is neither 0 nor 1"}
	errWindowSize    = &Fault{FlowControlError, false, "SETTINGS_INITIAL_WINDOW_SIZE is larger than 2^31-1"}
	errMaxFrameSize  = &Fault{ProtocolError, false, "SETTINGS_MAX_FRAME_SIZE is not between 2^14 and 2^24-1"}

	errCompression = &Fault{CompressionError, false, "a header block cannot be decoded"}

	errWindow     = &Fault{FlowControlError, false, "a window exceeds 2^31-1"}
	errIncrement  = &Fault{ProtocolError, false, "a WINDOW_UPDATE increments by nothing"}
	errPseudo     = &Fault{ProtocolError, true, "a pseudo-header field is unknown, repeated, misplaced or missing"}
	errName       = &Fault{ProtocolError, true, "the name of a field is not a token in lower case"}
	errValue      = &Fault{ProtocolError, true, "the value of a field holds a control character or begins or ends with white space"}
	errConnection = &Fault{ProtocolError, true, "a field speaks of the connection"}
	errTE         = &Fault{ProtocolError, true, "TE holds something else than trailers"}
	errStatus     = &Fault{ProtocolError, true, "the status is not a number of three digits"}
)
