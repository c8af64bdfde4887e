package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// eventPause is the time between two events of a stream.
const eventPause = 50 * time.Millisecond

// startBackend starts a backend of HTTP/1.1 and, with prior knowledge, HTTP/2.
func startBackend(t testing.TB) (address string) {
	srv := httptest.NewUnstartedServer(backend())
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.Listener.Addr().String()
}

// backend answers what the traffic asks. The last part of a path names the request and means nothing.
func backend() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{api}/items/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "item %s", r.PathValue("id")) })
	mux.HandleFunc("POST /{api}/echo/{id}", echo)
	mux.HandleFunc("GET /{api}/events/{id}", events)
	mux.HandleFunc("GET /{api}/talk/{id}", talk)
	mux.HandleFunc("GET /{api}/ws/{id}", webSocket)
	return mux
}

// echo says again what it reads, while it reads.
func echo(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex() // HTTP/2 is, and knows no such wish
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	b := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(b)
		if _, werr := w.Write(b[:n]); werr != nil || c.Flush() != nil {
			return
		}
		switch {
		case err == io.EOF:
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		}
	}
}

// events sends as many server-sent events as the query wants, or until the client leaves.
func events(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(eventPause)
	defer tick.Stop()
	for i := range n {
		fmt.Fprintf(w, "data: %d\n\n", i)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// talk switches to a protocol of its own, and says again what it hears.
func talk(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "talk") {
		http.Error(w, "upgrade to talk", http.StatusUpgradeRequired)
		return
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
	_, _ = io.Copy(c, buffered)
}

// webSocket says again what it hears.
func webSocket(w http.ResponseWriter, r *http.Request) {
	c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return // and is answered
	}
	defer c.Close()
	for {
		kind, message, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, message) != nil {
			return
		}
	}
}

// startGRPC starts a backend of gRPC.
func startGRPC(t testing.TB) (address string) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterTestServiceServer(srv, service{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("gRPC backend: %v", err)
		}
	}()
	t.Cleanup(func() { srv.Stop(); <-ended })
	return l.Addr().String()
}

// service says again what it hears.
type service struct {
	pb.UnimplementedTestServiceServer
}

func (service) UnaryCall(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: in.Payload}, nil
}

// StreamingOutputCall numbers its messages.
func (service) StreamingOutputCall(in *pb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	tick := time.NewTicker(eventPause)
	defer tick.Stop()
	for i := range in.ResponseParameters[0].Size {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: strconv.AppendInt(nil, int64(i), 10)}}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
	return nil
}

func (service) StreamingInputCall(s grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	n := 0
	for {
		in, err := s.Recv()
		switch {
		case err == io.EOF:
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
		case err != nil:
			return err
		}
		n += len(in.Payload.Body)
	}
}

func (service) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	for {
		in, err := s.Recv()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
			return err
		}
	}
}
