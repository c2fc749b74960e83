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
	if mean > 680 {
		t.Errorf("it takes %d completions in the mean until a service that doubles is found, want 680 at most", mean)
	}
}

// quiet returns a law that has rested for long in front of ten workers, at a limit of 12.
func quiet() Elasticity {
	at := point{n: math.Log(12), x: math.Log(1000), weight: 10_000}
	return Elasticity{
		centre: 11, width: narrowest, bound: true, told: true, high: true,
		last: at, lately: [2]point{at, at}, sxx: 10, sxy: 0.5, free: free{service: 0.010},
		noise: noise{estimate: 1, stays: 1},
	}
}

// A suspicion that is not confirmed costs a probe, one for each, and nothing of what was learned: ten workers that became
// faster by a fifth do as much more at any limit.
func TestAProbeInVainForgetsNothing(t *testing.T) {
	law := quiet()
	plant := scene{workers: 10, service: 8300 * time.Microsecond, offered: 3000}
	limit, now := 12, time.Duration(0)
	step := func() (completions int64) {
		s := plant.window(now, limit)
		limit, now = law.Update(s), s.End
		return s.Completions
	}
	var before Elasticity
	suspicion := int64(0)
	for !law.probing && suspicion < 10_000 {
		before = law
		suspicion += step()
	}
	if !law.probing || limit < 16 {
		t.Fatalf("after %d completions at a faster pace the limit is %d, want a probe of half as much again as the centre of 11", suspicion, limit)
	}
	if law.resume <= now {
		t.Error("the probe is judged by what was in flight before it")
	}
	tried := int64(0)
	for law.probing && tried < 10_000 {
		tried += step()
	}
	if law.probing || tried > 500 || limit != 12 {
		t.Errorf("the probe is over: %v, after %d completions, and the limit %d; want 12 after a hundred or two", !law.probing, tried, limit)
	}
	if law.resume <= now {
		t.Error("the phase that goes on is judged by what the probe let in")
	}
	if law.centre != before.centre || law.width != before.width || law.sxx != before.sxx || law.lately != before.lately ||
		law.phase.Completions < before.phase.Completions || law.more < suspected {
		t.Errorf("a probe in vain changed what was learned: %+v\nbefore: %+v", law, before)
	}
	for range 3 {
		if step(); law.probing {
			t.Error("the same suspicion leads to a second probe")
		}
	}
}

// probing returns a law that has just begun a probe, and a window of ten workers under its limit of 18.
func probing() (Elasticity, Sample) {
	plant := scene{workers: 10, service: 10 * time.Millisecond, offered: 3000}
	law := quiet()
	law.run, law.more, law.probing = stretch{}.and(plant.window(0, 12).weighed()), suspected+1, true
	return law, plant.window(time.Second, 18)
}

// Whatever happens meanwhile, a probe ends, and costs nothing of what was learned.
func TestAProbeEnds(t *testing.T) {
	for name, change := range map[string]func(*Sample){
		"in a load that does not fill it": func(s *Sample) {
			s.Area, s.Waited, s.Refused = 9.5*s.Length().Seconds(), 1, 0
		},
		"where nothing of use ends": func(s *Sample) { s.Good = 0 },
		"where answers come late":   func(s *Sample) { s.Late = s.Completions },
	} {
		t.Run(name, func(t *testing.T) {
			law, s := probing()
			change(&s)
			was := law.centre
			if limit := law.Update(s); law.probing || limit != 12 {
				t.Errorf("the limit is %d, and the probe over: %v; want 12 and true", limit, !law.probing)
			}
			if law.centre != was || law.sxx == 0 {
				t.Errorf("the centre is %.1f in place of %.1f, the evidence %v", law.centre, was, law.sxx)
			}
		})
	}
}

// What a probe finds is where the search goes on, with nothing of what was learned before, but no further up than was tried.
func TestAFindGoesOnFromThere(t *testing.T) {
	for inForce, want := range map[int]float64{18: 11 * math.Exp(above*wide), 14: 14} {
		law, _ := probing()
		plant := scene{workers: 20, service: 10 * time.Millisecond, offered: 3000}
		for now := time.Second; law.probing && now < 10*time.Second; {
			s := plant.window(now, inForce)
			law.Update(s)
			now = s.End
		}
		if law.probing || math.Abs(law.centre-want) > 1e-3 || law.width != wide || law.sxx != 0 || law.changes != (changes{}) || !law.high {
			t.Errorf("with %d in force the centre is %.2f, want %.2f, a wide dither and neither evidence nor odds: %+v", inForce, law.centre, want, law)
		}
	}
}

// A probe is a higher limit than the dither has, and not needed where that is wide.
func TestWhereNoProbeIsWorthIt(t *testing.T) {
	law := quiet()
	law.more = suspected + 1
	if !law.suspects() {
		t.Error("a narrow dither at 11 is worth no probe")
	}
	if law.centre = 1.2; law.suspects() {
		t.Error("at a centre of 1.2 the dither has a limit of 2, and so would the probe")
	}
	if law.centre, law.width = 11, wide; law.suspects() {
		t.Error("a wide dither is worth a probe")
	}
}

