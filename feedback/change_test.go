package feedback

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-go/spillway/littles"
)

// noisyWindow is the next window of a pool whose work takes 10 ms in the exponential mean, under a limit that is always full.
func noisyWindow(rng *rand.Rand, now time.Duration, limit int, workers float64) Sample {
	const service = 0.010
	n := float64(limit)
	x := min(n, workers) / service
	count := max(MinCompletions, limit)
	seconds := 0.0
	for range count {
		seconds += rng.ExpFloat64() / x
	}
	c := float64(count)
	w := n * seconds / c
	return Sample{
		Window: littles.Window{
			Start: now, End: now + time.Duration(seconds*float64(time.Second)),
			Area: n * seconds, Arrivals: int64(count), Completions: int64(count), Good: int64(count),
			Sum: w * c, Squares: (w*w + service*service) * c,
		},
		Limit: limit, Peak: limit, Offered: 3 * int64(count), Waited: int64(count), Refused: 2 * int64(count),
	}
}

// If ten workers become twenty while the limit rests just above ten, goodput is hardly higher before the limit is.
func TestAServiceThatDoublesIsFoundByAProbe(t *testing.T) {
	const runs = 100
	var sum int64
	for seed := range uint64(runs) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var law Elasticity
		limit, now := 20, time.Duration(0)
		after := func(completions int64, workers float64, until func() bool) (seen int64) {
			for seen < completions && !until() {
				s := noisyWindow(rng, now, limit, workers)
				limit, now = law.Update(s), s.End
				seen += s.Completions
			}
			return seen
		}
		after(20_000, 10, func() bool { return false })
		sum += after(100_000, 20, func() bool { return law.centre > 18 })
	}
	mean := sum / runs
	t.Logf("found after %d completions in the mean", mean)
	if mean > 650 {
		t.Errorf("it takes %d completions in the mean until a service that doubles is found, want 650 at most", mean)
	}
}

// A suspicion that is not confirmed costs a probe, and nothing of what was learned.
func TestAProbeInVainForgetsNothing(t *testing.T) {
	at := point{n: math.Log(10), x: math.Log(1000), weight: 1000}
	law := Elasticity{
		centre: 11, width: narrowest, bound: true, told: true, high: true,
		last: at, lately: [2]point{at, at}, sxx: 10, sxy: 0.5, free: free{service: 0.010},
		noise: noise{estimate: 1, stays: 1},
	}
	plant := scene{workers: 10, service: 10 * time.Millisecond, offered: 3000}
	limit, now := 12, time.Duration(0)
	step := func() (completions int64) {
		s := plant.window(now, limit)
		limit, now = law.Update(s), s.End
		return s.Completions
	}
	step()
	before := law
	law.more = suspected + 2
	step()
	if !law.probing || limit < 16 {
		t.Fatalf("on a suspicion the limit is %d, want half as much again as the centre of 11", limit)
	}
	tried := int64(0)
	for law.probing && tried < 10_000 {
		tried += step()
	}
	if law.probing || tried > 500 || limit != 12 {
		t.Errorf("the probe is over: %v, after %d completions, and the limit %d; want 12 after a hundred or two", !law.probing, tried, limit)
	}
	if law.centre != before.centre || law.width != before.width || law.sxx != before.sxx || law.lately != before.lately ||
		law.phase.Completions <= before.phase.Completions || law.more != 0 {
		t.Errorf("a probe in vain changed what was learned: %+v\nbefore: %+v", law, before)
	}
}
