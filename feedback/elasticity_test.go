package feedback

import (
	"math"
	"testing"
	"time"

	"github.com/spillway-go/spillway/littles"
)

// finishPair finishes a phase with 11 in flight after one with 10, where each stays for 10 ms or a little longer, and
// returns by which factor that moves the centre. best is how long requests stay at best, in seconds.
func finishPair(elasticity, best float64) float64 {
	const n = 10_000 // completions of each phase: no doubt left
	length := 10 * time.Second
	e := Elasticity{centre: 10, width: narrow, bound: true, high: true, free: free{service: best}}
	e.last = point{n: math.Log(10), x: math.Log(1000), weight: n}
	e.phase = littles.Window{End: length, Area: 11 * length.Seconds(), Completions: n}
	e.useful = 1000 * math.Pow(1.1, elasticity) * length.Seconds()
	e.finish()
	return e.centre / 10
}

// A little more goodput for more in flight is worth having where nobody waits, and not where all do.
func TestTheSetPointFallsWithTheWait(t *testing.T) {
	for _, c := range []struct {
		elasticity, best float64
		up               bool
	}{
		{0.06, 0.010, true},   // hardly longer than at best
		{0.06, 0.004, false},  // twice as long and more
		{0.15, 0.004, true},   // so much is always worth it
		{-0.06, 0.010, false}, // and less goodput never
	} {
		if moved := finishPair(c.elasticity, c.best); moved > 1 != c.up {
			t.Errorf("an elasticity of %v where requests stay for 10 ms and %v s at best moves the centre by %.3f; want it up: %v",
				c.elasticity, c.best, moved, c.up)
		}
	}
}

// A limit far up on a plateau does not take the wait there for the best.
func TestTheBestStayIsRememberedWhileSaturated(t *testing.T) {
	bestAfter := func(sxy float64) float64 {
		e := Elasticity{bound: true, sxx: 1, sxy: sxy, free: free{service: 0.010}}
		for range 200 {
			e.free.learn(Sample{Window: littles.Window{Completions: 20, Sum: 20 * 0.030}, Work: 20}, e.bestMemory())
		}
		return e.free.service
	}
	if best := bestAfter(0); best > 0.012 {
		t.Errorf("10 ms at best are %.1f ms after 200 windows of 30 ms in which less in flight would do; want 12 at most", 1000*best)
	}
	if best := bestAfter(0.5); best < 0.018 {
		t.Errorf("10 ms at best are %.1f ms after 200 windows of 30 ms in which more in flight helps; want 18 at least", 1000*best)
	}
}
