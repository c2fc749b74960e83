package conformance

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// ways is a service whose methods end in the way that the request asks for. EmptyCall always ends well.
type ways struct {
	testpb.UnimplementedTestServiceServer
	criticality limiter.Criticality // that the last handler saw
}

// panicking is a code for a handler that panics.
const panicking codes.Code = 999

func (w *ways) end(ctx context.Context, way *testpb.EchoStatus) error {
	w.criticality = limiter.CriticalityFromContext(ctx)
	code := codes.Code(way.GetCode())
	if code == panicking {
		panic("as asked")
	}
	return status.Error(code, "as asked")
}

func (w *ways) EmptyCall(ctx context.Context, r *testpb.Empty) (*testpb.Empty, error) {
	return r, w.end(ctx, nil)
}

func (w *ways) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, w.end(ctx, r.GetResponseStatus())
}

func (w *ways) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	return w.end(stream.Context(), r.GetResponseStatus())
}

func callUnary(ctx context.Context, client testpb.TestServiceClient, way codes.Code) error {
	_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(way)}})
	return err
}

func callStream(ctx context.Context, client testpb.TestServiceClient, way codes.Code) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	// What may be wrong with it, Recv says.
	_ = stream.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(way)}})
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
