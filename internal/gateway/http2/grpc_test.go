package http2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/grpcweb"
)

// testService is the service of gRPC's interoperability tests, as far as those below need it.
type testService struct {
	pb.UnimplementedTestServiceServer
	cancelled chan struct{} // one message for each stream that was cancelled
}

func (testService) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) { return &pb.Empty{}, nil }

func echoMetadata(ctx context.Context) (header, trailer metadata.MD) {
	in, _ := metadata.FromIncomingContext(ctx)
	header, trailer = metadata.MD{}, metadata.MD{}
	if v := in.Get("x-grpc-test-echo-initial"); len(v) > 0 {
		header.Set("x-grpc-test-echo-initial", v[0])
	}
	if v := in.Get("x-grpc-test-echo-trailing-bin"); len(v) > 0 {
		trailer.Set("x-grpc-test-echo-trailing-bin", v[0])
	}
	return header, trailer
}

func payload(n int32) *pb.Payload { return &pb.Payload{Body: make([]byte, n)} }

func (testService) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	header, trailer := echoMetadata(ctx)
	_, _ = grpc.SetHeader(ctx, header), grpc.SetTrailer(ctx, trailer)
	if st := in.GetResponseStatus(); st != nil && st.Code != 0 {
		return nil, status.Error(codes.Code(st.Code), st.Message)
	}
	return &pb.SimpleResponse{Payload: payload(in.ResponseSize)}, nil
}

func (testService) StreamingOutputCall(in *pb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	for _, p := range in.ResponseParameters {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(p.Size)}); err != nil {
			return err
		}
	}
	return nil
}

func (t testService) StreamingInputCall(s grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	n := 0
	for {
		in, err := s.Recv()
		switch {
		case err == io.EOF:
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
		case err != nil:
			t.cancelled <- struct{}{}
			return err
		}
		n += len(in.Payload.Body)
	}
}

func (t testService) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	header, trailer := echoMetadata(s.Context())
	if len(header) > 0 {
		_ = s.SetHeader(header)
	}
	s.SetTrailer(trailer)
	for {
		in, err := s.Recv()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			t.cancelled <- struct{}{}
			return err
		case in.GetResponseStatus().GetCode() != 0:
			return status.Error(codes.Code(in.ResponseStatus.Code), in.ResponseStatus.Message)
		}
		for _, p := range in.ResponseParameters {
			if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(p.Size)}); err != nil {
				return err
			}
		}
	}
}

// grpcRig is a gRPC service behind a gateway.
type grpcRig struct {
	*gateway
	conn      *grpc.ClientConn
	cancelled chan struct{}
}

func startGRPC(t *testing.T, secure bool, s setup) *grpcRig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &grpcRig{cancelled: make(chan struct{}, 10)}
	server := grpc.NewServer()
	pb.RegisterTestServiceServer(server, testService{cancelled: r.cancelled})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	s.secure, s.backend.HTTPVersion = secure, "2"
	r.gateway = startBefore(t, s, l.Addr().String())
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	}
	r.conn, err = grpc.NewClient(r.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.conn.Close() })
	return r
}

