package lab

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/priority"
	"github.com/platinummonkey/go-concurrency-limits/core"
	gcllimit "github.com/platinummonkey/go-concurrency-limits/limit"
	gcl "github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// Contestant protects a station. Its defaults are its own: nobody is tuned.
type Contestant struct {
	Name   string
	Mutant bool // made to fail: a lab in which it does not is of no use
	// New is called inside the bubble. limit is nil where there is none to show. stop ends what New started.
	New func(s Scenario) (unary grpc.UnaryServerInterceptor, limit func() int, stop func())
}

// Contestants returns all of them, in the order of the table.
func Contestants() []Contestant {
	return []Contestant{
		{Name: "spillway", New: spillway()},
		{Name: "none", New: gate(func(context.Context) (func(bool), bool) { return func(bool) {}, true })},
		{Name: "oracle", New: oracle},
		{Name: "vegas", New: goConcurrencyLimits(false, func() core.Limit { return gcllimit.NewDefaultVegasLimit("lab", nil, nil) })},
		{Name: "gradient2", New: goConcurrencyLimits(false, func() core.Limit { return gcllimit.NewDefaultGradient2Limit("lab", nil, nil) })},
		{Name: "aimd", New: goConcurrencyLimits(false, func() core.Limit { return gcllimit.NewDefaultAIMDLimit("lab", nil) })},
		{Name: "vegas-lifo", New: goConcurrencyLimits(true, func() core.Limit { return gcllimit.NewDefaultVegasLimit("lab", nil, nil) })},
		{Name: "gradient2-lifo", New: goConcurrencyLimits(true, func() core.Limit { return gcllimit.NewDefaultGradient2Limit("lab", nil, nil) })},
		{Name: "aimd-lifo", New: goConcurrencyLimits(true, func() core.Limit { return gcllimit.NewDefaultAIMDLimit("lab", nil) })},
		{Name: "failsafe", New: failsafe},
		{Name: "failsafe-queue", New: failsafeQueue},
		{Name: "failsafe-priority", New: failsafePriority},
		{Name: "frozen", Mutant: true, New: spillway(limiter.WithFixedLimit(20))},
		{Name: "always-minimum", Mutant: true, New: spillway(limiter.WithFixedLimit(1))},
		{Name: "always-maximum", Mutant: true, New: spillway(limiter.WithFixedLimit(1_000_000))},
	}
}

// contestantNamed returns the contestant of a name. Besides those of the table there are, for any N, spillway@N, which is
// Spillway that starts from a limit of N, and told@N, which is Spillway with a limit of N that stays: what its line and its
// choice come to when there is nothing to find out.
func contestantNamed(name string) (Contestant, bool) {
	if kind, number, ok := strings.Cut(name, "@"); ok {
		limits := map[string]func(int) limiter.Option{"spillway": limiter.WithInitialLimit, "told": limiter.WithFixedLimit}
		n, err := strconv.Atoi(number)
		if limit := limits[kind]; limit != nil && err == nil && n >= 1 {
			return Contestant{Name: name, New: spillway(limit(n))}, true
		}
		return Contestant{}, false
	}
	for _, c := range Contestants() {
		if c.Name == name {
			return c, true
		}
	}
	return Contestant{}, false
}

type maker = func(Scenario) (grpc.UnaryServerInterceptor, func() int, func())

// criticalityKey carries the tier of a request from the load to whoever asks.
type criticalityKey struct{}

func criticalityOf(ctx context.Context) limiter.Criticality {
	c, _ := ctx.Value(criticalityKey{}).(limiter.Criticality)
	return c
}

// tenantKey does the same for the tenant.
type tenantKey struct{}

func tenantOf(ctx context.Context) limiter.Tenant {
	t, _ := ctx.Value(tenantKey{}).(limiter.Tenant)
	return t
}

// spillway is the interceptor as its users have it, but for where the criticality comes from and that nothing is
// exported.
func spillway(opts ...limiter.Option) maker {
	return func(scenario Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
		all := []interceptors.Option{
			interceptors.WithLimiterOptions(opts...),
			interceptors.WithMeterProvider(noop.NewMeterProvider()),
			interceptors.WithCriticality(func(ctx context.Context, _ string) limiter.Criticality { return criticalityOf(ctx) }),
			interceptors.WithTenant(func(ctx context.Context, _ string) limiter.Tenant { return tenantOf(ctx) }),
		}
		for _, m := range scenario.Methods {
			if m.Guaranteed > 0 {
				all = append(all, interceptors.WithBulkhead(m.Name, m.Guaranteed, m))
			}
		}
		s, err := interceptors.NewServer(all...)
		if err != nil {
			panic(err)
		}
		return s.UnaryInterceptor(), func() int { return s.Limiter().Stats().Limit }, func() { _ = s.Close() }
	}
}

