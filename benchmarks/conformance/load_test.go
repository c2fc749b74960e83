package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// workers is how many of the load's requests can be worked on at a time, and so about the limit that is right.
const workers = 4

// station is gRPC's test server, with few workers for the requests that take time.
type station struct {
	testpb.TestServiceServer
	free chan struct{}
}

func newStation() *station {
	return &station{interop.NewTestServer(), make(chan struct{}, workers)}
}

func (s *station) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	if r.GetResponseParameters()[0].GetIntervalUs() > 0 {
		select {
		case s.free <- struct{}{}:
			defer func() { <-s.free }()
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	return s.TestServiceServer.StreamingOutputCall(r, stream)
}

// StreamingInputCall takes a moment, as it does over any network. Without it the answer may overtake the client's own
// cancellation, with or without a protection.
func (s *station) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	time.Sleep(time.Millisecond)
	return s.TestServiceServer.StreamingInputCall(stream)
}

// load asks about one and a half times as much of a station as it can do, from callers of all criticalities and a few
// tenants, from before it returns until the test ends. They are so many that they still do while they wait: fewer would all
// be taken by a limit of three times the workers, and none refused.
func load(t *testing.T, s *server) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	client := testpb.NewTestServiceClient(s.dial(t)) // it never takes no for an answer
	var callers sync.WaitGroup
	var refused, answered atomic.Int64
	for i := range 16 * workers {
		dice := rand.New(rand.NewPCG(1, uint64(i)))
		callers.Go(func() {
			for ctx.Err() == nil {
				switch err := work(ctx, client, dice); {
				case err == nil:
					answered.Add(1)
				case interceptors.IsRefusal(err):
					refused.Add(1)
				case status.Code(err) == codes.DeadlineExceeded, ctx.Err() != nil:
				default:
					t.Errorf("load: %v", err)
				}
				time.Sleep(time.Duration(dice.Int64N(int64(90 * time.Millisecond))))
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		callers.Wait()
		if refused.Load() == 0 || answered.Load() == 0 {
			t.Errorf("load: %d refused and %d answered, want some of both", refused.Load(), answered.Load())
		}
	})
	time.Sleep(100 * time.Millisecond) // until the limiter knows the load
}

// work is one request of the load, which takes 5 ms of a worker.
func work(ctx context.Context, client testpb.TestServiceClient, dice *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(20+dice.IntN(100))*time.Millisecond)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-tenant", fmt.Sprint(dice.IntN(4)),
		interceptors.CriticalityHeader, limiter.Criticality(dice.IntN(5)).String())
	if dice.IntN(10) == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-batch", "yes")
	}
	stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
		ResponseParameters: []*testpb.ResponseParameters{{Size: 1, IntervalUs: 5000}},
	})
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
