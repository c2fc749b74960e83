package limiter

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

const mib = 1 << 20

// heap is a memory in virtual time, in which garbage is collected as the Go runtime does under a memory limit.
type heap struct {
	limit uint64

	mu        sync.Mutex // guards all below
	live      uint64
	garbage   uint64
	allocated uint64
	marked    uint64 // live at the last collection
	peak      uint64 // of live
}

func newHeap(limit, base uint64) *heap {
	h := &heap{limit: limit}
	h.allocate(base, 0)
	return h
}

// allocate adds what stays and what is garbage at once.
func (h *heap) allocate(stays, garbage uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live += stays
	h.peak = max(h.peak, h.live)
	h.garbage += garbage
	h.allocated += stays + garbage
	if h.live+h.garbage >= min(max(4*mib, 2*h.marked), h.limit/100*97) {
		h.marked, h.garbage = h.live, 0
	}
}

func (h *heap) free(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live -= n
	h.garbage += n
}

func (h *heap) read() Memory {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Memory{Used: h.marked, Limit: h.limit, Allocated: h.allocated}
}

// constant is a limit that leaves room for all; unlike feedback.Fixed it promises nothing.
type constant int

func (c constant) Update(feedback.Sample) int { return int(c) }

// burden is a load of requests that hold memory.
type burden struct {
	rate           float64       // per second
	during, stay   time.Duration // each stays between half and one and a half of stay
	holds, garbage uint64        // of each
	criticality    Criticality
	late           float64 // share of its stay that each waits before it takes its memory
}

// bear plays the load and returns how many of it were served.
func (b burden) bear(t *testing.T, l *Limiter, h *heap) (served int64) {
	var all sync.WaitGroup
	var done atomic.Int64
	dice := rand.New(rand.NewPCG(1, uint64(b.criticality)))
	for range int(b.rate * b.during.Seconds()) {
		time.Sleep(time.Duration(float64(time.Second) / b.rate))
		stay := time.Duration((0.5 + dice.Float64()) * float64(b.stay))
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			permit, err := l.AcquireRequest(ctx, Request{Criticality: b.criticality})
			if err != nil {
				return
			}
			late := time.Duration(b.late * float64(stay))
			time.Sleep(late)
			h.allocate(b.holds, b.garbage)
			time.Sleep(stay - late)
			h.free(b.holds)
			permit.Release(OK)
			done.Add(1)
		})
	}
	all.Wait()
	return done.Load()
}

// A thousand requests a second that hold 1 MiB for half a second each are 500 MiB, and there are 200.
func TestMemoryIsNeverOverrun(t *testing.T) {
	load := burden{rate: 1000, during: 20 * time.Second, stay: 500 * time.Millisecond, holds: mib}
	for name, change := range map[string]func(*burden, *uint64){
		"at once":                 func(*burden, *uint64) {},
		"in the middle":           func(b *burden, _ *uint64) { b.late = 0.5 },
		"besides garbage":         func(b *burden, _ *uint64) { b.garbage = mib },
		"besides half that stays": func(b *burden, base *uint64) { *base, b.holds = 100*mib, mib/2 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				load, base := load, uint64(0)
				change(&load, &base)
				h := newHeap(200*mib, base)
				l := mustNew(t, WithController(constant(1000)), WithInitialLimit(1000), WithMemory(h.read))
				first := load
				first.rate, first.during = 20, 3*time.Second
				first.bear(t, l, h) // what a request takes is learned
				got := load.bear(t, l, h)
				if h.peak > h.limit {
					t.Errorf("%d MiB in use, want at most %d", h.peak/mib, h.limit/mib)
				}
				fit := float64((h.limit-base)/load.holds) / load.stay.Seconds() * load.during.Seconds()
				if float64(got) < 0.6*fit {
					t.Errorf("%d served, want .6 of the %.0f that fit", got, fit)
				}
				if s := l.Stats(); s.Refused[ReasonMemory] == 0 || s.Refused[ReasonLimit] > 0 {
					t.Errorf("refused for memory %d times and for the limit %d, want all for memory",
						s.Refused[ReasonMemory], s.Refused[ReasonLimit])
				}
				wantEmpty(t, l)
			})
		})
	}
}

// Where a twentieth of the requests hold nearly all, and for long, those in flight hold far more than one in the mean.
func TestMemoryOfFewHeavyAmongLight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(400*mib, 0)
		l := mustNew(t, WithController(constant(1000)), WithInitialLimit(1000), WithMemory(h.read))
		light := burden{rate: 950, during: 20 * time.Second, stay: 20 * time.Millisecond, holds: mib / 100}
		heavy := burden{rate: 50, during: 20 * time.Second, stay: 2 * time.Second, holds: 20 * mib}
		var all sync.WaitGroup
		var served int64
		all.Go(func() { light.bear(t, l, h) })
		all.Go(func() { served = heavy.bear(t, l, h) })
		all.Wait()
		if h.peak > h.limit/10*11 {
			t.Errorf("%d MiB in use, want at most a tenth more than %d", h.peak/mib, h.limit/mib)
		}
		if fit := 20 * 20 / 2; float64(served) < 0.7*float64(fit) {
			t.Errorf("%d of the heavy served, want .7 of the %d that fit", served, fit)
		}
	})
}

