package limiter

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// As few wait as leave the line empty for a twentieth of the time at most, but three always may.
func TestStandingLine(t *testing.T) {
	empty := func(r float64, k int) float64 { return (r - 1) / (math.Pow(r, float64(k+1)) - 1) }
	for _, r := range []float64{1.01, 1.1, 1.2, 1.4, 1.7, 2, 3, 10, 1e9} {
		k := standingLine(r)
		if got := empty(r, k); got > seldom {
			t.Errorf("a line of %d is empty for %.3f of the time under a load of %v, want %v at most", k, got, r, seldom)
		}
		if k > shortLine && empty(r, k-1) < seldom {
			t.Errorf("a line of %d under a load of %v, where %d would do", k, r, k-1)
		}
	}
	for _, r := range []float64{math.Inf(-1), -1, 0, .5, 1, math.Inf(1), math.NaN()} {
		if k := standingLine(r); k != shortLine {
			t.Errorf("a line of %d under a load of %v, want %d", k, r, shortLine)
		}
	}
	if k := standingLine(math.Nextafter(1, 2)); k > 1/seldom {
		t.Errorf("a line of %d under a load of hardly more than 1, want %v at most", k, 1/seldom)
	}
}

// However long a line may stand, no more wait than there is memory for.
func TestStandingLineKeepsToMemory(t *testing.T) {
	const load, level = 1.02, 1
	p := pace{drain: 1000, service: 10 * time.Millisecond, slack: time.Second, typical: 1}
	for _, most := range []int{shortLine, 8, math.MaxInt} {
		var l line
		var th threshold
		l.most = most
		for i := range th.loads {
			th.loads[i], th.lines[i] = load, standingLine(load)
		}
		n := 0
		for ; l.few(level, n, 0, p, &th); n++ {
		}
		if want := min(most, standingLine(load)); n != want {
			t.Errorf("%d wait where %d may, want %d", n, most, want)
		}
	}
}

// A little more than one can do comes at random for minutes. With three in line at most it is idle for a ninth of the time.
func TestALineIsSeldomEmptyWhereLittleTooMuchComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mean, load, count = 10 * time.Millisecond, 1.3, 20_000
		l := mustNew(t, WithFixedLimit(1))
		rng := rand.New(rand.NewPCG(1, 2))
		var all sync.WaitGroup
		var busy, most time.Duration // written by whoever has the only permit
		start := time.Now()
		for range count {
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(mean) / load))
			size := time.Duration(rng.ExpFloat64() * float64(mean))
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				came := time.Now()
				permit, err := l.Acquire(ctx)
				if err != nil {
					return
				}
				most = max(most, time.Since(came))
				time.Sleep(size)
				busy += size
				permit.Release(OK)
			})
		}
		all.Wait()
		if part := float64(busy) / float64(time.Since(start)); part < 0.92 {
			t.Errorf("a worker with a line was busy for %.3f of the time, want .92", part)
		}
		if most > 400*time.Millisecond {
			t.Errorf("somebody waited for %v, want no more than a part of the 500 ms there are", most)
		}
		wantEmpty(t, l)
	})
}
