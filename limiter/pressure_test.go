package limiter_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

const (
	pressureWorkers = 8
	pressureWork    = 10 * time.Millisecond

	// By the line's own rule the load is remembered for twice the half of the deadline less 2.5 times the work.
	pressureDeadline = 500 * time.Millisecond
	pressureMemory   = 475 * time.Millisecond
)

// pressed is a service of 8 workers with exponential times around 10 ms, behind a limiter.
type pressed struct {
	*limiter.Limiter
	rng     *rand.Rand
	workers chan struct{}
	refused atomic.Int64
}

func newPressed(t *testing.T, seed uint64, opts ...limiter.Option) *pressed {
	t.Helper()
	l, err := limiter.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return &pressed{Limiter: l, rng: rand.New(rand.NewPCG(seed, 5)), workers: make(chan struct{}, pressureWorkers)}
}

// load asks at random, for a time, for so many times what the workers can do, each request of the next of the
// criticalities, and calls each before every request, when nothing else runs.
func (p *pressed) load(
	ctx context.Context, factor float64, during time.Duration, each func(), of ...limiter.Criticality,
) {
	if len(of) == 0 {
		of = []limiter.Criticality{limiter.Critical}
	}
	start := time.Now()
	for i := 0; time.Since(start) < during; i++ {
		time.Sleep(time.Duration(p.rng.ExpFloat64() / factor * float64(pressureWork) / pressureWorkers))
		synctest.Wait()
		each()
		go p.ask(limiter.ContextWithCriticality(ctx, of[i%len(of)]), time.Duration(p.rng.ExpFloat64()*float64(pressureWork)))
	}
	synctest.Wait()
}

func (p *pressed) ask(ctx context.Context, work time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, pressureDeadline)
	defer cancel()
	permit, err := p.Acquire(ctx)
	if err != nil {
		p.refused.Add(1)
		return
	}
	p.workers <- struct{}{}
	time.Sleep(work)
	<-p.workers
	permit.Release(limiter.OK)
}

func (p *pressed) wantEmpty(t *testing.T) {
	t.Helper()
	time.Sleep(pressureDeadline + time.Second)
	synctest.Wait()
	if s := p.Stats(); s.InFlight != 0 || s.Line != 0 {
		t.Errorf("%d in flight and %d in line at the end, want none", s.InFlight, s.Line)
	}
}

func TestNoPressureWhileAllFits(t *testing.T) {
	for _, opts := range [][]limiter.Option{nil, {limiter.WithFixedLimit(pressureWorkers)}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPressed(t, 1, opts...)
			seen, under := 0, 0
			p.load(t.Context(), .5, 20*time.Second, func() {
				seen++
				pressure := p.Pressure(limiter.Sheddable)
				if pressure > 0 {
					under++
				}
				if pressure > .5 {
					t.Errorf("pressure %.2f at half of what can be served", pressure)
				}
			})
			if 100*under > seen {
				t.Errorf("under pressure in %d of %d moments at half of what can be served, want 1%% at most", under, seen)
			}
			p.wantEmpty(t)
		})
	}
}

// The pressure rises with the load, from about .8 of what can be served to 1.
func TestPressureRisesWithTheLoad(t *testing.T) {
	for _, c := range []struct{ factor, least, most float64 }{{.6, 0, .02}, {.75, .01, .3}, {.9, .4, .9}, {1.1, .97, 1}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPressed(t, 1, limiter.WithFixedLimit(pressureWorkers))
			p.load(t.Context(), c.factor, 2*time.Second, func() {})
			n, sum := 0, 0.0
			p.load(t.Context(), c.factor, 20*time.Second, func() {
				n++
				sum += p.Pressure(limiter.Critical)
			})
			if mean := sum / float64(n); mean < c.least || mean > c.most {
				t.Errorf("%vx: mean pressure %.3f, want %v to %v", c.factor, mean, c.least, c.most)
			}
			p.wantEmpty(t)
		})
	}
}

// At twice what can be served a handler hears of it in less than half of the time until somebody is refused, and for
// as long as it lasts.
func TestPressureComesBeforeTheFirstRefusal(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			p := newPressed(t, seed, limiter.WithFixedLimit(pressureWorkers))
			p.load(t.Context(), .5, 5*time.Second, func() {})
			start, low := time.Now(), 0
			var half, refused time.Duration
			p.load(t.Context(), 2, 5*time.Second, func() {
				high := p.Pressure(limiter.Critical) > .5
				if high && half == 0 {
					half = time.Since(start)
				}
				if !high && half > 0 {
					low++
				}
				if refused == 0 && p.refused.Load() > 0 {
					refused = time.Since(start)
				}
			})
			if half == 0 || refused == 0 || half > refused/2 {
				t.Errorf("seed %d: a pressure of .5 after %v, a refusal after %v; want it in half that time", seed, half, refused)
			}
			if low > 0 {
				t.Errorf("seed %d: below .5 again at %d arrivals", seed, low)
			}
			if got := p.Pressure(limiter.Critical); got != 1 {
				t.Errorf("seed %d: pressure %v after 5s, want 1", seed, got)
			}
			p.wantEmpty(t)
		})
	}
}

