package interceptors

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// Twenty times as many Watches as the limit that a server begins with, each of which sends something now and then, leave all
// the others their answers, after the first second of each twenty. When their callers have gone nothing is left of them.
func TestWatchesTakeNoServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &service{
			output: func(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
				for {
					select {
					case <-stream.Context().Done():
						return stream.Context().Err()
					case <-time.After(3 * time.Second):
						if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
							return err
						}
					}
				}
			},
			unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				time.Sleep(10 * time.Millisecond)
				return &testpb.SimpleResponse{}, nil
			},
		}, nil)
		const watches = 400
		ctx, leave := context.WithCancel(t.Context())
		for range watches {
			go func() {
				for ctx.Err() == nil { // one that is refused comes again
					stream, err := p.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
					for err == nil {
						_, err = stream.Recv()
					}
					time.Sleep(time.Second)
				}
			}()
		}
		time.Sleep(time.Minute)
		stats := p.server.Limiter().Stats()
		if stats.Parked != watches {
			t.Errorf("%d parked after a minute, want all %d", stats.Parked, watches)
		}
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				t.Errorf("a call beside the Watches: %v", err)
			}
			cancel()
		}
		leave()
		time.Sleep(2 * time.Second)
		if stats := p.server.Limiter().Stats(); stats.Parked != 0 || stats.InFlight != 0 {
			t.Errorf("%d parked and %d in flight after all have gone, want none", stats.Parked, stats.InFlight)
		}
	})
}