// What phases differ by on a machine that others use too is learned, and what chance or their limits explain is not part of
// it: a change has to be more than that.
func TestWander(t *testing.T) {
	const n = 10_000
	phases := func(differ func(i int) (dn, dx float64), elasticity float64) float64 {
		var w wander
		var lately point
		for i := range 40 {
			dn, dx := differ(i)
			now := point{n: math.Log(10) + dn, x: math.Log(1000) + dx, weight: n}
			w.learn(lately, now, elasticity, 1)
			lately = lately.with(now)
		}
		return math.Sqrt(w.variance())
	}
	sign := func(i int) float64 { return float64(1 - i%2*2) }
	for name, c := range map[string]struct {
		got, least, most float64
	}{
		"a tenth faster and slower":     {phases(func(i int) (float64, float64) { return 0, 0.1 * sign(i) }, 0), 0.09, 0.13},
		"chance":                        {phases(func(i int) (float64, float64) { return 0, 0.01 * sign(i) }, 0), 0, 0.01},
		"limits below the knee":         {phases(func(i int) (float64, float64) { return 0.1 * sign(i), 0.1 * sign(i) }, 1), 0, 0.01},
		"half of all phases in a stall": {phases(func(i int) (float64, float64) { return 0, 3 * sign(i) }, 0), 0.1, shift},
		"an elasticity that cannot be":  {phases(func(i int) (float64, float64) { return 0.1 * sign(i), 0 }, -50), 0, 0.01},
		"one phase":                     {phases(func(i int) (float64, float64) { return 0, 0 }, 0), 0, 0.01},
	} {
		if !(c.got >= c.least && c.got <= c.most) {
			t.Errorf("%s: a wander of %.3f, want %.3f to %.3f", name, c.got, c.least, c.most)
		}
	}
}

// findsChange reports whether the law takes ten workers that are faster by so much, in logs, for another service within two
// seconds.
func findsChange(law Elasticity, faster float64) bool {
	plant := scene{workers: 10, service: time.Duration(math.Exp(-faster) * float64(10*time.Millisecond)), offered: 3000}
	for now := time.Duration(0); now < 2*time.Second; {
		s := plant.window(now, 12).weighed()
		now = s.End
		if law.changed(s) {
			return true
		}
	}
	return false
}

// Who knows that a machine wanders does not take each of its moods for another service, nor does who hardly knows it.
func TestAMoodIsNoChange(t *testing.T) {
	seventh := math.Log(10 / 8.7)
	for _, faster := range []float64{seventh, -seventh} {
		law := quiet()
		if !findsChange(law, faster) {
			t.Errorf("a service that is faster by %.3f than ever is no change", faster)
		}
		law.wander = wander{squares: 0.01 * 1000, weight: 1000}
		if findsChange(law, faster) {
			t.Errorf("faster by %.3f is a change on a machine that wanders by a tenth", faster)
		}
		law = quiet()
		law.lately[0].weight, law.lately[1].weight = 100, 100
		if findsChange(law, faster) {
			t.Errorf("faster by %.3f is a change where what was lately is known to a tenth", faster)
		}
	}
}

// How much a machine wanders is learned from the phases of the law itself.
func TestTheWanderIsLearned(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var law Elasticity
	limit, speed := 20, 0.0
	for now := time.Duration(0); now < 2*time.Minute; {
		s := noisyWindow(rng, now, limit, 10)
		length := float64(s.Length())
		kept := math.Exp(-length / float64(time.Second))
		speed = kept*speed + math.Sqrt(1-kept*kept)*0.2*rng.NormFloat64()
		s.End = now + time.Duration(math.Exp(speed)*length)
		limit, now = law.Update(s), s.End
	}
	if got := math.Sqrt(law.wander.variance()); !(got > 0.03) {
		t.Errorf("a wander of %.3f on a machine that wanders by a fifth, want .03 and more", got)
	}
}

// A suspicion rests on the windows that raised it, and on none before.
func TestARunEndsWithItsSuspicion(t *testing.T) {
	law := quiet()
	now := time.Duration(0)
	see := func(service time.Duration) {
		s := scene{workers: 10, service: service, offered: 3000}.window(now, 12).weighed()
		law.changed(s)
		now = s.End
	}
	for range 10 {
		see(8700 * time.Microsecond)
	}
	if law.more == 0 || law.run.Completions == 0 {
		t.Fatalf("ten windows of more goodput than lately give odds of %.1f and a run of %d", law.more, law.run.Completions)
	}
	law.refuted = true
	for range 100 {
		see(10 * time.Millisecond)
	}
	if law.more != 0 || law.run != (stretch{}) || law.refuted {
		t.Errorf("after a hundred as ever: odds of %.1f, a run of %d, refuted: %v; want none", law.more, law.run.Completions, law.refuted)
	}
}
