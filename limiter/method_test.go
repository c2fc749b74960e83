package limiter

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// visit does so many requests of a method, one after the other, each of which takes so long.
func visit(t *testing.T, l *Limiter, method string, times int, stay time.Duration) {
	t.Helper()
	for range times {
		p, err := l.AcquireRequest(t.Context(), Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(stay)
		p.Release(OK)
	}
}

// stays returns what the limiter knows of methods, by name.
func stays(l *Limiter) map[string]time.Duration {
	all := map[string]time.Duration{}
	for _, m := range l.Methods() {
		all[m.Name] = m.Stay
	}
	return all
}

func TestMethodsAreLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		if got := l.Methods(); got != nil {
			t.Errorf("%v known before anything came", got)
		}
		for range 50 {
			visit(t, l, "/light", 16, 2*time.Millisecond)
			visit(t, l, "/heavy", 1, 100*time.Millisecond)
		}
		got := stays(l)
		if ratio := float64(got["/heavy"]) / float64(got["/light"]); len(got) != 2 || math.Abs(ratio-50) > 1 {
			t.Errorf("%v known, want /heavy 50 times /light", got)
		}

		// All become ten times slower: every method does, also one that is not called meanwhile. The window in which it
		// happens holds quick light ones and slow ones, and shifts the ratio by up to a third.
		visit(t, l, "/light", 320, 20*time.Millisecond)
		for name, want := range map[string]time.Duration{"/light": 20 * time.Millisecond, "/heavy": time.Second} {
			if got := stays(l)[name]; math.Abs(float64(got-want)) > .35*float64(want) {
				t.Errorf("%s is said to take %v, want %v", name, got, want)
			}
		}
	})
}

// What the controller is told of the work does not depend on the mix: heavy ones count for as many light ones as take
// as long.
func TestWorkDoesNotDependOnTheMix(t *testing.T) {
	var m methods
	var p pace
	light, heavy := m.learn("light"), m.learn("heavy")
	observe := func(lights, heavies int, slow time.Duration) (work float64) {
		var d departures
		for range lights {
			d.add(light, 1, slow, true)
		}
		for range heavies {
			d.add(heavy, 1, 50*slow, false)
		}
		work, useful := m.observe(&d, p, feedback.Sample{})
		p.slow = float64(slow) * float64(lights+50*heavies) / work
		if want := work * float64(lights) / float64(lights+50*heavies); math.Abs(useful-want) > 1e-9*want {
			t.Errorf("%v of %v was of use, want %v", useful, work, want)
		}
		return work
	}
	first := observe(100, 2, time.Millisecond)
	for range 100 {
		observe(100, 2, time.Millisecond)
	}
	for _, mix := range []struct {
		lights, heavies int
		slow            time.Duration
	}{
		{200, 0, time.Millisecond},
		{0, 4, time.Millisecond},
		{50, 3, time.Millisecond},
		{50, 3, time.Second}, // a thousand times slower
		{1, 0, time.Microsecond},
		{100, 2, time.Nanosecond},
	} {
		want := first * float64(mix.lights+50*mix.heavies) / 200
		if got := observe(mix.lights, mix.heavies, mix.slow); math.Abs(got-want) > 1e-6*want {
			t.Errorf("%+v: work %v, want %v", mix, got, want)
		}
	}
}

