package interceptors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func TestBreakerOpensAndCloses(t *testing.T) {
	now := time.Now()
	var b breaker
	end := func(v verdict) {
		probe, ok := b.send(now)
		if !ok {
			t.Fatal("a call is stopped")
		}
		b.end(now, probe, v, new(tally))
	}
	for range breakerLeast - 1 {
		end(failed)
	}
	if open, _ := b.state(); open {
		t.Fatalf("open after %d failures, want %d", breakerLeast-1, breakerLeast)
	}
	end(failed)
	wait := breakerFirst
	for range 8 { // probes fail, and waits double
		if open, _ := b.state(); !open {
			t.Fatal("not open")
		}
		least := time.Duration(float64(wait) * (1 - breakerJitter))
		if _, ok := b.send(now.Add(least - 1)); ok {
			t.Errorf("a call is sent sooner than after %v", least)
		}
		now = now.Add(time.Duration(float64(wait)*(1+breakerJitter)) + 1)
		probe, ok := b.send(now)
		if !ok || !probe {
			t.Fatalf("%v, %v after %v, want a probe", probe, ok, wait)
		}
		if _, ok := b.send(now); ok {
			t.Error("two probes at once")
		}
		b.end(now, true, failed, new(tally))
		wait = min(2*wait, breakerMost)
	}
	now = now.Add(2 * breakerMost)
	end(unclear) // leaves room for the next
	for range breakerProbes {
		if open, _ := b.state(); !open {
			t.Error("closed too early")
		}
		end(alive)
	}
	if open, openings := b.state(); open || openings != 1 {
		t.Errorf("open %v, %d openings, want it closed after one", open, openings)
	}
	end(failed) // what was before is forgotten
	if open, _ := b.state(); open {
		t.Error("open again after one failure")
	}
}

// A probe that never ends is replaced.
func TestBreakerForgetsAProbe(t *testing.T) {
	now := time.Now()
	b := breaker{opened: 1}
	if probe, ok := b.send(now); !probe || !ok {
		t.Fatal("no probe")
	}
	if _, ok := b.send(now.Add(breakerMost - 1)); ok {
		t.Error("two probes at once")
	}
	if probe, ok := b.send(now.Add(breakerMost)); !probe || !ok {
		t.Error("a probe that is out for long is waited for")
	}
}

// A callee that is of some use is asked, much as it fails.
func TestBreakerSparesWhatIsOfUse(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	var b breaker
	for range 10_000 {
		now = now.Add(time.Millisecond)
		v := failed
		if rng.Float64() < .5 {
			v = alive
		}
		probe, ok := b.send(now)
		if !ok {
			t.Fatal("open, though half is answered")
		}
		b.end(now, probe, v, new(tally))
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		err    error
		enough bool
		want   verdict
	}{
		{nil, false, alive},
		{status.Error(codes.NotFound, ""), true, alive},
		{status.Error(codes.InvalidArgument, ""), true, alive},
		{status.Error(codes.ResourceExhausted, ""), true, alive},
		{errThrottled, true, alive},
		{status.Error(codes.Canceled, ""), true, unclear},
		{status.Error(codes.DeadlineExceeded, ""), true, failed},
		{status.Error(codes.DeadlineExceeded, ""), false, unclear},
		{status.Error(codes.Unavailable, ""), false, failed},
		{status.Error(codes.Internal, ""), false, failed},
		{status.Error(codes.Unknown, ""), false, failed},
		{fmt.Errorf("the callee: %w", status.Error(codes.Internal, "")), false, failed},
		{errBroken, true, unclear},
		{ErrDraining, true, unclear},
		{errors.New("an interceptor's own"), true, unclear},
	} {
		if got := verdictOn(c.err, c.enough); got != c.want {
			t.Errorf("%v (enough time: %v): %d, want %d", c.err, c.enough, got, c.want)
		}
	}
}

// While a method is broken few calls of it are sent, those of other methods all, and soon after it works again all.
func TestBrokenIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		came, down := 0, true
		conn, _ := serve(t, &service{
			unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				came++
				if down {
					return nil, status.Error(codes.Internal, "the disk is gone")
				}
				return &testpb.SimpleResponse{}, nil
			},
			output: func(*testpb.StreamingOutputCallRequest, testpb.TestService_StreamingOutputCallServer) error {
				return nil
			},
		}, nil, newClient(t).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		unsent := 0
		for range 6000 { // a minute
			_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
			if errors.Is(err, ErrNotSent) {
				unsent++
				if status.Code(err) != codes.Unavailable || errors.Is(err, limiter.ErrRefused) {
					t.Fatalf("%v, want UNAVAILABLE and no refusal", err)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		if came > breakerLeast+8 || came < breakerLeast+4 || came+unsent != 6000 {
			t.Errorf("%d came and %d were not sent of 6000 in a minute in which all fails, want %d and some probes", came, unsent, breakerLeast)
		}
		if _, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{}); err != nil {
			t.Errorf("another method: %v", err)
		}
		down = false
		time.Sleep(2 * breakerMost)
		for i := range 100 {
			if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatalf("call %d after it works again: %v", i, err)
			}
		}
	})
}

// A server that sheds nine of ten calls is well: no breaker opens, whoever refuses.
func TestSheddingOpensNoBreaker(t *testing.T) {
	for name, refusal := range map[string]error{
		"ours":     errThrottled,
		"foreign":  status.Error(codes.ResourceExhausted, "quota"),
		"draining": ErrDraining,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t)
				conn, _ := serve(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
					return nil, refusal
				}}, nil, c.DialOptions()...)
				client := testpb.NewTestServiceClient(conn)
				for range 1000 {
					_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
					if errors.Is(err, errBroken) {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// Callers with less time than the callee takes do not open it for the others.
func TestHurriedCallersOpenNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			select {
			case <-time.After(100 * time.Millisecond):
				return &testpb.SimpleResponse{}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}, nil, newClient(t).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); err == nil {
				t.Fatal("answered in too short a time")
			}
			cancel()
		}
		if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Errorf("a caller with time: %v", err)
		}
	})
}

func TestWithoutBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		came := 0
		c := newClient(t)
		conn, _ := serve(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			came++
			return nil, status.Error(codes.Internal, "")
		}}, nil, c.DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		ask := func() (sent int) {
			before := came
			for range 10 * breakerLeast {
				_, _ = client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
			}
			return came - before
		}
		if sent := ask(); sent != breakerLeast {
			t.Errorf("%d sent, want %d", sent, breakerLeast)
		}
		if err := c.SetOptions(WithoutBreaker()); err != nil || c.Settings().Breaker {
			t.Fatalf("%v, in force: %v", err, c.Settings().Breaker)
		}
		if sent := ask(); sent != 10*breakerLeast {
			t.Errorf("%d sent without a breaker, want all %d", sent, 10*breakerLeast)
		}
	})
}
