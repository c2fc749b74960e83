package soak

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// workers is how many requests a station can work on at a time.
const workers = 8

// service is how long it works on each message. All times of a soak are multiples of moment, so that a great many things
// happen at the same instant, and race.
const (
	moment  = 100 * time.Microsecond
	service = 10 * moment
)

// station is a service that works on each message, and then answers, fails or panics as that says.
type station struct {
	testpb.UnimplementedTestServiceServer
	free chan struct{}
}

func newStation() *station { return &station{free: make(chan struct{}, workers)} }

// panicking is a code for a handler that panics.
const panicking codes.Code = 999

func (s *station) work(ctx context.Context, way *testpb.EchoStatus) error {
	select {
	case s.free <- struct{}{}:
		time.Sleep(service)
		<-s.free
	case <-ctx.Done():
		return ctx.Err()
	}
	code := codes.Code(way.GetCode())
	if code == panicking {
		panic("as asked")
	}
	return status.Error(code, "as asked")
}

func (s *station) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := s.work(ctx, r.GetResponseStatus()); err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{Payload: payload(int(r.GetResponseSize()))}, nil
}

// StreamingOutputCall works once, and then sends all that is asked for, as fast as it is read.
func (s *station) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	if err := s.work(stream.Context(), r.GetResponseStatus()); err != nil {
		return err
	}
	for _, answer := range r.GetResponseParameters() {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: payload(int(answer.GetSize()))}); err != nil {
			return err
		}
	}
	return nil
}

func (s *station) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	for size := 0; ; {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		case err != nil:
			return err
		}
		size += len(r.GetPayload().GetBody())
		if err := s.work(stream.Context(), nil); err != nil {
			return err
		}
	}
}

func (s *station) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := s.work(stream.Context(), r.GetResponseStatus()); err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

func payload(size int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, size)} }