// TestGRPC is the 14 cases of gRPC's interoperability tests that suit a proxy, by the names that they have there.
func TestGRPC(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, secure bool) {
		r := startGRPC(t, secure, setup{})
		client := pb.NewTestServiceClient(r.conn)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, tt := range grpcCases {
			t.Run(tt.name, func(t *testing.T) {
				if err := tt.run(ctx, client, r); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

type grpcCase struct {
	name string
	run  func(ctx context.Context, c pb.TestServiceClient, r *grpcRig) error
}

func wantCode(err error, code codes.Code, message string) error {
	if st := status.Convert(err); st.Code() != code || message != "" && st.Message() != message {
		return fmt.Errorf("status %v %q, want %v %q", st.Code(), st.Message(), code, message)
	}
	return nil
}

func echoStatus(ctx context.Context, c pb.TestServiceClient, message string) error {
	st := &pb.EchoStatus{Code: 2, Message: message}
	_, err := c.UnaryCall(ctx, &pb.SimpleRequest{ResponseStatus: st})
	return wantCode(err, codes.Unknown, message)
}

func pingPong(ctx context.Context, c pb.TestServiceClient) error {
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for _, size := range []int32{31415, 9, 2653, 58979} {
		if err := s.Send(&pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: size}}, Payload: payload(size)}); err != nil {
			return err
		}
		out, err := s.Recv()
		if err != nil || len(out.Payload.Body) != int(size) {
			return fmt.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if _, err := s.Recv(); err != io.EOF {
		return fmt.Errorf("at the end: %v", err)
	}
	return nil
}

var grpcCases = []grpcCase{
	{"empty_unary", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		_, err := c.EmptyCall(ctx, &pb.Empty{})
		return err
	}},
	{"large_unary", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		out, err := c.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 314159, Payload: payload(271828)})
		if err == nil && len(out.Payload.Body) != 314159 {
			err = fmt.Errorf("%d bytes", len(out.Payload.Body))
		}
		return err
	}},
	{"client_streaming", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		s, err := c.StreamingInputCall(ctx)
		if err != nil {
			return err
		}
		for _, n := range []int32{27182, 8, 1828, 45904} {
			if err := s.Send(&pb.StreamingInputCallRequest{Payload: payload(n)}); err != nil {
				return err
			}
		}
		out, err := s.CloseAndRecv()
		if err == nil && out.AggregatedPayloadSize != 74922 {
			err = fmt.Errorf("%d bytes", out.AggregatedPayloadSize)
		}
		return err
	}},
	{"server_streaming", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		sizes := []int32{31415, 9, 2653, 58979}
		in := &pb.StreamingOutputCallRequest{}
		for _, n := range sizes {
			in.ResponseParameters = append(in.ResponseParameters, &pb.ResponseParameters{Size: n})
		}
		s, err := c.StreamingOutputCall(ctx, in)
		if err != nil {
			return err
		}
		for _, n := range sizes {
			if out, err := s.Recv(); err != nil || len(out.Payload.Body) != int(n) {
				return fmt.Errorf("%d bytes: %v", n, err)
			}
		}
		if _, err := s.Recv(); err != io.EOF {
			return fmt.Errorf("at the end: %v", err)
		}
		return nil
	}},
	{"ping_pong", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error { return pingPong(ctx, c) }},
	{"empty_stream", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		_ = s.CloseSend()
		if _, err := s.Recv(); err != io.EOF {
			return fmt.Errorf("at the end: %v", err)
		}
		return nil
	}},
	{"timeout_on_sleeping_server", func(ctx context.Context, c pb.TestServiceClient, r *grpcRig) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		s, err := c.FullDuplexCall(ctx)
		if err == nil {
			_ = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(27182)})
			_, err = s.Recv()
		}
		if err := wantCode(err, codes.DeadlineExceeded, ""); err != nil {
			return err
		}
		<-r.cancelled // the service learns of it
		return nil
	}},
	{"cancel_after_begin", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		ctx, cancel := context.WithCancel(ctx)
		s, err := c.StreamingInputCall(ctx)
		cancel()
		if err == nil {
			_, err = s.CloseAndRecv()
		}
		return wantCode(err, codes.Canceled, "")
	}},
	{"cancel_after_first_response", func(ctx context.Context, c pb.TestServiceClient, r *grpcRig) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		_ = s.Send(&pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: 31415}}, Payload: payload(27182)})
		if _, err := s.Recv(); err != nil {
			return err
		}
		cancel()
		_, err = s.Recv()
		if err := wantCode(err, codes.Canceled, ""); err != nil {
			return err
		}
		<-r.cancelled
		return nil
	}},
	{"status_code_and_message", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		if err := echoStatus(ctx, c, "test status message"); err != nil {
			return err
		}
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		_ = s.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{Code: 2, Message: "test status message"}})
		_, err = s.Recv()
		return wantCode(err, codes.Unknown, "test status message")
	}},
	{"special_status_message", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		return echoStatus(ctx, c, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")
	}},
	{"custom_metadata", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-grpc-test-echo-initial", "test_initial_metadata_value",
			"x-grpc-test-echo-trailing-bin", "\x0a\x0b\x0a\x0b\x0a\x0b")
		var header, trailer metadata.MD
		if _, err := c.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
			return err
		}
		one, two := strings.Join(header.Get("x-grpc-test-echo-initial"), "|"), strings.Join(trailer.Get("x-grpc-test-echo-trailing-bin"), "|")
		if one != "test_initial_metadata_value" || two != "\x0a\x0b\x0a\x0b\x0a\x0b" {
			return fmt.Errorf("metadata %q, %q", one, two)
		}
		return nil
	}},
	{"unimplemented_method", func(ctx context.Context, c pb.TestServiceClient, _ *grpcRig) error {
		_, err := c.UnimplementedCall(ctx, &pb.Empty{})
		return wantCode(err, codes.Unimplemented, "")
	}},
	{"unimplemented_service", func(ctx context.Context, _ pb.TestServiceClient, r *grpcRig) error {
		_, err := pb.NewUnimplementedServiceClient(r.conn).UnimplementedCall(ctx, &pb.Empty{})
		return wantCode(err, codes.Unimplemented, "")
	}},
}

