package limiter

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// weighed is a request of that weight.
func weighed(weight int) Request { return Request{Weight: weight} }

func TestWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10))
		inFlight := func(want int) {
			t.Helper()
			synctest.Wait()
			if got := l.Stats().InFlight; got != want {
				t.Fatalf("%d in flight, want %d", got, want)
			}
		}
		acquire := func(weight int) Permit {
			t.Helper()
			p, err := l.AcquireRequest(t.Context(), weighed(weight))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		a, b, c := acquire(4), acquire(0), acquire(-7) // what is below 1 counts as 1
		inFlight(6)
		a.Suspend()
		inFlight(2)
		a.Resume()
		inFlight(6)

		// Who does not fit waits, and those behind wait with it: or it would never be served while lighter ones come.
		served := make(chan int, 4)
		var later [3]Permit
		for i, weight := range []int{5, 1, 1} {
			go func() {
				later[i] = acquire(weight)
				served <- weight
			}()
			synctest.Wait()
		}
		inFlight(6)
		if len(served) > 0 {
			t.Fatalf("one of weight %d was served before one of weight 5 that came first", <-served)
		}
		b.Release(OK)
		inFlight(10) // 5 + 5: and no room for those of 1
		c.Release(OK)
		inFlight(10)
		a.Release(OK)
		inFlight(7)
		for _, p := range later {
			p.Cancel()
		}
		inFlight(0)

		// Who weighs more than the limit is served alone.
		small := acquire(1)
		go func() { later[0] = acquire(1000); served <- 1000 }()
		inFlight(1)
		small.Release(OK)
		inFlight(10)
		later[0].Release(OK)
		wantEmpty(t, l)
	})
}

// A request of weight n counts as n in Little's law: it leaves the same books as n requests.
func TestWeightCountsAsSoManyRequests(t *testing.T) {
	run := func(weight, times int) (throughput, load float64) {
		synctest.Test(t, func(t *testing.T) {
			l := mustNew(t, WithFixedLimit(40))
			for range 100 {
				var permits []Permit
				for range times {
					p, err := l.AcquireRequest(t.Context(), weighed(weight))
					if err != nil {
						t.Fatal(err)
					}
					permits = append(permits, p)
				}
				time.Sleep(10 * time.Millisecond)
				for _, p := range permits {
					p.Release(OK)
				}
			}
			throughput, load = l.Stats().Throughput, l.threshold.loads[Critical.level()]
		})
		return throughput, load
	}
	x1, load1 := run(20, 1)
	x20, load20 := run(1, 20)
	if math.Abs(x1-x20) > 1e-6*x20 || math.Abs(load1-load20) > 1e-6*load20 {
		t.Errorf("one request of weight 20: %v a second, load %v; twenty of weight 1: %v, %v", x1, load1, x20, load20)
	}
}

// Who is too heavy for what is free holds up those behind, and must let them go when it gives up.
func TestHeavyWaiterThatGivesUpLetsOthersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(3))
		held := mustAcquire(t, l)
		heavy, giveUp := context.WithCancel(t.Context())
		go func() { _, _ = l.AcquireRequest(heavy, weighed(3)) }()
		synctest.Wait()
		var served atomic.Bool
		go func() {
			if p, err := l.Acquire(t.Context()); err == nil {
				served.Store(true)
				p.Release(OK)
			}
		}()
		synctest.Wait()
		giveUp()
		synctest.Wait()
		if !served.Load() {
			t.Error("a light one still waits for the heavy one that is gone")
		}
		held.Release(OK)
		synctest.Wait()
		wantEmpty(t, l)
	})
}
