package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var comparable = cmpopts.EquateComparable(netip.AddrPort{})

func header(source, destination string) Header {
	return Header{Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination)}
}

const v2 = "\r\n\r\n\x00\r\nQUIT\n"

func TestRead(t *testing.T) {
	t.Parallel()
	v4 := header("192.0.2.1:56324", "198.51.100.9:443")
	named := v4
	named.Authority, named.UniqueID = "api.example.com", []byte{1, 2}
	const addrs = "\xc0\x00\x02\x01\xc6\x33\x64\x09\xdc\x04\x01\xbb"
	for _, tt := range []struct {
		name, in string
		want     Header
		err      error
	}{
		{"v1 IPv4", "PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n", v4, nil},
		{"v1 IPv6", "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", header("[2001:db8::1]:1", "[::1]:65535"), nil},
		{"v1 shortest", "PROXY TCP6 :: :: 0 0\r\n", header("[::]:0", "[::]:0"), nil},
		{
			"v1 longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
			header("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"), nil,
		},
		{"v1 unknown", "PROXY UNKNOWN\r\n", Header{}, nil},
		{"v1 unknown with more", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Header{}, nil},
		{"v2 IPv4", v2 + "\x21\x11\x00\x0c" + addrs, v4, nil},
		{
			"v2 IPv6", v2 + "\x21\x21\x00\x24" + strings.Repeat("\x00", 15) + "\x01" + strings.Repeat("\xff", 16) + "\x00\x01\x00\x02",
			header("[::1]:1", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:2"), nil,
		},
		{
			"v2 mapped", v2 + "\x21\x21\x00\x24" + strings.Repeat("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01", 2) + "\x00\x01\x00\x02",
			header("10.0.0.1:1", "10.0.0.1:2"), nil,
		},
		{"v2 additions", v2 + "\x21\x11\x00\x26" + addrs + "\x02\x00\x0fapi.example.com\x05\x00\x02\x01\x02\x04\x00\x00", named, nil},
		{"v2 local", v2 + "\x20\x00\x00\x00", Header{}, nil},
		{"v2 local with more", v2 + "\x20\x11\x00\x0d" + addrs + "x", Header{}, nil},
		{"v2 unspecified", v2 + "\x21\x00\x00\x02xx", Header{}, nil},
		{"v2 Unix socket", v2 + "\x21\x31\x00\xd8" + strings.Repeat("/", 216), Header{}, nil},
		{"v2 checksum", v2 + "\x21\x11\x00\x13" + addrs + "\x03\x00\x04\xa9\xb8\x7e\x8f", v4, ErrChecksum},

		{"nothing", "", Header{}, io.EOF},
		{"HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Header{}, ErrSignature},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaa", Header{}, ErrSignature},
		{"v1 without end", "PROXY TCP4 " + strings.Repeat("1", 200), Header{}, ErrVersion1},
		{"v1 cut", "PROXY TCP4 192.0.2.1 198", Header{}, io.ErrUnexpectedEOF},
		{"v1 bare LF", "PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\nGET", Header{}, ErrVersion1},
		{"v1 family", "PROXY TCP4 ::1 ::1 1 1\r\n", Header{}, ErrVersion1},
		{"v1 other family", "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", Header{}, ErrVersion1},
		{"v1 kind", "PROXY TCP5 ::1 ::1 1 1\r\n", Header{}, ErrVersion1},
		{"v1 lower case", "PROXY tcp4 1.1.1.1 1.1.1.1 1 1\r\n", Header{}, ErrVersion1},
		{"v1 port", "PROXY TCP6 ::1 ::1 1 65536\r\n", Header{}, ErrVersion1},
		{"v1 port with zero", "PROXY TCP6 ::1 ::1 01 1\r\n", Header{}, ErrVersion1},
		{"v1 port with sign", "PROXY TCP6 ::1 ::1 +1 1\r\n", Header{}, ErrVersion1},
		{"v1 two spaces", "PROXY TCP6  ::1 ::1 1 1\r\n", Header{}, ErrVersion1},
		{"v1 more", "PROXY TCP6 ::1 ::1 1 1 1\r\n", Header{}, ErrVersion1},
		{"v1 less", "PROXY TCP6 ::1 ::1 1\r\n", Header{}, ErrVersion1},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", Header{}, ErrVersion1},
		{"v2 version", v2 + "\x31\x11\x00\x0c" + addrs, Header{}, ErrVersion2},
		{"v2 command", v2 + "\x22\x11\x00\x0c" + addrs, Header{}, ErrVersion2},
		{"v2 family", v2 + "\x21\x41\x00\x0c" + addrs, Header{}, ErrVersion2},
		{"v2 transport", v2 + "\x21\x13\x00\x0c" + addrs, Header{}, ErrVersion2},
		{"v2 half unspecified", v2 + "\x21\x10\x00\x0c" + addrs, Header{}, ErrVersion2},
		{"v2 short", v2 + "\x21\x11\x00\x0b" + addrs, Header{}, ErrVersion2},
		{"v2 cut", v2 + "\x21\x11\x00\x0c" + addrs[1:], Header{}, io.ErrUnexpectedEOF},
		{"v2 too long", v2 + "\x21\x11\xff\xff" + addrs, Header{}, ErrTooLong},
		{"v2 addition too long", v2 + "\x21\x11\x00\x0f" + addrs + "\x02\x00\x01", Header{}, ErrVersion2},
		{"v2 addition cut", v2 + "\x21\x11\x00\x0e" + addrs + "\x02\x00", Header{}, ErrVersion2},
	} {
		const after = "GET / HTTP/1.1\r\n"
		in := tt.in
		if tt.err == nil {
			in += after
		}
		r := strings.NewReader(in)
		got, err := Read(iotest.OneByteReader(r))
		if tt.err != nil {
			if !errors.Is(err, tt.err) {
				t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got, comparable); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", tt.name, err, diff)
		}
		if rest, _ := io.ReadAll(r); string(rest) != after {
			t.Errorf("%s: %q is left of the connection", tt.name, rest)
		}
	}
}

// TestChecksum takes a header with a sum that is right, and then every one that differs from it in one bit.
func TestChecksum(t *testing.T) {
	t.Parallel()
	b := []byte(v2 + "\x21\x11\x00\x16\xc0\x00\x02\x01\xc6\x33\x64\x09\xdc\x04\x01\xbb\x03\x00\x04\x00\x00\x00\x00\x04\x00\x00")
	binary.BigEndian.PutUint32(b[len(b)-7:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if _, n, _, err := Parse(b); n != len(b) || err != nil {
		t.Errorf("the sum is right: %d, %v", n, err)
	}
	for i := fixed2; i < fixed2+12; i++ {
		b[i] ^= 1
		if _, _, _, err := Parse(b); !errors.Is(err, ErrChecksum) {
			t.Errorf("byte %d is wrong: %v", i, err)
		}
		b[i] ^= 1
	}
}

// TestAppend shows that what is written is read again.
func TestAppend(t *testing.T) {
	t.Parallel()
	for _, h := range []Header{
		header("192.0.2.1:56324", "198.51.100.9:443"), header("[2001:db8::1]:1", "[::1]:0"),
		{},
	} {
		for _, b := range [][]byte{h.AppendV1(nil), h.AppendV2(nil)} {
			got, n, _, err := Parse(b)
			if diff := cmp.Diff(h, got, comparable); diff != "" || err != nil || n != len(b) {
				t.Errorf("%q: %d, %v (-want +got)\n%s", b, n, err, diff)
			}
		}
	}
	h := header("192.0.2.1:1", "[::1]:2")
	h.Authority, h.UniqueID = "a.example", []byte("id")
	got, _, _, err := Parse(h.AppendV2(nil))
	if diff := cmp.Diff(h, got, comparable); diff != "" || err != nil {
		t.Errorf("two families: %v (-want +got)\n%s", err, diff)
	}
	if b := h.AppendV1(nil); string(b) != "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n" {
		t.Errorf("two families: %q", b)
	}
}

// FuzzParse checks that a header is read alike however it arrives, and that what it says can be written.
func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x09\xdc\x04\x01\xbb"))
	f.Add([]byte(v2 + "\x21\x21\x00\x27" + strings.Repeat("\x01", 36) + "\x05\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, n, missing, err := Parse(b)
		switch {
		case err != nil && n != 0, n > len(b), n > MaxHeader, n == 0 && err == nil && missing <= 0:
			t.Fatalf("Parse = %d, %d, %v", n, missing, err)
		}
		r := bytes.NewReader(b)
		got, readErr := Read(iotest.HalfReader(r))
		if err == nil && n > 0 {
			if diff := cmp.Diff(want, got, comparable); diff != "" || readErr != nil || len(b)-r.Len() != n {
				t.Fatalf("Read: %v, %d read, %d parsed (-want +got)\n%s", readErr, len(b)-r.Len(), n, diff)
			}
			if want.Source.IsValid() {
				again, _, _, err := Parse(want.AppendV2(nil))
				if err != nil || again.Source.Port() != want.Source.Port() || again.Source.Addr().Unmap() != want.Source.Addr().Unmap() {
					t.Fatalf("%+v was written and read as %+v, %v", want, again, err)
				}
			}
		} else if readErr == nil {
			t.Fatalf("Read = %+v where Parse fails: %v", got, err)
		}
	})
}
