package feedback

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-go/spillway/littles"
)

// finishPair finishes a phase with 11 in flight after one with 10, where each stays for 10 ms or a little longer, and
// returns by which factor that moves the centre. best is how long requests stay at best, in seconds.
func finishPair(elasticity, best float64) float64 {
	const n = 10_000 // completions of each phase: no doubt left
	length := 10 * time.Second
	e := Elasticity{centre: 10, width: narrowest, bound: true, high: true, free: free{service: best}}
	e.last = point{n: math.Log(10), x: math.Log(1000), weight: n}
	e.phase = stretch{
		littles.Window{End: length, Area: 11 * length.Seconds(), Completions: n},
		1000 * math.Pow(1.1, elasticity) * length.Seconds(),
	}
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

// freely returns a window of a second in which so many of 10 ms ended, while so many besides only waited.
func freely(second, rate, waiting, limit int) Sample {
	start := time.Duration(second) * time.Second
	flow := float64(rate) * .010
	return Sample{
		Limit: limit, Offered: int64(rate),
		Window: littles.Window{
			Start: start, End: start + time.Second, Area: flow + float64(waiting), Sum: flow, Squares: flow * .010,
			Arrivals: int64(rate), Completions: int64(rate), Good: int64(rate),
		},
	}
}

// What only waits, such as a long poll, has room beside the head-room of what ends, as long as it is there.
func TestWhatWaitsHasRoomOfItsOwn(t *testing.T) {
	var e Elasticity
	limit := 20
	for second := range 100 {
		limit = e.Update(freely(second, 300, 0, limit))
	}
	if limit < 20 || limit > 30 {
		t.Fatalf("limit %d with three in flight, want about 24", limit)
	}
	limit = e.Update(freely(100, 300, 15, limit))
	if limit < 20+12 {
		t.Errorf("limit %d with 15 that wait, want room for those and those that end", limit)
	}
	limit = e.Update(freely(101, 300, 1000, limit))
	if limit < 1000+12 || limit > 1000+30 {
		t.Errorf("limit %d with a thousand that wait, want room for those and those that end", limit)
	}
	for second := range 100 {
		limit = e.Update(freely(102+second, 300, 0, limit))
	}
	if limit < 20 || limit > 30 {
		t.Errorf("limit %d when they have gone, want about 24", limit)
	}
}

// Of the knee of a service what ends says nothing while most of what is in flight does not end.
func TestWhatWaitsIsNoKnee(t *testing.T) {
	for waiting, want := range map[int]int{0: 10, 40: 50} {
		var e Elasticity
		limit := 100
		for second := range 20 {
			limit = e.Update(freely(second, 300, 0, limit))
		}
		e.centre = 60
		for second := range 4 {
			s := freely(20+second, 600, waiting, 50)
			s.Area, s.Waited, s.Asked, s.Work, s.Useful = max(s.Area, 50), 100, 1000, 600, 600
			if waiting == 0 {
				s.Sum = s.Area // they wait for each other in the service, and end
			}
			limit = e.Update(s)
		}
		if waiting == 0 && limit > 2*want || waiting > 0 && limit < want {
			t.Errorf("limit %d with %d that wait, want about %d", limit, waiting, want)
		}
	}
}

// In front of a pool that is full all wait, and about as long as each other, while the work differs as ever: that tells
// the wait from the work, though nobody has seen the service at its best.
func TestStaysThatHardlyDifferAreMostlyWaiting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	// waiting returns what is learned, in the mean, of 1,000 windows of 16 in which work of so many gamma stages waits so long besides.
	// The goodput of a window varies as the work does.
	waiting := func(stages int, wait float64) float64 {
		var n noise
		mean := 0.0
		for range 1000 {
			s := Sample{Limit: 10, Waited: 1, Window: littles.Window{Completions: MinCompletions, Good: MinCompletions}}
			worked := 0.0
			for range MinCompletions {
				work := 0.0
				for range stages {
					work += rng.ExpFloat64() / float64(stages)
				}
				worked += work
				s.Sum += wait + work
				s.Squares += (wait + work) * (wait + work)
			}
			s.End = time.Duration(worked * float64(time.Second))
			n.learn(s.weighed())
			mean += n.waiting() / 1000
		}
		return math.Exp(mean)
	}
	for _, c := range []struct {
		stages            int
		wait, least, most float64
	}{
		{1, 0, 1, 1.1},    // exponential work, and nobody waits
		{1, 1, 1.5, 2},    // twice as long: a part counts as chance
		{1, 4, 2.2, 5},    // five times as long
		{100, 0, 1, 1.05}, // like clockwork
		{100, 4, 1, 1.05}, // and there nothing can be told
	} {
		if got := waiting(c.stages, c.wait); got < c.least || got > c.most {
			t.Errorf("work of %d stages that waits for %v times as long besides: it stays for %.2f times as long, want %v to %v",
				c.stages, c.wait, got, c.least, c.most)
		}
	}
}

