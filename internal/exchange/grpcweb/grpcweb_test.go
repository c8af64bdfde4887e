package grpcweb

import (
	"bytes"
	"encoding/base64"
	"testing"

	"hansa.dev/hansa/internal/exchange"
)

func TestContentTypes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		kind      Kind
		grpc, web string
	}{
		"application/grpc-web":            {Binary, "application/grpc", "application/grpc-web"},
		"application/grpc-web+proto":      {Binary, "application/grpc+proto", "application/grpc-web+proto"},
		"Application/grpc-web-text+proto": {Text, "application/grpc+proto", "application/grpc-web-text+proto"},
		"application/grpc-webx":           {None, "", ""},
		"application/grpc":                {None, "", ""},
		"":                                {None, "", ""},
	} {
		kind, grpc := Of([]byte(in), nil)
		if kind != want.kind || string(grpc) != want.grpc {
			t.Errorf("Of(%q) = %v, %q", in, kind, grpc)
		}
		if kind != None && string(kind.ContentType(nil, grpc)) != want.web {
			t.Errorf("%q is answered with %q", in, kind.ContentType(nil, grpc))
		}
	}
}

// pieces is a body in pieces of n bytes.
type pieces struct {
	exchange.Bytes
	rest     []byte
	n        int
	trailers *exchange.Head
}

func (p *pieces) Next() (exchange.Chunk, error) {
	n := min(p.n, len(p.rest))
	c := exchange.Chunk{Data: p.rest[:n], End: n == len(p.rest)}
	p.rest = p.rest[n:]
	return c, nil
}

func (p *pieces) Trailers() *exchange.Head { return p.trailers }

func TestBodies(t *testing.T) {
	t.Parallel()
	messages := []byte("\x00\x00\x00\x00\x05hello\x00\x00\x00\x00\x02yo")
	var trailers exchange.Head
	trailers.AddString(exchange.NameOf("Grpc-Status"), "0")
	for n := 1; n < 40; n++ {
		padded := append([]byte(base64.StdEncoding.EncodeToString(messages[:10])), base64.StdEncoding.EncodeToString(messages[10:])...)
		got, err := exchange.ReadAll(nil, &Request{Source: &pieces{rest: padded, n: n}}, 1000)
		if err != nil || !bytes.Equal(got, messages) {
			t.Fatalf("pieces of %d: %q, %v", n, got, err)
		}
		want := string(messages) + "\x80\x00\x00\x00\x10grpc-status: 0\r\n"
		for _, kind := range []Kind{Binary, Text} {
			var r Response
			r.Reset(kind, &pieces{rest: messages, n: n, trailers: &trailers})
			got, err := exchange.ReadAll(nil, &r, 1000)
			if kind == Text && err == nil {
				got, err = Decode(got)
			}
			if err != nil || string(got) != want {
				t.Fatalf("%v, pieces of %d: %q, %v", kind, n, got, err)
			}
		}
	}
	for _, bad := range []string{"abc", "ab=c", "a b ", "====", "abcde"} {
		if got, err := exchange.ReadAll(nil, &Request{Source: &pieces{rest: []byte(bad), n: 3}}, 100); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

// readAll reads all of src and checks that no piece is empty but the last: written as a chunk of HTTP/1 it would be taken for that.
func readAll(t *testing.T, src exchange.Source) (all []byte, err error) {
	t.Helper()
	for {
		c, err := src.Next()
		if err != nil {
			return nil, err
		}
		if all = append(all, c.Data...); c.End {
			return all, nil
		}
		if len(c.Data) == 0 {
			t.Fatal("a piece is empty that is not the last")
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("AAAAAAVoZWxsbw=="), 3)
	f.Add([]byte("AA==AAAA"), 5)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		want, wantErr := Decode(bytes.Clone(in))
		got, err := readAll(t, &Request{Source: &pieces{rest: in, n: 1 + max(n, 0)%50}})
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("in pieces %q, %v; at once %q, %v", got, err, want, wantErr)
		}
	})
}