// The same load without the brake needs more than there is: what the test above shows is the brake.
func TestWithoutMemoryNothingIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(200*mib, 0)
		l := mustNew(t, WithController(constant(1000)), WithInitialLimit(1000))
		burden{rate: 1000, during: 5 * time.Second, stay: 500 * time.Millisecond, holds: mib}.bear(t, l, h)
		if h.peak < 2*h.limit {
			t.Errorf("%d MiB in use, want more than twice %d", h.peak/mib, h.limit/mib)
		}
	})
}

// Requests that wait hold memory too.
func TestMemoryBoundsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(200*mib, 0)
		l := mustNew(t, WithController(constant(20)), WithMemory(h.read))
		most := 0
		var all sync.WaitGroup
		all.Go(func() {
			for range 1000 {
				time.Sleep(10 * time.Millisecond)
				s := l.Stats()
				most = max(most, s.InFlight+s.Line)
			}
		})
		burden{rate: 20, during: 5 * time.Second, stay: 500 * time.Millisecond, holds: mib}.bear(t, l, h)
		burden{rate: 2000, during: 3 * time.Second, stay: 500 * time.Millisecond, holds: mib}.bear(t, l, h)
		all.Wait()
		if most > 200 {
			t.Errorf("%d in flight and in line, want at most the 200 that there is memory for", most)
		}
	})
}

// The more critical are served before the others also where memory is what is scarce.
func TestMemoryIsForTheCritical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(200*mib, 0)
		l := mustNew(t, WithController(constant(1000)), WithInitialLimit(1000), WithMemory(h.read))
		load := burden{rate: 200, during: 20 * time.Second, stay: 500 * time.Millisecond, holds: mib}
		low, high := load, load
		low.rate, low.criticality, high.criticality = 1000, Sheddable, CriticalPlus
		var all sync.WaitGroup
		var served int64
		all.Go(func() { low.bear(t, l, h) })
		all.Go(func() { served = high.bear(t, l, h) })
		all.Wait()
		if all := high.rate * high.during.Seconds(); float64(served) < 0.98*all {
			t.Errorf("%d of the most critical served, want .98 of %.0f: all of them fit", served, all)
		}
	})
}

// What is taken, but not by requests, is no reason to refuse those that are light.
func TestMemoryFullOfOtherThings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(1000*mib, 900*mib)
		l := mustNew(t, WithController(constant(10_000)), WithInitialLimit(10_000), WithMemory(h.read))
		light := burden{rate: 50, during: 20 * time.Second, stay: 100 * time.Millisecond, holds: mib / 100}
		light.bear(t, l, h)
		light.rate, light.during = 10_000, time.Second
		light.bear(t, l, h)
		if s := l.Stats(); s.Refused != [reasons]uint64{} {
			t.Errorf("refused %v, want none: a thousand requests take 10 MiB of 100", s.Refused)
		}
	})
}

// Garbage can be collected: who makes a lot of it holds little.
func TestMemoryFullOfGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(500*mib, 0)
		l := mustNew(t, WithController(constant(10_000)), WithInitialLimit(10_000), WithMemory(h.read))
		wasteful := burden{rate: 1000, during: 20 * time.Second, stay: 500 * time.Millisecond, holds: mib / 10, garbage: 2 * mib}
		all := wasteful.rate * wasteful.during.Seconds()
		if got := wasteful.bear(t, l, h); float64(got) < 0.95*all {
			t.Errorf("%d served, want .95 of %.0f: they hold 50 MiB of 500", got, all)
		}
	})
}

// What else the process allocates, such as another server of it, is not taken for that of requests that are few.
func TestMemoryThatOthersAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(400*mib, 0)
		l := mustNew(t, WithController(constant(1000)), WithInitialLimit(1000), WithMemory(h.read))
		stop := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() {
			for tick := time.NewTicker(time.Millisecond); ; {
				select {
				case <-tick.C:
					h.allocate(0, mib/10)
				case <-stop:
					return
				}
			}
		})
		few := burden{rate: 2, during: 30 * time.Second, stay: 10 * time.Millisecond, holds: mib / 100}
		few.bear(t, l, h)
		few.rate, few.during = 100_000, time.Millisecond
		few.bear(t, l, h)
		close(stop)
		others.Wait()
		if s := l.Stats(); s.Refused != [reasons]uint64{} {
			t.Errorf("refused %v, want none: a hundred requests take 1 MiB of 400", s.Refused)
		}
	})
}

