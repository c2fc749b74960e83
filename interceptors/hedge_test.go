package interceptors

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// uneven is a server that answers in 10 ms, but for one request in slow, which takes half a second.
type uneven struct {
	testpb.TestServiceClient
	came, cancelled atomic.Int64
	slow            atomic.Int64
	fail            atomic.Value // func() error
	tell            atomic.Value // metadata.MD
}

func newUneven(t *testing.T, slow int64, opts ...ClientOption) *uneven {
	u := &uneven{}
	u.slow.Store(slow)
	conn, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		n := u.came.Add(1)
		name, takes := "quick", 10*time.Millisecond
		if n%u.slow.Load() == 0 {
			name, takes = "slow", 500*time.Millisecond
		}
		trailer := metadata.Pairs("name", name)
		if more, ok := u.tell.Load().(metadata.MD); ok {
			trailer = metadata.Join(trailer, more)
		}
		_ = grpc.SetHeader(ctx, metadata.Pairs("name", name))
		_ = grpc.SetTrailer(ctx, trailer)
		if fail, ok := u.fail.Load().(func() error); ok {
			return nil, fail()
		}
		select {
		case <-time.After(takes):
			return &testpb.SimpleResponse{Username: name}, nil
		case <-ctx.Done():
			u.cancelled.Add(1)
			return nil, ctx.Err()
		}
	}}, nil, newClient(t, append(opts, WithIdempotent(retried))...).DialOptions()...)
	u.TestServiceClient = testpb.NewTestServiceClient(conn)
	return u
}

// ask returns how many of the calls took half a second.
func (u *uneven) ask(t *testing.T, calls int) (late int) {
	t.Helper()
	for range calls {
		began := time.Now()
		var header, trailer metadata.MD
		var from peer.Peer
		finished := 0
		answer, err := u.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer),
			grpc.Peer(&from), grpc.OnFinish(func(error) { finished++ }))
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(began) >= 500*time.Millisecond {
			late++
		}
		if len(header["name"]) != 1 || header["name"][0] != answer.Username || len(trailer["name"]) != 1 ||
			trailer["name"][0] != answer.Username || from.Addr == nil || finished != 1 {
			t.Fatalf("the answer %q comes with %v, %v, %v, finished %d times", answer.Username, header, trailer, from.Addr, finished)
		}
	}
	return late
}

// Slow answers are not waited for, what was asked twice is answered once, and the other is cancelled.
func TestHedgingCutsTheTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUneven(t, 33, WithHedging())
		u.ask(t, 2*latencyKnown)
		before, cancelled := u.came.Load(), u.cancelled.Load()
		if late := u.ask(t, 1000); late > 1 {
			t.Errorf("%d of 1000 took half a second", late)
		}
		synctest.Wait()
		more := u.came.Load() - before - 1000
		if more < 25 || more > 1000*hedgeShare+10 || u.cancelled.Load()-cancelled != more {
			t.Errorf("%d calls more, %d cancelled; want about 30, and as many", more, u.cancelled.Load()-cancelled)
		}
	})
}

// However much is slow, the budget holds; and nothing is hedged where nobody asked for it, or under pressure.
func TestHedgesAreFew(t *testing.T) {
	for name, c := range map[string]struct {
		opts []ClientOption
		tell metadata.MD
		most int64
	}{
		"budget":   {opts: []ClientOption{WithHedging()}, most: 1000*hedgeShare + 10},
		"default":  {},
		"pressure": {opts: []ClientOption{WithHedging()}, tell: metadata.Pairs(LoadTrailer, "1;p=1")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUneven(t, 1000, c.opts...)
				u.ask(t, 2*latencyKnown)
				u.slow.Store(2)
				u.tell.Store(c.tell)
				u.ask(t, 2) // it says so
				before := u.came.Load()
				u.ask(t, 1000)
				if more := u.came.Load() - before - 1000; more > c.most || c.most > 0 && more < 10 {
					t.Errorf("%d calls more, want at most %d", more, c.most)
				}
			})
		})
	}
}

// While calls are refused none is sent twice, and an answer that is an error is an answer.
func TestWhatIsNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUneven(t, 1<<40, WithHedging())
		u.ask(t, 10*latencyKnown)
		u.fail.Store(func() error {
			time.Sleep(100 * time.Millisecond)
			return status.Error(codes.ResourceExhausted, "")
		})
		before := u.came.Load()
		_, err := u.UnaryCall(t.Context(), &testpb.SimpleRequest{}) // before it is known
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%v, want RESOURCE_EXHAUSTED", err)
		}
		_, _ = u.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if sent := u.came.Load() - before; sent > 3 {
			t.Errorf("2 calls were sent as %d, want one hedge at most", sent)
		}
		u.fail.Store(func() error { return status.Error(codes.NotFound, "") })
		time.Sleep(throttleMemory + 1)
		if _, err := u.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.NotFound {
			t.Errorf("%v, want NOT_FOUND", err)
		}
	})
}
