package exchange

import (
	"testing"
	"time"
)

func TestGRPC(t *testing.T) {
	t.Parallel()
	f := func(contentType, timeout string, grpc bool, want time.Duration) {
		t.Helper()
		var x Exchange
		x.Req.AddString(IDContentType.Name(), contentType)
		x.Req.AddString(NameOf("grpc-timeout"), timeout)
		if x.GRPC() != grpc || x.GRPCTimeout() != want {
			t.Errorf("%q, %q: %v, %v", contentType, timeout, x.GRPC(), x.GRPCTimeout())
		}
	}
	f("application/grpc", "1S", true, time.Second)
	f("application/grpc+proto", "99999999H", true, 10_000*time.Hour)
	f("Application/grpc-web", "5m", true, 5*time.Millisecond)
	f("application/grpc;x", "7u", true, 7*time.Microsecond)
	f("application/grpc", "3n", true, 3)
	f("application/grpc", "2M", true, 2*time.Minute)
	for _, bad := range []string{"", "1", "S", "-1S", "1x", "123456789S", "1.5S"} {
		f("application/grpc", bad, true, 0)
	}
	f("application/grpcx", "1S", false, 0)
	f("text/plain", "1S", false, 0)
}

func TestSpeakGRPC(t *testing.T) {
	t.Parallel()
	var x Exchange
	x.Req.AddString(IDContentType.Name(), "application/grpc+proto")
	x.Refuse(KeyMissing, "ü 5%\n")
	x.SpeakGRPC()
	if x.Refused() || x.Status != 200 || x.Code != KeyMissing {
		t.Errorf("refused %v, status %d, code %v", x.Refused(), x.Status, x.Code)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/grpc+proto", "Grpc-Status": "16", "Grpc-Message": "An API key is required: %C3%BC 5%25%0A",
	} {
		if got := x.Own.Get(NameOf(name)); got.String() != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if body, ok := x.LocalAnswer(); !ok || body.Len() != 0 {
		t.Errorf("a body of %d bytes", body.Len())
	}
	x.Reset()
	x.Refuse(KeyMissing, "")
	x.SpeakGRPC()
	if !x.Refused() || x.Status != 401 {
		t.Error("a client of HTTP is answered as one of gRPC")
	}
}