// Whatever was taken, no state lasts in which all are refused.
func TestMemoryOverrunByOtherThingsLocksNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(100*mib, 200*mib)
		l := mustNew(t, WithMemory(h.read))
		load := burden{rate: 100, during: 5 * time.Second, stay: 10 * time.Millisecond, holds: mib}
		if got := load.bear(t, l, h); got < 100 {
			t.Errorf("%d served while memory is overrun, want one at a time", got)
		}
		h.free(150 * mib)
		h.allocate(0, 100*mib)
		before := l.Stats().Refused
		if got := load.bear(t, l, h); got != 500 || l.Stats().Refused != before {
			t.Errorf("%d served once there is room again, want all of 500", got)
		}
	})
}

func TestMinLimitIsKeptWithoutMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(100*mib, 200*mib)
		l := mustNew(t, WithMinLimit(7), WithInitialLimit(7), WithMemory(h.read))
		burden{rate: 1000, during: time.Second, stay: 100 * time.Millisecond, holds: mib}.bear(t, l, h)
		if got := l.Stats().Limit; got < 7 {
			t.Errorf("limit %d, want at least WithMinLimit(7)", got)
		}
	})
}

func TestSignalThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeap(20*mib, 0)
		var broken atomic.Bool
		l := mustNew(t, WithController(constant(1000)), WithMemory(func() Memory {
			if broken.Load() {
				panic("no signal")
			}
			return h.read()
		}))
		load := burden{rate: 100, during: 5 * time.Second, stay: 500 * time.Millisecond, holds: mib}
		load.bear(t, l, h)
		before := l.Stats().Limit
		broken.Store(true)
		load.bear(t, l, h)
		if s := l.Stats(); s.SignalPanics == 0 || s.Limit != before {
			t.Errorf("%d panics and a limit of %d, want some and the %d of before", s.SignalPanics, s.Limit, before)
		}
	})
}

// A signal that does not return costs the request that asked it, and nobody else.
func TestSignalThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		l := mustNew(t, WithController(constant(30)), WithMemory(func() Memory {
			<-stuck
			return Memory{}
		}))
		h := newHeap(mib, 0)
		var served int64
		var all sync.WaitGroup
		all.Go(func() { served = burden{rate: 100, during: 5 * time.Second, stay: 10 * time.Millisecond}.bear(t, l, h) })
		time.Sleep(10 * time.Second)
		if s := l.Stats(); s.Admitted != 499 || s.Limit != 30 {
			t.Errorf("%d admitted under a limit of %d, want all but one of 500, and the controller's 30", s.Admitted, s.Limit)
		}
		close(stuck)
		all.Wait()
		if served != 500 {
			t.Errorf("%d served in the end, want all of 500", served)
		}
	})
}

// Whatever a signal says, the limit stays between the least and what the controller wants.
func TestSignalThatTalksNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := []uint64{0, 1, mib, 1 << 40, math.MaxInt64, math.MaxUint64}
		turn := 0
		l := mustNew(t, WithController(constant(50)), WithMemory(func() Memory {
			turn++
			return Memory{values[turn%6], values[turn/6%6], values[turn/36%6]}
		}))
		h := newHeap(mib, 0)
		load := burden{rate: 1000, during: 100 * time.Millisecond, stay: 10 * time.Millisecond}
		for range 50 {
			load.bear(t, l, h)
			if got := l.Stats().Limit; got < 1 || got > 50 {
				t.Fatalf("limit %d, want 1 to 50", got)
			}
		}
		wantEmpty(t, l)
	})
}

func TestWhoHearsOfMemory(t *testing.T) {
	given := func() Memory { return Memory{} }
	for _, c := range []struct {
		name string
		opts []Option
		want bool
	}{
		{"nothing set", nil, true},
		{"WithoutSignals", []Option{WithoutSignals()}, false},
		{"WithFixedLimit", []Option{WithFixedLimit(3)}, false},
		{"WithFixedLimit and WithMemory", []Option{WithFixedLimit(3), WithMemory(given)}, true},
	} {
		if got := mustNew(t, c.opts...).signal.read != nil; got != c.want {
			t.Errorf("%s: memory is read: %v, want %v", c.name, got, c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		if mustNew(t).signal.read != nil {
			t.Error("the memory of the process is read in a bubble")
		}
		if mustNew(t, WithMemory(given)).signal.read == nil {
			t.Error("in a bubble WithMemory is not read")
		}
	})
}

func TestBadSignalOptionsAreNamed(t *testing.T) {
	for want, opts := range map[string][]Option{
		"WithMemory(nil)": {WithMemory(nil)},
		"exclude":         {WithoutSignals(), WithMemory(func() Memory { return Memory{} })},
	} {
		if _, err := New(opts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}