// A dither that costs little stays wider: where all wait the narrowest would need minutes to lead anywhere, and where work
// is noisy a narrow one would too.
func TestTheDitherStaysWiderWhileAllWait(t *testing.T) {
	widthAfter := func(scv, stays, elasticity float64) float64 {
		const n = 130
		e := Elasticity{centre: 20, width: wide, bound: true, high: true, free: free{service: 0.040}}
		e.noise = noise{estimate: scv, stays: stays}
		for range 20 { // pairs just above the set-point
			e.last = point{n: math.Log(16), x: math.Log(1000), weight: n}
			e.phase = stretch{littles.Window{End: time.Second, Area: 32, Completions: n}, 1000 * math.Pow(2, elasticity)}
			e.high = true
			e.finish()
		}
		return e.width
	}
	if got := widthAfter(1, 1, 0.01); got != narrowest {
		t.Errorf("where nobody waits the width comes to %.2f, want %v", got, narrowest)
	}
	if got := widthAfter(1, 0.2, setPoint+0.01); got != narrow {
		t.Errorf("where all stay for twice as long as their work takes the width comes to %.2f, want %v", got, narrow)
	}
	if got := widthAfter(4, 0.8, setPoint+0.01); got != 2*narrow {
		t.Errorf("and where work is noisier by four it comes to %.2f, want %v", got, 2*narrow)
	}
	if got := widthAfter(20, 1, setPoint+0.01); got != wide {
		t.Errorf("and where it is by twenty it stays at %.2f, want %v", got, wide)
	}
}

// Nobody knows whether the limit to start from is too low or too high. In overload from the start nothing is risked above it
// before it has been seen that less in flight gives less goodput.
func TestOverloadFromTheStartIsNotMetWithAHigherLimit(t *testing.T) {
	overload := scene{workers: 10, service: 10 * time.Millisecond, offered: 3000}
	for _, start := range []int{2, 20, 1000} {
		var law Elasticity
		limit, lowest := start, start
		for now := time.Duration(0); lowest == start; {
			sample := overload.window(now, limit)
			limit, now = law.Update(sample), sample.End
			if lowest = min(lowest, limit); limit > start {
				t.Fatalf("from %d the limit went to %d before any lower one was tried", start, limit)
			}
		}
	}
}

// What something else allows is used where all of it is needed, and the law still sees when the service becomes weaker.
func TestALimitThatIsHeldDownComesDown(t *testing.T) {
	const most = 100
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var law Elasticity
		limit, now := 20, time.Duration(0)
		after := func(completions int64, workers float64) (mean float64) {
			windows, seen := 0, int64(0)
			for ; seen < completions; windows++ {
				s := noisyWindow(rng, now, limit, workers)
				limit, now = min(most, law.Update(s)), s.End
				seen += s.Completions
				mean += float64(limit)
			}
			return mean / float64(windows)
		}
		after(20_000, 1000)
		if mean := after(100_000, 1000); mean < 0.975*most {
			t.Errorf("seed %d: a limit of %.1f in the mean where %d are allowed and more would do", seed, mean, most)
		}
		if after(60_000, 10); law.centre > 30 {
			t.Errorf("seed %d: a limit of %.0f for ten workers, where %d are allowed", seed, law.centre, most)
		}
	}
}

// What the law wants while nothing binds is no place to begin from if something else allows less.
func TestAnOverloadBeginsFromTheLimitInForce(t *testing.T) {
	law := Elasticity{centre: 400, width: wide, full: 1, free: free{goodput: 1000, service: 0.010}}
	law.Update(scene{workers: 100, service: 10 * time.Millisecond, offered: 20_000}.window(0, 100))
	if law.centre > 100 {
		t.Errorf("with 100 in force overload begins from %.0f", law.centre)
	}
}
