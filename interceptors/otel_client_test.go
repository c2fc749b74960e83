package interceptors

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func (r *recorder) observe(t *testing.T) observer {
	t.Helper()
	seen := observer{seen: map[string]int64{}, levels: map[string]float64{}}
	if err := r.meter.callback(t.Context(), &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

// What becomes of calls is told by method, target and reason.
func TestClientMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := &recorder{}
		c := newClient(t, WithMeterProvider(provider),
			WithFallback("/grpc.testing.TestService/UnaryCall", func(_ context.Context, _ string, _, _ any, cause error) error {
				if errors.Is(cause, errTooLate) {
					return nil
				}
				return cause
			}))
		var answer error
		conn, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(LoadTrailer, "2;p=1"))
			if answer == nil {
				time.Sleep(10 * time.Millisecond)
			}
			return &testpb.SimpleResponse{}, answer
		}}, nil, c.DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		ask := func(ctx context.Context, times int) {
			for range times {
				_, _ = client.UnaryCall(ctx, &testpb.SimpleRequest{})
			}
		}
		if seen := provider.observe(t); len(seen.seen)+len(seen.levels) != 0 {
			t.Errorf("%v before the first call", seen)
		}
		ask(t.Context(), 20)
		short, cancel := context.WithTimeout(t.Context(), 9*time.Millisecond)
		ask(short, 1)
		cancel()
		answer = errThrottled
		ask(t.Context(), 30)
		all := " rpc.method=grpc.testing.TestService/UnaryCall rpc.system.name=grpc"
		target := " spillway.target=passthrough:///bufconn"
		levels := provider.observe(t).levels
		if share := levels["spillway.client.share"+all+" spillway.criticality=CRITICAL"+target]; !(share > 0 && share < 1) || len(levels) != 1 {
			t.Errorf("share %v of %v, want one between 0 and 1", share, levels)
		}
		answer = status.Error(codes.Internal, "")
		ask(t.Context(), 1000)
		seen := provider.observe(t)
		var sum int64
		for name, want := range map[string]int64{
			"spillway.client.sent" + all + target:                                       -1,
			"spillway.client.not_sent" + all + " spillway.reason=throttled" + target:    -1,
			"spillway.client.not_sent" + all + " spillway.reason=too_late" + target:     1,
			"spillway.client.not_sent" + all + " spillway.reason=broken" + target:       -1,
			"spillway.client.fallbacks" + all + target:                                  1,
			"spillway.client.breaker.openings" + all + target:                           1,
			"spillway.client.breaker.open" + all + target:                               1,
			"spillway.client.load.ignored rpc.system.name=grpc spillway.reason=unknown": -1,
		} {
			got := seen.seen[name]
			if want > 0 && got != want || got <= 0 {
				t.Errorf("%s: %d, want %d", name, got, want)
			}
			if strings.Contains(name, "sent") {
				sum += got
			}
		}
		if sum != 1051 {
			t.Errorf("%d calls sent or not, want all 1051: %v", sum, seen.seen)
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil || !provider.meter.closed {
			t.Errorf("Close: %v, closed: %v", err, provider.meter.closed)
		}
	})
}

// Breakers are told as the sum of those of all backends, and shares as the mean. What opened stays counted when a backend
// is gone.
func TestClientMetricsOfBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := &recorder{}
		servers := newTen(t, turnByTurn, WithMeterProvider(provider))
		refuses, fails := refusing, down
		servers.does[0].Store(&refuses)
		servers.does[1].Store(&fails)
		servers.does[2].Store(&fails)
		servers.ask(t, 3000, time.Second)
		all := " rpc.method=grpc.testing.TestService/UnaryCall rpc.system.name=grpc"
		target := " spillway.target=fleet:///all"
		check := func(when string, least, most float64, open int64) {
			t.Helper()
			seen := provider.observe(t)
			if got := seen.levels["spillway.client.share"+all+" spillway.criticality=CRITICAL"+target]; got < least || got > most {
				t.Errorf("%s: share %v, want %v to %v", when, got, least, most)
			}
			if got := seen.seen["spillway.client.breaker.open"+all+target]; got != open {
				t.Errorf("%s: %d open, want %d", when, got, open)
			}
			if got := seen.seen["spillway.client.breaker.openings"+all+target]; got != 2 {
				t.Errorf("%s: %d openings, want 2", when, got)
			}
		}
		// Most calls pass over the one that refuses, so that its own share falls by the few that it refused.
		check("one of ten refuses, and two are down", (9+leastShare)/10, .98, 2)
		_ = servers.used.Close()
		synctest.Wait()
		check("there is none any more", 0, 0, 0)
	})
}

// The names that are told apart are bounded.
func TestClientMetricsAreBounded(t *testing.T) {
	provider := &recorder{}
	c := newClient(t, WithMeterProvider(provider))
	for i := range 2 * maxCallees {
		c.callees.of("a", fmt.Sprintf("/a.B/%d", i)).sent.Add(1)
	}
	seen := provider.observe(t)
	if len(seen.seen) != maxCallees+1 {
		t.Errorf("%d time series, want %d", len(seen.seen), maxCallees+1)
	}
	if got := seen.seen["spillway.client.sent rpc.method=_OTHER rpc.system.name=grpc spillway.target=_OTHER"]; got != maxCallees {
		t.Errorf("%d of others, want %d", got, maxCallees)
	}
}

// A client that nobody has any more reports nothing, and is forgotten.
func TestForgottenClientsReportNothing(t *testing.T) {
	ended := make(chan struct{})
	func() {
		runtime.AddCleanup(newClient(t, WithMeterProvider(&recorder{})), func(int) { close(ended) }, 0)
	}()
	for range 100 {
		runtime.GC()
		select {
		case <-ended:
			return
		default:
			runtime.Gosched()
		}
	}
	t.Error("a client that nobody has is still there")
}

func TestClientMeterProviderErrors(t *testing.T) {
	if _, err := NewClient(WithMeterProvider(nil)); err == nil || !strings.Contains(err.Error(), "WithMeterProvider(nil)") {
		t.Errorf("%v, want an error that names the option", err)
	}
	failing := &recorder{}
	failing.meter.failing = true
	if _, err := NewClient(WithMeterProvider(failing)); err == nil || !strings.Contains(err.Error(), "rejects the metrics") {
		t.Errorf("%v, want an error that says what was rejected", err)
	}
	if err := newClient(t).SetOptions(WithMeterProvider(&recorder{})); err == nil || !strings.Contains(err.Error(), "WithMeterProvider cannot be changed") {
		t.Errorf("%v, want an error that says it cannot be changed", err)
	}
}
