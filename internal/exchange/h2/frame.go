package h2

import "encoding/binary"

// FrameType says what a frame is (RFC 9113, section 6).
type FrameType uint8

// The types of frames. Others are ignored.
const (
	Data FrameType = iota
	Headers
	Priority
	ResetStream
	Settings
	PushPromise
	Ping
	GoAway
	WindowUpdate
	Continuation
)

// Flags of frames; which of them means something depends on the type.
const (
	FlagAck        = 0x1
	FlagEndStream  = 0x1
	FlagEndHeaders = 0x4
	FlagPadded     = 0x8
	FlagPriority   = 0x20
)

const (
	// FrameHeaderSize is the size of what stands before the content of every frame.
	FrameHeaderSize = 9
	// MaxFrame is the largest content of a frame that the gateway takes and sends: what every peer must take.
	MaxFrame = 16 << 10
	// Preface is what a client says first.
	Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// DefaultWindow is what flow control begins with unless settings say otherwise, and always for the connection.
	DefaultWindow = 65535
	// MaxWindow is the largest window.
	MaxWindow = 1<<31 - 1
	// MaxStream is the highest number of a stream.
	MaxStream = 1<<31 - 1
)

// FrameHeader is what stands before the content of a frame.
type FrameHeader struct {
	Length int
	Type   FrameType
	Flags  uint8
	Stream uint32
}

// Has tells whether a flag is set.
func (h FrameHeader) Has(flag uint8) bool { return h.Flags&flag != 0 }

// ParseFrameHeader reads the first FrameHeaderSize bytes of b.
func ParseFrameHeader(b []byte) FrameHeader {
	_ = b[FrameHeaderSize-1]
	return FrameHeader{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   FrameType(b[3]),
		Flags:  b[4],
		Stream: binary.BigEndian.Uint32(b[5:]) & MaxStream,
	}
}

// Check holds a frame against what its type allows of length and stream. Every error is a *Fault.
func (h FrameHeader) Check() error {
	if h.Length > MaxFrame {
		return errFrameSize
	}
	switch h.Type {
	case Data, Headers, Continuation, PushPromise, Priority, ResetStream:
		if h.Stream == 0 {
			return errStreamZero
		}
	case Settings, Ping, GoAway:
		if h.Stream != 0 {
			return errStreamNotZero
		}
	}
	ok := true
	switch h.Type {
	case Priority:
		if h.Length != 5 {
			return errPrioritySize
		}
	case ResetStream, WindowUpdate:
		ok = h.Length == 4
	case Settings:
		ok = h.Length%SettingSize == 0 && (h.Length == 0 || !h.Has(FlagAck))
	case Ping:
		ok = h.Length == 8
	case GoAway:
		ok = h.Length >= 8
	}
	if !ok {
		return errFrameSize
	}
	return nil
}

// Unpad takes padding and, of HEADERS, the priority off the content of a frame. It returns the number of the stream that
// the frame's own depends on, or 0.
func (h FrameHeader) Unpad(content []byte) ([]byte, uint32, error) {
	pad := 0
	if h.Has(FlagPadded) {
		if len(content) == 0 {
			return nil, 0, errPadding
		}
		pad, content = int(content[0]), content[1:]
	}
	var dependency uint32
	if h.Type == Headers && h.Has(FlagPriority) {
		if len(content) < 5 {
			return nil, 0, errPadding
		}
		dependency = binary.BigEndian.Uint32(content) & MaxStream
		content = content[5:]
	}
	if pad > len(content) {
		return nil, 0, errPadding
	}
	return content[:len(content)-pad], dependency, nil
}

// AppendFrameHeader appends the header of a frame whose content the caller appends.
func AppendFrameHeader(dst []byte, length int, t FrameType, flags uint8, stream uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(t), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// AppendHeaders appends a header block as a HEADERS frame and as many CONTINUATION frames as it needs.
func AppendHeaders(dst []byte, stream uint32, block []byte, end bool) []byte {
	var flags uint8
	if end {
		flags = FlagEndStream
	}
	t := Headers
	for {
		n := min(len(block), MaxFrame)
		if n == len(block) {
			flags |= FlagEndHeaders
		}
		dst = AppendFrameHeader(dst, n, t, flags, stream)
		dst = append(dst, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return dst
		}
		t, flags = Continuation, 0
	}
}

// AppendReset appends a RST_STREAM frame.
func AppendReset(dst []byte, stream uint32, code ErrCode) []byte {
	dst = AppendFrameHeader(dst, 4, ResetStream, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame.
func AppendWindowUpdate(dst []byte, stream uint32, n int) []byte {
	dst = AppendFrameHeader(dst, 4, WindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// AppendPing appends a PING frame.
func AppendPing(dst []byte, ack bool, data [8]byte) []byte {
	var flags uint8
	if ack {
		flags = FlagAck
	}
	return append(AppendFrameHeader(dst, 8, Ping, flags, 0), data[:]...)
}

// AppendGoAway appends a GOAWAY frame. The reason is for whoever debugs the peer.
func AppendGoAway(dst []byte, last uint32, code ErrCode, reason string) []byte {
	dst = AppendFrameHeader(dst, 8+len(reason), GoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, reason...)
}

// ParseGoAway reads the content of a GOAWAY frame.
func ParseGoAway(content []byte) (last uint32, code ErrCode) {
	return binary.BigEndian.Uint32(content) & MaxStream, ErrCode(binary.BigEndian.Uint32(content[4:]))
}

// SettingSize is how many bytes a setting takes in a frame.
const SettingSize = 6

// Setting names a setting (RFC 9113, section 6.5.2, and RFC 8441, section 3).
type Setting uint16

// The settings that the gateway knows.
const (
	HeaderTableSize       Setting = 1
	EnablePush            Setting = 2
	MaxConcurrentStreams  Setting = 3
	InitialWindowSize     Setting = 4
	MaxFrameSize          Setting = 5
	MaxHeaderListSize     Setting = 6
	EnableConnectProtocol Setting = 8
)

// SettingValue is a setting with its value.
type SettingValue struct {
	Setting Setting
	Value   uint32
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(dst []byte, all ...SettingValue) []byte {
	dst = AppendFrameHeader(dst, 6*len(all), Settings, 0, 0)
	for _, s := range all {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.Setting))
		dst = binary.BigEndian.AppendUint32(dst, s.Value)
	}
	return dst
}

// AppendSettingsAck appends the acknowledgement of settings.
func AppendSettingsAck(dst []byte) []byte { return AppendFrameHeader(dst, 0, Settings, FlagAck, 0) }

// ParseSettings calls f for every setting in the content of a SETTINGS frame, until one is refused.
func ParseSettings(content []byte, f func(SettingValue) error) error {
	for ; len(content) >= SettingSize; content = content[SettingSize:] {
		s := SettingValue{Setting(binary.BigEndian.Uint16(content)), binary.BigEndian.Uint32(content[2:])}
		switch {
		case s.Setting == EnablePush && s.Value > 1:
			return errEnablePush
		case s.Setting == InitialWindowSize && s.Value > MaxWindow:
			return errWindowSize
		case s.Setting == MaxFrameSize && (s.Value < 16<<10 || s.Value > 1<<24-1):
			return errMaxFrameSize
		}
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

// ParseUint31 reads the increment of a WINDOW_UPDATE frame.
func ParseUint31(content []byte) uint32 { return binary.BigEndian.Uint32(content) & MaxStream }

// ParseErrCode reads the content of a RST_STREAM frame.
func ParseErrCode(content []byte) ErrCode { return ErrCode(binary.BigEndian.Uint32(content)) }
