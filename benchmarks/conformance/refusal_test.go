package conformance

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
)

// witness counts the refusals that a client gets, whatever the client makes of them.
type witness struct{ refusals atomic.Int64 }

func (w *witness) note(err error) error {
	if interceptors.IsRefusal(err) {
		w.refusals.Add(1)
	}
	return err
}

func (w *witness) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return w.note(invoker(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := streamer(ctx, desc, cc, method, opts...)
			return &witnessed{ClientStream: stream, witness: w}, w.note(err)
		}),
	}
}

// witnessed is a stream of one goroutine.
type witnessed struct {
	grpc.ClientStream
	witness *witness
	ended   error // how, if that is known already
}

// SendMsg says io.EOF where the stream has ended. How it ended is for RecvMsg to say, which many a case does not ask.
func (s *witnessed) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if errors.Is(err, io.EOF) && s.ended == nil {
		s.ended = s.witness.note(s.ClientStream.RecvMsg(new(testpb.Empty)))
	}
	return err
}

func (s *witnessed) RecvMsg(m any) error {
	if s.ended != nil {
		return s.ended
	}
	return s.witness.note(s.ClientStream.RecvMsg(m))
}
