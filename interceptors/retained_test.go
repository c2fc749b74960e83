package interceptors

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// within returns a context whose deadline is that far away.
func within(t *testing.T, left time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), left)
	t.Cleanup(cancel)
	return ctx
}

func TestRetainedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRetained()
		ask := func(n int, left time.Duration) (passed int) {
			ctx := within(t, left)
			for range n {
				if r.add(ctx, time.Now()) {
					passed++
				}
			}
			return passed
		}
		if got := ask(10, 24*time.Hour); got != 0 {
			t.Errorf("%d of 10 with a day left had room, want none", got)
		}
		if got := ask(10, -time.Second); got != 10 {
			t.Errorf("%d of 10 whose deadline has passed had room, want all", got)
		}
		time.Sleep(2 * time.Second)
		if r.add(within(t, 0), time.Now()); r.count != 1 {
			t.Errorf("%d are counted when all others' deadlines have passed, want 1", r.count)
		}
		time.Sleep(2 * time.Second)
		if got := ask(maxRetained/2, 30*time.Second) + ask(maxRetained, 5*time.Second); got != maxRetained {
			t.Errorf("%d had room, want %d", got, maxRetained)
		}
		if !r.add(t.Context(), time.Now()) {
			t.Error("no room for one without a deadline, of which nothing is kept")
		}
		time.Sleep(7 * time.Second)
		if got := ask(maxRetained, time.Second); got != maxRetained/2 {
			t.Errorf("%d had room after half of the deadlines, want %d", got, maxRetained/2)
		}
		time.Sleep(time.Hour)
		if got := ask(1, time.Minute); got != 1 || r.count != 1 {
			t.Errorf("%d had room after an hour and %d are counted, want 1 and 1", got, r.count)
		}
	})
}

// Refusals leave nothing behind, whatever deadline the caller asks for: the ones that would are left to the interceptor.
func TestRefusalsRetainNothing(t *testing.T) {
	for _, left := range []time.Duration{0, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			past := 0
			p := connect(t, &service{}, limit(1), reached(&past))
			defer fill(t, p.server.Limiter())()
			ask := func(n int) {
				for range n {
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if left > 0 {
						ctx, cancel = context.WithTimeout(ctx, left)
					}
					if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); status.Code(err) != codes.ResourceExhausted {
						t.Fatalf("a call to a full server: %v, want ResourceExhausted", err)
					}
					cancel()
				}
			}
			ask(200)
			before := heapInUse()
			const refusals = 2000
			ask(refusals)
			if grown := int64(heapInUse()) - int64(before); grown > 200*refusals {
				t.Errorf("%d bytes for each refusal with %v left are still in use, want none", grown/refusals, left)
			}
			if tapped := past == 0; tapped != (left == 0) {
				t.Errorf("%d refusals with %v left were left to the interceptor", past, left)
			}
		})
	}
}
