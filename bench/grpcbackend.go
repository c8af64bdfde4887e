package main

import (
	"context"
	"encoding/binary"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// grpcPath is the method of the gRPC backend: it takes bytes and returns them.
const grpcPath = "/bench.Bench/Echo"

// startGRPC starts the gRPC backend within this process, whose time does not count.
func startGRPC() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer(grpc.MaxConcurrentStreams(1000))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Bench", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.BytesValue)
				return in, decode(in)
			},
		}},
	}, struct{}{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Stop
	}()
	return l.Addr().String(), func() { s.Stop(); <-done }, nil
}

// writeGRPCRequest writes the body of a call with a message of 100 bytes: the prefix of five bytes, and a BytesValue.
func writeGRPCRequest(file string) error {
	const size = 98 // and two bytes of tag and length
	message := append([]byte{1<<3 | 2, size}, make([]byte, size)...)
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return os.WriteFile(file, append(body, message...), 0o600)
}
