package soak

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

// call is one kind of call. It is given the client of a connection.
type call func(k *task, ctx context.Context, c pb.TestServiceClient) error

// grpc makes a connection and calls on it. The client sends a call again only if the gateway did not look at it.
func (k *task) grpc(listener string, do call) error {
	creds := insecure.NewCredentials()
	if listener != "http" {
		creds = credentials.NewTLS(k.tls("h2"))
	}
	conn, err := grpc.NewClient("passthrough:///"+k.addr[listener], grpc.WithTransportCredentials(creds), grpc.WithAuthority(hostname), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return do(k, ctx, pb.NewTestServiceClient(conn))
}

// identify notes the number that the gateway has given a call, to find it in the access log.
func (k *task) identify(header func() (metadata.MD, error)) {
	if md, err := header(); err == nil {
		k.also = append(k.also[:0], md.Get("x-request-id")...)
	}
}

func payload(text string) *pb.Payload { return &pb.Payload{Body: []byte(text)} }

// unary makes calls one after the other.
func unary(calls int) call {
	return func(k *task, ctx context.Context, c pb.TestServiceClient) error {
		for i := range calls {
			ctx, cancel := context.WithTimeout(ctx, patience)
			text := k.next()
			out, err := c.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(text)})
			cancel()
			if err == nil && string(out.Payload.GetBody()) != text {
				err = fmt.Errorf("%q is answered with %q", text, out.Payload.GetBody())
			}
			if err != nil {
				return fmt.Errorf("call %d of a connection: %w", i+1, err)
			}
			wait(pace)
		}
		return nil
	}
}

// serverStream reads n messages.
func serverStream(n int) call {
	return func(k *task, ctx context.Context, c pb.TestServiceClient) error {
		k.next()
		s, err := c.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: int32(n)}}})
		if err != nil {
			return err
		}
		k.identify(s.Header)
		for i := range n {
			m, err := s.Recv()
			if err == nil && string(m.Payload.GetBody()) != strconv.Itoa(i) {
				err = fmt.Errorf("it is %q", m.Payload.GetBody())
			}
			if err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
			if n == endless && k.stopped() {
				return nil
			}
		}
		if _, err := s.Recv(); err != io.EOF {
			return fmt.Errorf("at the end: %v", err)
		}
		return nil
	}
}

// clientStream sends n messages.
func clientStream(n int) call {
	return func(k *task, ctx context.Context, c pb.TestServiceClient) error {
		k.next()
		s, err := c.StreamingInputCall(ctx)
		if err != nil {
			return err
		}
		size := 0
		err = k.converse(n, func(i int) error {
			text := strconv.Itoa(i)
			size += len(text)
			err := s.Send(&pb.StreamingInputCallRequest{Payload: payload(text)})
			if err == io.EOF { // the call is over
				_, err = s.CloseAndRecv()
			}
			return err
		})
		if err != nil {
			return err
		}
		out, err := s.CloseAndRecv()
		if err == nil && int(out.AggregatedPayloadSize) != size {
			err = fmt.Errorf("%d bytes have arrived, %d were sent", out.AggregatedPayloadSize, size)
		}
		return err
	}
}

// bidi says n messages and hears each again.
func bidi(n int) call {
	return func(k *task, ctx context.Context, c pb.TestServiceClient) error {
		k.next()
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		err = k.converse(n, func(i int) error {
			text := strconv.Itoa(i)
			err := s.Send(&pb.StreamingOutputCallRequest{Payload: payload(text)})
			if err != nil && err != io.EOF { // at which Recv tells how the call has ended
				return err
			}
			m, err := s.Recv()
			if err == nil && string(m.Payload.GetBody()) != text {
				err = fmt.Errorf("heard %q", m.Payload.GetBody())
			}
			if i == 0 {
				k.identify(s.Header)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		if _, err := s.Recv(); err != io.EOF {
			return fmt.Errorf("at the end: %v", err)
		}
		return nil
	}
}