// In a pool that is often full for a moment light requests stay for two or three times as long as they work. What they
// cost is learned by when they do not, so that heavy ones do not seem to cost twenty of them; and once there was such a
// time, nothing is learned from the others.
func TestCostsAreLearnedInCalmTimes(t *testing.T) {
	const light, heavy, workers = 2 * time.Millisecond, 100 * time.Millisecond, 10
	synctest.Test(t, func(t *testing.T) {
		l, pool := mustNew(t), make(chan struct{}, workers)
		var mu sync.Mutex
		var stayed, worked time.Duration // of light ones
		var all sync.WaitGroup
		send := func(method string, mean time.Duration, load float64, seed uint64) {
			rng := rand.New(rand.NewPCG(seed, seed))
			exponential := func(mean float64) time.Duration { return time.Duration(rng.ExpFloat64() * mean) }
			for start := time.Now(); time.Since(start) < 20*time.Second; {
				time.Sleep(exponential(float64(mean) / (load * workers)))
				work := exponential(float64(mean))
				all.Go(func() {
					p, err := l.AcquireRequest(t.Context(), Request{Method: method})
					if err != nil {
						return
					}
					began := time.Now()
					pool <- struct{}{}
					time.Sleep(work)
					<-pool
					p.Release(OK)
					mu.Lock()
					defer mu.Unlock()
					if method == "light" {
						stayed += time.Since(began)
						worked += work
					}
				})
			}
		}
		costs := func() float64 { return float64(stays(l)["heavy"]) / float64(stays(l)["light"]) }
		all.Go(func() { send("light", light, .4, 1) })
		send("heavy", heavy, .4, 2)
		all.Wait()
		if 2*stayed < 3*worked {
			t.Errorf("light ones stayed for %v to work for %v: this shows nothing", stayed, worked)
		}
		calm := costs()
		if calm < 33 || calm > 75 {
			t.Errorf("heavy ones are said to cost %.1f light ones, want 50", calm)
		}
		all.Go(func() { send("light", light, 1.5, 3) })
		send("heavy", heavy, 1.5, 4)
		all.Wait()
		if full := costs(); math.Abs(full-calm) > .1*calm {
			t.Errorf("heavy ones are said to cost %.1f light ones once the pool is full, want the %.1f of before", full, calm)
		}
	})
}

// Whatever names are sent, memory is bounded, and those that came first are told apart.
func TestMethodsAreBounded(t *testing.T) {
	var m methods
	first := m.learn("first")
	for i := range 10_000 {
		m.learn(fmt.Sprint(i))
	}
	if got := len(*m.table.Load()); got != maxMethods-1 {
		t.Errorf("%d methods remembered, want %d", got, maxMethods-1)
	}
	if m.find("first") != first || first == other {
		t.Errorf("the first is now %d, was %d", m.find("first"), first)
	}
	if late := m.learn("late"); late != other {
		t.Errorf("one too many is number %d, want that of all others", late)
	}
	if m.learn("") != other {
		t.Error("no name has a number of its own")
	}
}

// What is not a time, and what says nothing, leaves nothing behind that is not a cost.
func TestCostsStayFinite(t *testing.T) {
	var m methods
	n := m.learn("odd")
	for i, stay := range []time.Duration{0, 0, 1, 0, math.MaxInt64, 0, 1, 0, 1, math.MaxInt64, 0, 1} {
		var d departures
		d.add(n, 1, stay, true)
		s := windowOf(time.Second, 100)
		s.Area = float64(2 - i%2) // every other window may be calm
		work, useful := m.observe(&d, pace{}, s)
		for _, x := range []float64{work, useful, m.cost(n), m.cost(other)} {
			if !(x > 0) || math.IsInf(x, 0) {
				t.Fatalf("after a stay of %v: work %v, useful %v, costs %v and %v", stay, work, useful, m.cost(n), m.cost(other))
			}
		}
	}
}

// A heavy request has to have more time left than a light one before it may wait.
func TestDeadlineCountsTheMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		for range 50 {
			visit(t, l, "/light", 16, 2*time.Millisecond)
			visit(t, l, "/heavy", 1, 100*time.Millisecond)
		}
		held := mustAcquire(t, l)
		go func() { // somebody waits, so that the tap has something to say
			if p, err := l.Acquire(t.Context()); err == nil {
				p.Release(OK)
			}
		}()
		synctest.Wait()
		for _, c := range []struct {
			method string
			left   time.Duration
			want   bool
		}{
			{"/light", 60 * time.Millisecond, true},
			{"/heavy", 60 * time.Millisecond, false},
			{"/heavy", 600 * time.Millisecond, true},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), c.left)
			if refusal := l.Preview(ctx, Request{Method: c.method}); (refusal == nil) != c.want {
				t.Errorf("Preview of %s with %v left: %v", c.method, c.left, refusal)
			}
			var answered atomic.Bool
			go func() {
				p, err := l.AcquireRequest(ctx, Request{Method: c.method})
				answered.Store(true)
				if err == nil {
					p.Release(OK)
				}
			}()
			synctest.Wait()
			if answered.Load() == c.want {
				t.Errorf("%s with %v left waits: %v, want %v", c.method, c.left, !answered.Load(), c.want)
			}
			cancel()
			synctest.Wait()
		}
		held.Release(OK)
		synctest.Wait()
		wantEmpty(t, l)
	})
}
