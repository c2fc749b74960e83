package conformance

import (
	"context"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// relay calls the next server for whatever it is asked, and notes how critical it was.
type relay struct {
	testpb.UnimplementedTestServiceServer
	next testpb.TestServiceClient // nil: it is the last
	seen []limiter.Criticality
}

func (r *relay) UnaryCall(ctx context.Context, request *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	r.seen = append(r.seen, limiter.CriticalityFromContext(ctx))
	if r.next == nil {
		return &testpb.SimpleResponse{}, nil
	}
	return r.next.UnaryCall(ctx, request)
}

func (r *relay) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	r.seen = append(r.seen, limiter.CriticalityFromContext(stream.Context()))
	if r.next == nil {
		return nil
	}
	next, err := r.next.FullDuplexCall(stream.Context())
	if err != nil {
		return err
	}
	if err := next.CloseSend(); err != nil {
		return err
	}
	for err == nil {
		_, err = next.Recv()
	}
	return nil
}

// Criticality gets through a process that knows nothing of Spillway, as a member of the baggage that OpenTelemetry's own
// instrumentation carries on; for calls and for streams, and whether or not the process before has that instrumentation.
func TestCriticalityThroughAStranger(t *testing.T) {
	tracing := otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	serverTracing := grpc.StatsHandler(otelgrpc.NewServerHandler(tracing))
	clientTracing := grpc.WithStatsHandler(otelgrpc.NewClientHandler(tracing))
	for name, dial := range map[string][]grpc.DialOption{
		"without tracing": interceptors.DialOptions(interceptors.WithCriticalityBaggage()),
		"with tracing":    append(interceptors.DialOptions(interceptors.WithCriticalityBaggage()), clientTracing),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				last := new(relay)
				protected := serve(t, last, append(protect(t, interceptors.WithCriticalityBaggage()).ServerOptions(), serverTracing)...)
				stranger := &relay{next: testpb.NewTestServiceClient(protected.dial(t, clientTracing))}
				first := testpb.NewTestServiceClient(serve(t, stranger, serverTracing).dial(t, dial...))

				ctx := limiter.ContextWithCriticality(t.Context(), limiter.SheddablePlus)
				if _, err := first.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
					t.Fatal(err)
				}
				stream, err := first.FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err == nil {
					t.Fatal("an answer, want the end of the stream")
				}
				for i, got := range stranger.seen {
					if got != limiter.Unspecified {
						t.Errorf("the stranger's request %d is %v: it knows something of Spillway", i, got)
					}
				}
				if len(last.seen) != 2 {
					t.Fatalf("%d requests came, want 2", len(last.seen))
				}
				for i, got := range last.seen {
					if got != limiter.SheddablePlus {
						t.Errorf("request %d came as %v, want %v", i, got, limiter.SheddablePlus)
					}
				}
			})
		})
	}
}
