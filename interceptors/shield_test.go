package interceptors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func limitedTo(t *testing.T, opts ...limiter.Option) (*limiter.Limiter, ClientOption) {
	t.Helper()
	l, err := limiter.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l, WithCalleeLimit(func(string) *limiter.Limiter { return l })
}

// Of a callee that hangs, no more than the limit is waited for; the others hear no, or give up with their deadlines.
func TestCalleeLimitHoldsBackCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, bounded := limitedTo(t, limiter.WithFixedLimit(5))
		var came, most atomic.Int64
		conn, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			most.Store(max(most.Load(), came.Add(1)))
			defer came.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}, nil, newClient(t, bounded).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var seen sync.Map
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
				n, _ := seen.LoadOrStore(fmt.Sprintf("%v not sent: %v", status.Code(err), errors.Is(err, ErrNotSent)), new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			})
		}
		callers.Wait()
		if most.Load() != 5 {
			t.Errorf("%d in flight at once, want 5", most.Load())
		}
		count := func(key string) int64 {
			n, ok := seen.Load(key)
			if !ok {
				return 0
			}
			return n.(*atomic.Int64).Load()
		}
		sent := count("DeadlineExceeded not sent: false")
		unsent := count("DeadlineExceeded not sent: true") + count("ResourceExhausted not sent: true")
		if sent < 5 || sent > 10 || sent+unsent != 100 { // some permits come back in the last instant
			t.Errorf("%d sent, %d not; want 5 and 95", sent, unsent)
		}
		if n := l.Stats().InFlight; n != 0 {
			t.Errorf("%d still in flight", n)
		}
	})
}

// A callee that has room for all is sent all, also when it becomes ten times slower.
func TestCalleeLimitSparesAHealthyCallee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, bounded := limitedTo(t)
		var takes atomic.Int64
		takes.Store(int64(20 * time.Millisecond))
		client := newAnswering(t, func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			time.Sleep(time.Duration(takes.Load()))
			return &testpb.SimpleResponse{}, nil
		}, bounded)
		rng := rand.New(rand.NewPCG(1, 2))
		var unsent, failed atomic.Int64
		var callers sync.WaitGroup
		for i := range 4000 { // 16 s
			if i == 2000 {
				takes.Store(int64(200 * time.Millisecond))
			}
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(4*time.Millisecond)))
			callers.Go(func() {
				switch _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); {
				case errors.Is(err, ErrNotSent):
					unsent.Add(1)
				case err != nil:
					failed.Add(1)
				}
			})
		}
		callers.Wait()
		if unsent.Load() != 0 || failed.Load() != 0 {
			t.Errorf("%d of 4000 not sent, %d failed", unsent.Load(), failed.Load())
		}
	})
}

// What never returned its permit by itself does so when it panics.
func TestCalleeLimitSurvivesAPanic(t *testing.T) {
	l, bounded := limitedTo(t, limiter.WithFixedLimit(1))
	c := newClient(t, bounded)
	for range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_ = c.UnaryInterceptor()(t.Context(), "/a.B/C", nil, nil, nil,
				func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { panic("codec") })
		}()
	}
	if n := l.Stats().InFlight; n != 0 {
		t.Errorf("%d in flight after a panic", n)
	}
}

func TestCalleeLimitsAreBounded(t *testing.T) {
	asked := 0
	c := newClient(t, WithCalleeLimit(func(string) *limiter.Limiter { asked++; return nil }))
	for i := range 3 * maxShields {
		c.shields.of(fmt.Sprint(i))
		c.shields.of(fmt.Sprint(i))
	}
	if asked != maxShields {
		t.Errorf("asked %d times, want %d", asked, maxShields)
	}
	if _, err := NewClient(WithCalleeLimit(nil)); err == nil || !strings.Contains(err.Error(), "WithCalleeLimit(nil)") {
		t.Errorf("%v, want an error that names the option", err)
	}
	if status.Code(errWaited) != codes.DeadlineExceeded || status.Code(errLeft) != codes.Canceled {
		t.Error("the end of a context is not told by its code")
	}
}