// TestGRPCRefusals shows what a gRPC client is told when the gateway refuses.
func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	var code exchange.Code
	r := startGRPC(t, false, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		x.Refuse(code, "why: 100%")
		d.Respond(x, nil)
		return true
	}})
	client := pb.NewTestServiceClient(r.conn)
	for c, want := range map[exchange.Code]codes.Code{
		exchange.KeyInvalid: codes.Unauthenticated, exchange.NotSubscribed: codes.PermissionDenied, exchange.NoRoute: codes.Unimplemented,
		exchange.QuotaExceeded: codes.ResourceExhausted, exchange.UpstreamTimeout: codes.DeadlineExceeded, exchange.UpstreamConnect: codes.Unavailable,
		exchange.Internal: codes.Internal, exchange.BadRequestBodyTooLarge: codes.ResourceExhausted, exchange.Draining: codes.Unavailable,
	} {
		code = c
		_, err := client.EmptyCall(t.Context(), &pb.Empty{})
		if err := wantCode(err, want, c.Title()+": why: 100%"); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// TestGRPCDeadline ends a call when the client waits no longer, whatever the backend does: before the head of the response,
// and after.
func TestGRPCDeadline(t *testing.T) {
	t.Parallel()
	g := both(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.Header().Set("Content-Type", "application/grpc")
			_ = http.NewResponseController(w).Flush()
		}
		waiting(w, r)
	}, setup{})
	r := g.dial(t)
	for i, path := range []string{"/silent", "/begun"} {
		id := uint32(2*i + 1)
		r.request(id, true, "POST "+path, "content-type: application/grpc", "te: trailers", "grpc-timeout: 200m")
		all, _ := r.until(over(id))
		if a := all[id]; a.status != "200 " || a.grpcStatus != "4" {
			t.Errorf("%s: %+v, want the status 4 of gRPC", path, a)
		}
	}
}

// TestGRPCWeb calls a service of gRPC as browsers do.
func TestGRPCWeb(t *testing.T) {
	t.Parallel()
	r := startGRPC(t, false, setup{})
	c := r.client(t)
	in, err := proto.Marshal(&pb.SimpleRequest{ResponseSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	message := append([]byte{0, 0, 0, 0, byte(len(in))}, in...)
	ask := func(method, contentType string, body io.Reader) (string, http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", r.url("/grpc.testing.TestService/"+method), body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != contentType {
			t.Fatalf("%s: %d %v %v", contentType, res.StatusCode, res.Header, err)
		}
		return string(out), res.Header
	}
	const end = "grpc-status: 0\r\n"
	check := func(out string) {
		t.Helper()
		if n := len(out); n < 5+7 || out[0] != 0 || !strings.Contains(out, "\x80\x00\x00\x00") || !strings.Contains(out, end) {
			t.Errorf("the response is %q", out)
		}
	}
	out, _ := ask("UnaryCall", "application/grpc-web+proto", bytes.NewReader(message))
	check(out)
	text := base64.StdEncoding.EncodeToString(message)
	for name, body := range map[string]io.Reader{"whole": strings.NewReader(text), "streamed": io.MultiReader(strings.NewReader(text))} {
		out, _ = ask("UnaryCall", "application/grpc-web-text+proto", body)
		decoded, err := grpcweb.Decode([]byte(out))
		if err != nil {
			t.Errorf("%s: %q: %v", name, out, err)
		}
		check(string(decoded))
	}
	if out, h := ask("Nothing", "application/grpc-web", bytes.NewReader(message)); out != "" || h.Get("Grpc-Status") != "12" {
		t.Errorf("an unknown method: %q, %v", out, h)
	}
	if out, h := ask("UnaryCall", "application/grpc-web-text", strings.NewReader("?")); out != "" || h.Get("Grpc-Status") != "3" {
		t.Errorf("what is not Base64: %q, %v", out, h)
	}
}
