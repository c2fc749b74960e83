package interceptors

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func TestPreviousAttempts(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   int
	}{
		{nil, 0},
		{[]string{"1"}, 1},
		{[]string{"4"}, 4},
		{[]string{"0"}, 0},
		{[]string{"-1"}, 0},
		{[]string{"256"}, 0},
		{[]string{"99999999999999999999"}, 0},
		{[]string{"two"}, 0},
		{[]string{"1", "1"}, 0},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{previousAttemptsHeader: c.values})
		if got := PreviousAttempts(ctx); got != c.want {
			t.Errorf("%q: %d, want %d", c.values, got, c.want)
		}
	}
	if got := PreviousAttempts(t.Context()); got != 0 {
		t.Errorf("outside of gRPC: %d, want 0", got)
	}
}

// chain is three servers in a row, each with a client that retries. The last answers as leaf says.
type chain struct {
	testpb.TestServiceClient // to reach the first
	seen                     [3]atomic.Int64
	handle                   func(hop int, ask func() error) error // what the handlers of the first two make of it
}

func newChain(t *testing.T, leaf func() error, server func() []grpc.ServerOption) *chain {
	t.Helper()
	c := &chain{handle: func(_ int, ask func() error) error { return ask() }}
	for hop := 2; hop >= 0; hop-- {
		next := c.TestServiceClient
		work := func(ctx context.Context, ask func(context.Context, testpb.TestServiceClient) error) error {
			c.seen[hop].Add(1)
			if next == nil {
				return leaf()
			}
			return c.handle(hop, func() error { return ask(ctx, next) })
		}
		conn, _ := serve(t, &service{
			unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				return &testpb.SimpleResponse{}, work(ctx, askUnary)
			},
			duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
				return work(stream.Context(), func(ctx context.Context, c testpb.TestServiceClient) error { return askStream(ctx, c, 1) })
			},
		}, server(), DialOptions(WithoutBreaker(), WithIdempotent("/grpc.testing.TestService/*"))...)
		c.TestServiceClient = testpb.NewTestServiceClient(conn)
	}
	return c
}

func (c *chain) want(t *testing.T, name string, seen ...int64) {
	t.Helper()
	for hop, want := range seen {
		if got := c.seen[hop].Swap(0); got != want {
			t.Errorf("%s: %d attempts at hop %d, want %d", name, got, hop, want)
		}
	}
}

func leafDown() error { return errDown }

// Of a call that fails for good only the layer above the failure makes more than one attempt.
func TestOneLayerRetries(t *testing.T) {
	inBoth(t, func(t *testing.T, ask func(context.Context, testpb.TestServiceClient) error) {
		c := newChain(t, leafDown, func() []grpc.ServerOption { return protected(t) })
		if err := ask(t.Context(), c); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, want UNAVAILABLE", err)
		}
		c.want(t, "protected", 1, 1, 3)

		bare := newChain(t, leafDown, func() []grpc.ServerOption { return nil })
		_ = ask(t.Context(), bare)
		if got := bare.seen[2].Load(); got <= 3 {
			t.Errorf("%d attempts at the leaf of a bare chain, want more: else this test shows nothing", got)
		}
	})
}

// What a handler makes of its callee's failure decides whether its own caller may try again.
func TestWhatIsNotRetriedAbove(t *testing.T) {
	for name, c := range map[string]struct {
		leaf   error
		handle func(ask func() error) error // at the second hop
		first  int64
		second int64
		third  int64
		code   codes.Code
	}{
		"it is wrapped": {errDown, func(ask func() error) error {
			return fmt.Errorf("the leaf: %w", ask())
		}, 1, 1, 3, codes.Unavailable},
		"it is put in other words": {errDown, func(ask func() error) error {
			return status.Errorf(codes.Unavailable, "the leaf: %v", ask())
		}, 1, 1, 3, codes.Unavailable},
		"it is done without": {errDown, func(ask func() error) error {
			_ = ask()
			return nil
		}, 1, 1, 3, codes.OK},
		"it is an answer": {errDown, func(ask func() error) error {
			_ = ask()
			return status.Error(codes.NotFound, "nowhere")
		}, 1, 1, 3, codes.NotFound},
		"nothing was asked": {errDown, func(func() error) error {
			return errDown
		}, 1, 3, 0, codes.Unavailable},
		"what was asked was well": {nil, func(ask func() error) error {
			return errors.Join(ask(), errDown)
		}, 1, 3, 3, codes.Unavailable},
		"it is a refusal": {status.Error(codes.ResourceExhausted, "full"), func(ask func() error) error {
			_ = ask()
			return errDown
		}, 1, 1, 1, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chain := newChain(t, func() error { return c.leaf }, func() []grpc.ServerOption { return protected(t) })
				chain.handle = func(hop int, ask func() error) error {
					if hop == 1 {
						return c.handle(ask)
					}
					return ask()
				}
				if err := askUnary(t.Context(), chain); status.Code(err) != c.code {
					t.Errorf("%v, want %v", err, c.code)
				}
				chain.want(t, name, c.first, c.second, c.third)
			})
		})
	}
}

// A failure that lasts makes no more than a tenth of the calls more, however deep.
func TestAFailureThatLastsIsNotAmplified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, leafDown, func() []grpc.ServerOption { return protected(t) })
		const calls = 500
		for range calls {
			_ = askUnary(t.Context(), c)
		}
		for hop := range c.seen {
			if got := float64(c.seen[hop].Load()) / calls; got < 1 || got > 1.1 {
				t.Errorf("%.2f attempts a call at hop %d, want 1 to 1.1", got, hop)
			}
		}
	})
}

// What a client refuses to send was not tried, but is no better tried again.
func TestWhatIsNotSentIsNotRetriedAbove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := limiter.ContextWithLimiter(t.Context(), nil, limiter.Critical)
		noteFailure(ctx, errThrottled)
		if !limiter.FailureMet(ctx) {
			t.Error("a call that was not sent is no failure, want one")
		}
	})
}

// Whoever retries sees the trailer and the answer's code; the trailer goes out once.
func TestTheTrailerThatForbidsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaf := newFlaky(t, alwaysDown, DialOptions()...)
		middle, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			_ = askUnary(ctx, leaf)
			return nil, askUnary(ctx, leaf)
		}}, protected(t))
		var trailer metadata.MD
		_, err := testpb.NewTestServiceClient(middle).UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Trailer(&trailer))
		if got := trailer.Get(pushbackTrailer); status.Code(err) != codes.Unavailable || len(got) != 1 || got[0] != "-1" {
			t.Errorf("%v with the trailer %q, want UNAVAILABLE with -1, once", err, got)
		}
	})
}