// gate makes an interceptor of a function that admits or not, and is told at the end whether all was well.
func gate(admit func(context.Context) (done func(ok bool), admitted bool)) maker {
	return func(Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
		return gated(admit), nil, func() {}
	}
}

var errRefused = status.Error(codes.ResourceExhausted, "refused")

func gated(admit func(context.Context) (func(bool), bool)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		done, ok := admit(ctx)
		if !ok {
			return nil, errRefused
		}
		resp, err := handler(ctx, req)
		done(err == nil && ctx.Err() == nil)
		return resp, err
	}
}

// oracle is a constant limit, the right one for the scenario, without a line.
func oracle(s Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
	slots := make(chan struct{}, s.Knee)
	return gated(func(context.Context) (func(bool), bool) {
		select {
		case slots <- struct{}{}:
			return func(bool) { <-slots }, true
		default:
			return nil, false
		}
	}), func() int { return s.Knee }, func() {}
}

func goConcurrencyLimits(lifo bool, limit func() core.Limit) maker {
	return func(Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
		bare, err := gcl.NewDefaultLimiter(limit(), 1e9, 1e9, 1e5, 100, strategy.NewSimpleStrategy(10),
			gcllimit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
		if err != nil {
			panic(err)
		}
		var lim core.Limiter = bare
		if lifo {
			lim = gcl.NewLifoBlockingLimiterWithDefaults(bare)
		}
		return gated(func(ctx context.Context) (func(bool), bool) {
			listener, ok := lim.Acquire(ctx)
			if !ok {
				return nil, false
			}
			return func(ok bool) {
				if ok {
					listener.OnSuccess()
				} else {
					listener.OnDropped()
				}
			}, true
		}), bare.EstimatedLimit, func() {}
	}
}

func failsafePermits(acquire func(context.Context) (adaptivelimiter.Permit, error)) grpc.UnaryServerInterceptor {
	return gated(func(ctx context.Context) (func(bool), bool) {
		permit, err := acquire(ctx)
		if err != nil {
			return nil, false
		}
		return func(ok bool) {
			if ok {
				permit.Record()
			} else {
				permit.Drop()
			}
		}, true
	})
}

func failsafe(Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
	lim := adaptivelimiter.NewWithDefaults[any]()
	return failsafePermits(func(context.Context) (adaptivelimiter.Permit, error) {
		permit, ok := lim.TryAcquirePermit() // as its policy does, which has no line
		if !ok {
			return nil, errRefused
		}
		return permit, nil
	}), lim.Limit, func() {}
}

func failsafeQueue(Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
	lim := adaptivelimiter.NewBuilder[any]().WithQueueing(2, 3).Build()
	return failsafePermits(lim.AcquirePermit), lim.Limit, func() {}
}

func failsafePriority(Scenario) (grpc.UnaryServerInterceptor, func() int, func()) {
	prioritizer := adaptivelimiter.NewPrioritizer()
	lim := adaptivelimiter.NewBuilder[any]().BuildPrioritized(prioritizer)
	tick, stop := time.NewTicker(time.Second), make(chan struct{})
	go func() { // as its documentation has it
		for {
			select {
			case <-tick.C:
				prioritizer.Calibrate()
			case <-stop:
				return
			}
		}
	}()
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(1, 0))
	return failsafePermits(func(ctx context.Context) (adaptivelimiter.Permit, error) {
		level := 0 // its default where nothing is said
		if c := criticalityOf(ctx); c != limiter.Unspecified {
			// Its lowest priority, VeryLow, stays free. It spreads a priority over a hundred levels by dice without a
			// seed, which nobody could throw again, so here are some with one.
			p := priority.Priority(c)
			mu.Lock()
			level = p.MinLevel() + dice.IntN(p.MaxLevel()-p.MinLevel()+1)
			mu.Unlock()
		}
		return lim.AcquirePermitWithLevel(ctx, level)
	}), lim.Limit, func() { tick.Stop(); close(stop) }
}
