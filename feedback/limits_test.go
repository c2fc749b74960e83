package feedback

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/platinummonkey/go-concurrency-limits/limit"

	"github.com/spillway-go/spillway/littles"
)

var _ core.Limit = (*Limit)(nil)

// fakeLimit is a core.Limit that remembers its samples and says what it is told to.
type fakeLimit struct {
	estimate int
	samples  int
	rtt      int64
	dropped  bool
}

func (f *fakeLimit) EstimatedLimit() int                     { return f.estimate }
func (f *fakeLimit) NotifyOnChange(core.LimitChangeListener) {}
func (f *fakeLimit) OnSample(_, rtt int64, _ int, dropped bool) {
	f.samples++
	f.rtt, f.dropped = rtt, dropped
}

// window has n in flight all the time and count completions in a second.
func window(n float64, count int64) Sample {
	return Sample{Limit: 10, Window: littles.Window{End: time.Second, Area: n, Completions: count, Good: count, Sum: n}}
}

func TestFromLimitPassesOneSampleAWindow(t *testing.T) {
	f := &fakeLimit{estimate: 7}
	s := window(5, 100)
	if got := FromLimit(f).Update(s); got != 7 || f.samples != 1 || f.rtt != int64(50*time.Millisecond) || f.dropped {
		t.Errorf("limit %d after %d samples of %v, dropped %v; want 7 after one of 50ms", got, f.samples, time.Duration(f.rtt), f.dropped)
	}
	s.Late = 1
	if FromLimit(f).Update(s); !f.dropped {
		t.Error("lateness is not passed on as a drop")
	}
}

func TestFromLimitSurvivesALimitThatLosesItself(t *testing.T) {
	for _, estimate := range []int{0, -1, math.MinInt, math.MaxInt} {
		if got := FromLimit(&fakeLimit{estimate: estimate}).Update(window(5, 100)); got != 10 {
			t.Errorf("estimate %d: limit %d, want the 10 in force", estimate, got)
		}
	}
	f := &fakeLimit{estimate: 7}
	if got := FromLimit(f).Update(window(5, 0)); got != 10 || f.samples != 0 {
		t.Errorf("a window without completions: limit %d, %d samples; want 10 and none", got, f.samples)
	}
	// The real ones, through windows in which all was dropped.
	for _, l := range []core.Limit{
		limit.NewDefaultVegasLimit("test", nil, nil),
		limit.NewDefaultGradient2Limit("test", nil, nil),
		limit.NewDefaultAIMDLimit("test", nil),
	} {
		c := FromLimit(l)
		for i := range 1000 {
			s := window(10, int64(i%3)*50)
			s.Late, s.Good = s.Completions, 0
			if got := c.Update(s); got < 1 || got > 1_000_000 {
				t.Fatalf("%T: limit %d", l, got)
			}
		}
	}
}

func TestLimitGathersWindows(t *testing.T) {
	var seen []Sample
	l := NewLimit(controllerFunc(func(s Sample) int { seen = append(seen, s); return s.Limit + 1 }), 5)
	var told []int
	l.NotifyOnChange(func(n int) { told = append(told, n) })
	for i := range 100 { // 5 in flight, 10 ms each: one ends every 2 ms
		l.OnSample(int64(i)*2e6, 10e6, 5, i%10 == 0)
	}
	if len(seen) != 100/MinCompletions || l.EstimatedLimit() != 5+len(seen) || len(told) != len(seen) {
		t.Fatalf("%d windows, limit %d, told %v; want a window each %d", len(seen), l.EstimatedLimit(), told, MinCompletions)
	}
	if !seen[0].Bound() || seen[1].Bound() {
		t.Errorf("5 in flight bind a limit of 5: %v, and one of 6: %v", seen[0].Bound(), seen[1].Bound())
	}
	s := seen[1]
	if math.Abs(s.Concurrency()-5) > 0.01 || s.Latency().Round(time.Millisecond) != 10*time.Millisecond || s.Late == 0 || s.Limit != 6 {
		t.Errorf("second window %+v", s)
	}
}

type controllerFunc func(Sample) int

func (f controllerFunc) Update(s Sample) int { return f(s) }

func TestLimitIgnoresAnAbsurdController(t *testing.T) {
	l := NewLimit(controllerFunc(func(Sample) int { return -3 }), 0)
	for i := range 100 {
		l.OnSample(int64(i)*1e6, 1e6, 1, false)
	}
	if got := l.EstimatedLimit(); got != 1 {
		t.Errorf("limit %d, want 1", got)
	}
}

// Its users call it from many goroutines.
func TestLimitIsSafeForConcurrentUse(t *testing.T) {
	l := NewLimit(&Elasticity{}, 20)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 1000 {
				l.OnSample(rng.Int64(), rng.Int64N(1e9), rng.IntN(100), rng.IntN(2) == 0)
				if l.EstimatedLimit() < 1 {
					t.Error("limit below 1")
				}
			}
		})
	}
	all.Wait()
}

func TestFixed(t *testing.T) {
	if got := Fixed(7).Update(window(100, 1)); got != 7 {
		t.Errorf("limit %d, want 7", got)
	}
}

func TestRound(t *testing.T) {
	for limit, want := range map[float64]int{math.NaN(): 10, math.Inf(1): math.MaxInt32, math.Inf(-1): 1, 0.2: 1, 7.6: 8} {
		if got := round(limit, 10); got != want {
			t.Errorf("round(%v) = %d, want %d", limit, got, want)
		}
	}
}

// Whatever windows it is shown, the law stays finite and within bounds, and does not panic.
func FuzzElasticity(f *testing.F) {
	f.Add(uint64(1), 1.0, false)
	f.Add(uint64(2), 1e12, false)
	f.Add(uint64(3), 1e-12, false)
	f.Add(uint64(4), 1.0, true)
	f.Add(uint64(5), 1e-12, true)
	f.Fuzz(func(t *testing.T, seed uint64, scale float64, inProbe bool) {
		if math.IsNaN(scale) || math.IsInf(scale, 0) {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 5))
		var law Elasticity
		if inProbe {
			law, _ = probing()
		}
		limit, now := 20, time.Duration(0)
		for range 200 {
			length := time.Duration(rng.ExpFloat64() * 1e7 * math.Abs(scale))
			if length < 0 || now+length < now {
				return // beyond what a clock can say
			}
			completions := rng.Int64N(100)
			s := Sample{Limit: limit, Peak: rng.IntN(2 * limit), Offered: rng.Int64N(1000), Refused: rng.Int64N(3), Waited: rng.Int64N(3)}
			s.Window = littles.Window{Start: now, End: now + length, Area: rng.Float64() * scale, Arrivals: rng.Int64N(100),
				Completions: completions, Good: rng.Int64N(completions + 1), Sum: rng.Float64() * scale, Squares: rng.Float64() * scale}
			s.Late = rng.Int64N(completions + 1)
			now += length
			limit = law.Update(s)
			if limit < 1 {
				t.Fatalf("limit %d", limit)
			}
			for what, x := range map[string]float64{"centre": law.centre, "width": law.width, "more": law.more, "less": law.less,
				"gives": law.gives, "wander": law.wander.variance(), "noise": law.noise.scv(), "tardy": law.tardy} {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Fatalf("%s: %v after %+v", what, x, s)
				}
			}
		}
	})
}
