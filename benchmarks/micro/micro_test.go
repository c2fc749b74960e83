package micro

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/platinummonkey/go-concurrency-limits/limit"
	gcl "github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"
	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
	"github.com/spillway-go/spillway/littles"
)

// contestant makes, for a benchmark, the function that is measured.
type contestant struct {
	name  string
	admit func(b *testing.B) func() // one admission and its release, with room for all
	no    func(b *testing.B) func() // one refusal; nil where there is no such thing
}

var contestants = []contestant{
	{"floor", floor, nil},
	{"spillway", spillwayAdmit, spillwayRefuse},
	{"spillway-interceptor", interceptorAdmit, nil},
	{"go-concurrency-limits", gclAdmit(1000), gclRefuse},
	{"failsafe-go", failsafeAdmit, failsafeRefuse},
}

// The same numbers of goroutines for all: alone, one a processor, and many more than processors.
var goroutines = []int{1, 2, 128}

func BenchmarkAdmit(b *testing.B) {
	for _, n := range goroutines {
		for _, c := range contestants {
			b.Run(fmt.Sprintf("goroutines=%d/%s", n, c.name), func(b *testing.B) { spread(b, n, c.admit(b)) })
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	for _, n := range goroutines {
		for _, c := range contestants {
			if c.no == nil {
				if c.name == "floor" {
					b.Run(fmt.Sprintf("goroutines=%d/%s", n, c.name), func(b *testing.B) { spread(b, n, c.admit(b)) })
				}
				continue
			}
			b.Run(fmt.Sprintf("goroutines=%d/%s", n, c.name), func(b *testing.B) { spread(b, n, c.no(b)) })
		}
	}
}

// spread runs f b.N times in all, on n goroutines.
func spread(b *testing.B, n int, f func()) {
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for range b.N/n + 1 {
				f()
			}
		})
	}
	all.Wait()
}

// floor is the least that an admission and its release can do: count itself with one compare-and-swap, and read
// the clock before and after.
func floor(*testing.B) func() {
	epoch := time.Now()
	var inFlight atomic.Int64
	return func() {
		start := time.Since(epoch)
		for {
			n := inFlight.Load()
			if inFlight.CompareAndSwap(n, n+1) {
				break
			}
		}
		if time.Since(epoch) < start {
			panic("the clock went backwards")
		}
	}
}

// deadline is a context as a request has it: with a deadline far away.
func deadline(b *testing.B) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	b.Cleanup(cancel)
	return ctx
}

func newLimiter(b *testing.B, opts ...limiter.Option) *limiter.Limiter {
	lim, err := limiter.New(opts...)
	if err != nil {
		b.Fatal(err)
	}
	return lim
}

func spillwayAdmit(b *testing.B) func() {
	lim, ctx := newLimiter(b, limiter.WithInitialLimit(1000)), deadline(b)
	return func() {
		permit, err := lim.Acquire(ctx)
		if err != nil {
			b.Error(err)
			return
		}
		permit.Release(limiter.OK)
	}
}

func spillwayRefuse(b *testing.B) func() {
	lim, ctx := newLimiter(b, limiter.WithFixedLimit(1)), deadline(b)
	full, end := context.WithCancel(ctx)
	held, err := lim.Acquire(full)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { end(); held.Release(limiter.OK) })
	for lim.Preview(ctx, limiter.Request{}) == nil { // until the line is full
		go func() { _, _ = lim.Acquire(full) }()
	}
	return func() {
		if _, err := lim.Acquire(ctx); err == nil {
			b.Error("a full limiter gave a permit")
		}
	}
}

func interceptorAdmit(b *testing.B) func() {
	s, err := interceptors.NewServer(interceptors.WithLimiterOptions(limiter.WithInitialLimit(1000)))
	if err != nil {
		b.Fatal(err)
	}
	ctx, unary, info := deadline(b), s.UnaryInterceptor(), &grpc.UnaryServerInfo{FullMethod: "/bench.Service/Call"}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	return func() {
		if _, err := unary(ctx, nil, info, handler); err != nil {
			b.Error(err)
		}
	}
}

func newGCL(b *testing.B, n int) core.Limiter {
	lim, err := gcl.NewDefaultLimiter(limit.NewFixedLimit("bench", n, nil), 1e9, 1e9, 1e5, 100,
		strategy.NewSimpleStrategy(n), limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
	if err != nil {
		b.Fatal(err)
	}
	return lim
}

func gclAdmit(n int) func(b *testing.B) func() {
	return func(b *testing.B) func() {
		lim, ctx := newGCL(b, n), deadline(b)
		return func() {
			listener, ok := lim.Acquire(ctx)
			if !ok {
				b.Error("refused")
				return
			}
			listener.OnSuccess()
		}
	}
}

func gclRefuse(b *testing.B) func() {
	lim, ctx := newGCL(b, 1), deadline(b)
	if _, ok := lim.Acquire(ctx); !ok {
		b.Fatal("refused")
	}
	return func() {
		if _, ok := lim.Acquire(ctx); ok {
			b.Error("a full limiter gave a permit")
		}
	}
}

func failsafeAdmit(b *testing.B) func() {
	lim, ctx := adaptivelimiter.NewBuilder[any]().WithLimits(1000, 1000, 1000).Build(), deadline(b)
	return func() {
		permit, err := lim.AcquirePermit(ctx)
		if err != nil {
			b.Error(err)
			return
		}
		permit.Record()
	}
}

func failsafeRefuse(b *testing.B) func() {
	lim := adaptivelimiter.NewBuilder[any]().WithLimits(1, 1, 1).Build()
	if _, ok := lim.TryAcquirePermit(); !ok {
		b.Fatal("refused")
	}
	return func() {
		if _, ok := lim.TryAcquirePermit(); ok {
			b.Error("a full limiter gave a permit")
		}
	}
}

// BenchmarkLoop is one turn of the control loop: it runs once a window, at most a thousand times a second.
func BenchmarkLoop(b *testing.B) {
	var law feedback.Elasticity
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		next := now + time.Millisecond
		law.Update(feedback.Sample{
			Window: littles.Window{Start: now, End: next, Area: 0.02, Arrivals: 50, Completions: 50, Good: 50, Sum: 0.02},
			Limit:  20, Peak: 20, Offered: 150, Refused: 100,
		})
		now = next
	}
}