// At the edge a handler that answers with less above .5 does not change its mind with every window, of which about a
// thousand close in 20 s.
func TestPressureIsSteadyAtTheEdge(t *testing.T) {
	const most = 50
	for _, factor := range []float64{.9, 1} {
		for name, opts := range map[string][]limiter.Option{
			"adaptive": nil, "fixed": {limiter.WithFixedLimit(pressureWorkers)},
		} {
			synctest.Test(t, func(t *testing.T) {
				p := newPressed(t, 1, opts...)
				changes, high := 0, false
				p.load(t.Context(), factor, 20*time.Second, func() {
					if now := p.Pressure(limiter.Critical) > .5; now != high {
						changes, high = changes+1, now
					}
				})
				if changes > most {
					t.Errorf("%s limit, %vx: %d changes over .5 in 20s, want %d at most", name, factor, changes, most)
				}
				p.wantEmpty(t)
			})
		}
	}
}

// After an overload the pressure falls over the memory of the load, no faster, while requests still come.
func TestPressureFallsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPressed(t, 1, limiter.WithFixedLimit(pressureWorkers))
		p.load(t.Context(), 1.2, 5*time.Second, func() {})
		if got := p.Pressure(limiter.Critical); got != 1 {
			t.Errorf("pressure %v at 1.2 times what can be served, want 1", got)
		}
		start, half := time.Now(), time.Duration(0)
		p.load(t.Context(), .3, 10*pressureMemory, func() {
			if half == 0 && p.Pressure(limiter.Critical) <= .5 {
				half = time.Since(start)
			}
		})
		least := 69 * pressureMemory / 100 // ln 2: the fall alone, without that of the load
		if half < least || half > 2*pressureMemory {
			t.Errorf("half of the pressure is gone %v after the overload, want %v to %v", half, least, 2*pressureMemory)
		}
		if got := p.Pressure(limiter.Sheddable); got != 0 {
			t.Errorf("pressure %v long after the overload, want 0", got)
		}
		p.wantEmpty(t)
	})
}

// Where nothing comes any more no window closes: the pressure falls by its age.
func TestPressureFallsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPressed(t, 1, limiter.WithFixedLimit(pressureWorkers))
		p.load(t.Context(), 2, 5*time.Second, func() {})
		p.wantEmpty(t)
		last := p.Pressure(limiter.Critical)
		for range 1000 {
			time.Sleep(pressureMemory / 100)
			now := p.Pressure(limiter.Critical)
			if now > last || now < .9*last && now > 0 {
				t.Fatalf("pressure %v, and %v a hundredth of the memory later", last, now)
			}
			last = now
		}
		if last != 0 {
			t.Errorf("pressure %v after ten memories, want 0", last)
		}
	})
}

// At any time a request of a lower criticality sees at least the pressure of a higher one, and what fits by itself
// sees none for the sake of what is below it.
func TestPressureIsOrderedByCriticality(t *testing.T) {
	levels := []limiter.Criticality{limiter.CriticalPlus, limiter.Critical, limiter.SheddablePlus, limiter.Sheddable}
	for _, opts := range [][]limiter.Option{nil, {limiter.WithFixedLimit(pressureWorkers)}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPressed(t, 1, opts...)
			inOrder := func() {
				higher := 0.0
				for _, level := range levels {
					pressure := p.Pressure(level)
					if pressure < higher || pressure > 1 {
						t.Errorf("pressure %v for %v, want %v to 1", pressure, level, higher)
					}
					higher = pressure
				}
				if a, b := p.Pressure(limiter.Unspecified), p.Pressure(limiter.Critical); a != b {
					t.Errorf("pressure %v for nobody said, want the %v of Critical", a, b)
				}
			}
			p.load(t.Context(), 2, 5*time.Second, inOrder, levels...) // half for each
			if got := p.Pressure(limiter.CriticalPlus); got > .5 {
				t.Errorf("pressure %.2f for a criticality that asks for half of what can be served", got)
			}
			for _, level := range levels[2:] {
				if got := p.Pressure(level); got != 1 {
					t.Errorf("pressure %.2f for %v, want 1: it is what is too much", got, level)
				}
			}
			p.load(t.Context(), .3, 5*time.Second, inOrder, levels...)
			p.wantEmpty(t)
		})
	}
}

func TestPressureOfAContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got := limiter.Pressure(t.Context()); got != 0 {
			t.Errorf("pressure %v without a limiter, want 0", got)
		}
		if got := limiter.Pressure(limiter.ContextWithLimiter(t.Context(), nil, limiter.Critical)); got != 0 {
			t.Errorf("pressure %v of a nil limiter, want 0", got)
		}
		p := newPressed(t, 1, limiter.WithFixedLimit(pressureWorkers))
		p.load(t.Context(), 2, 5*time.Second, func() {}, limiter.CriticalPlus, limiter.SheddablePlus, limiter.SheddablePlus)
		outer := limiter.ContextWithCriticality(t.Context(), limiter.CriticalPlus)
		for _, c := range []struct {
			name string
			ctx  context.Context
			want limiter.Criticality
		}{
			{"nobody said", limiter.ContextWithLimiter(t.Context(), p.Limiter, limiter.Unspecified), limiter.Unspecified},
			{"said outside", limiter.ContextWithLimiter(outer, p.Limiter, limiter.Unspecified), limiter.CriticalPlus},
			{"said again", limiter.ContextWithLimiter(outer, p.Limiter, limiter.Sheddable), limiter.Sheddable},
			{"said inside", limiter.ContextWithCriticality(
				limiter.ContextWithLimiter(outer, p.Limiter, limiter.CriticalPlus), limiter.Sheddable), limiter.Sheddable},
		} {
			if got := limiter.CriticalityFromContext(c.ctx); got != c.want {
				t.Errorf("%s: criticality %v, want %v", c.name, got, c.want)
			}
			if got, want := limiter.Pressure(c.ctx), p.Pressure(c.want); got != want {
				t.Errorf("%s: pressure %v, want the %v of %v", c.name, got, want, c.want)
			}
		}
		if high, low := p.Pressure(limiter.CriticalPlus), p.Pressure(limiter.Sheddable); high >= low {
			t.Errorf("pressure %v for CriticalPlus and %v for Sheddable: the test tells nothing apart", high, low)
		}
		p.wantEmpty(t)
	})
}

// The context is as good as the one that it was made from.
func TestContextWithLimiterIsAContext(t *testing.T) {
	type key struct{}
	outer, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Hour)
	l, err := limiter.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(limiter.ContextWithLimiter(outer, l, limiter.Critical))
	defer stop()
	if got := ctx.Value(key{}); got != "value" {
		t.Errorf("value %v, want that of the outer context", got)
	}
	if _, ok := ctx.Deadline(); !ok {
		t.Error("no deadline")
	}
	// A context prints as what it is made of, not as the limiter's fields.
	for want, ctx := range map[string]context.Context{
		"context.Background.WithLimiter":     limiter.ContextWithLimiter(context.Background(), l, limiter.Critical),
		"limiter_test.nameless.WithLimiter":  limiter.ContextWithLimiter(nameless{}, l, limiter.Critical),
		"*limiter_test.nameless.WithLimiter": limiter.ContextWithLimiter(&nameless{}, l, limiter.Critical),
	} {
		if got := fmt.Sprint(ctx); got != want {
			t.Errorf("prints as %q, want %q", got, want)
		}
	}
	cancel()
	if ctx.Err() == nil {
		t.Error("not over with the outer context")
	}
}

type nameless struct{ context.Context }

func TestReadingPressureAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPressed(t, 1, limiter.WithFixedLimit(pressureWorkers))
		p.load(t.Context(), 2, 2*time.Second, func() {})
		ctx := limiter.ContextWithLimiter(t.Context(), p.Limiter, limiter.Critical)
		if n := testing.AllocsPerRun(100, func() { limiter.Pressure(ctx) }); n != 0 {
			t.Errorf("reading the pressure allocates %v times, want 0", n)
		}
		p.wantEmpty(t)
	})
}

// A handler that answers with less while there is pressure.
func ExamplePressure() {
	handler := func(ctx context.Context) string {
		if limiter.Pressure(ctx) > 0.5 {
			return "the ten best of yesterday" // costs next to nothing
		}
		return "the ten best for you"
	}
	lim, err := limiter.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	// The interceptors do this; here nothing else is asked of the limiter.
	ctx := limiter.ContextWithLimiter(context.Background(), lim, limiter.Critical)
	permit, err := lim.Acquire(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer permit.Release(limiter.OK)
	fmt.Println(handler(ctx))
	// Output: the ten best for you
}
