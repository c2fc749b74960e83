package lab

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func scenario(t *testing.T, name string) Scenario {
	t.Helper()
	return chooseScenarios(t, name)[0]
}

func contestant(t *testing.T, name string) Contestant {
	t.Helper()
	return chooseContestants(t, name)[0]
}

// Spillway, with nothing set, keeps its bars. A share is one throw of the dice: the same law differs by .015 from seed
// to seed, and any change of it is another throw. So the bar is for the mean of three.
func TestBars(t *testing.T) {
	for _, name := range []string{"pool-2x", "halves", "delay-10x", "tight-deadline", "retries", "bursts", "underload",
		"cold-start", "onset", "on-off", "lock", "svc-100ms", "stalls", "doubles", "mix-shift", "fail-fast", "pool-2", "tandem", "wanders"} {
		t.Run(name, func(t *testing.T) {
			s := scenario(t, name)
			var shares []float64
			for seed := uint64(1); seed <= 3; seed++ {
				f := Run(t, s, contestant(t, "spillway"), seed, Direct)
				shares = append(shares, f.ShareOfIdeal)
				if f.RefusalP99Ms > max(10, float64(s.Mean)/float64(ms)) {
					t.Errorf("seed %d: p99 until a NO %.1f ms, want 10 ms or one service time", seed, f.RefusalP99Ms)
				}
				if f.InVain > 0.05 {
					t.Errorf("seed %d: %.3f of the work done in vain, want 0.05 at most", seed, f.InVain)
				}
				if name == "underload" && f.Refused > 0 {
					t.Errorf("seed %d: %d refused in underload, want none", seed, f.Refused)
				}
			}
			if mean := sum(shares) / float64(len(shares)); mean < s.Bar || slices.Min(shares) < s.Bar-0.03 {
				t.Errorf("shares of the ideal %.3f, want a mean of %.3f and none below %.3f", shares, s.Bar, s.Bar-0.03)
			}
		})
	}
}

// Goodput alone would let a limit run away: far above the knee it is as high, and all wait. Who knows the knee, with the same
// line in front, has half of the median at least.
func TestMedianBar(t *testing.T) {
	for _, name := range []string{"pool-2x", "cold-start", "svc-100ms", "wanders"} {
		t.Run(name, func(t *testing.T) {
			s := scenario(t, name)
			p50 := func(contestantName string) (mean float64) {
				for seed := uint64(1); seed <= 3; seed++ {
					mean += Run(t, s, contestant(t, contestantName), seed, Direct).P50Ms / 3
				}
				return mean
			}
			if law, told := p50("spillway"), p50("told@10"); law > 2*told {
				t.Errorf("p50 %.1f ms, and %.1f with a limit of 10; want twice that at most", law, told)
			} else {
				t.Logf("p50 %.1f ms, and %.1f with a limit of 10", law, told)
			}
		})
	}
}

// What the law makes of the noise of the work holds for work without noise, too: where every request takes the same time,
// how little stays differ says nothing of a wait.
func TestClockworkBar(t *testing.T) {
	for _, name := range []string{"cold-start", "usl8-3x", "doubles"} {
		t.Run(name, func(t *testing.T) {
			s := scenario(t, name).with(func(s *Scenario) {
				s.Sizes = func(_ *rand.Rand, mean time.Duration) time.Duration { return mean }
			})
			var shares []float64
			for seed := uint64(1); seed <= 3; seed++ {
				shares = append(shares, Run(t, s, contestant(t, "spillway"), seed, Direct).ShareOfIdeal)
			}
			if mean := sum(shares) / float64(len(shares)); mean < s.Bar {
				t.Errorf("shares of the ideal %.3f, want a mean of %.3f", shares, s.Bar)
			}
		})
	}
}

// The more critical are served first: those that fit are hardly ever refused, and the total does not suffer.
func TestTiersBar(t *testing.T) {
	f := Run(t, scenario(t, "tiers"), contestant(t, "spillway"), 1, Direct)
	wantTiers(t, f)
	if f.ShareOfIdeal < 0.97 {
		t.Errorf("share of the ideal %.3f, want 0.97", f.ShareOfIdeal)
	}
}

// wantTiers judges success by tier in the scenario of that name, where the two highest fit.
func wantTiers(t *testing.T, f Figures) {
	t.Helper()
	got := f.SuccessByTier
	if got[0] < 0.999 || got[1] < 0.99 || got[3] > 0.02 {
		t.Errorf("success by tier %.3f, want >= .999, >= .99, the rest, about 0", got)
	}
	for i := range len(got) - 1 {
		if got[i] < got[i+1] {
			t.Errorf("inversion: %.3f", got)
		}
	}
}

// One tenant of ten that sends nine tenths of a threefold load costs the other nine nothing, and the whole little.
func TestTenantsBar(t *testing.T) {
	f := Run(t, scenario(t, "abuser"), contestant(t, "spillway"), 1, Direct)
	for tenant, got := range f.ByTenant[1:] {
		if got < 0.98 {
			t.Errorf("tenant %d, one of the modest: success %.3f, want 0.98", tenant+1, got)
		}
	}
	if f.ShareOfIdeal < 0.97 {
		t.Errorf("share of the ideal %.3f, want 0.97", f.ShareOfIdeal)
	}
}

// Where some work takes longer than its deadline however little there is to do, refusing more of it helps nobody.
func TestShortDeadlinesAreNoOverload(t *testing.T) {
	s := scenario(t, "underload").with(func(s *Scenario) { s.Deadline, s.Rate = 40*ms, constant(500) })
	f := Run(t, s, contestant(t, "spillway"), 1, Direct)
	if most := int(0.01 * f.OfferedPerS * (s.Length - s.Judged).Seconds()); f.Refused > most {
		t.Errorf("%d refused at half of the capacity, want at most %d", f.Refused, most)
	}
}

// A lab in which bad controls do well would prove nothing.
func TestMutantsFail(t *testing.T) {
	for mutant, in := range map[string]string{"frozen": "usl8-3x", "always-minimum": "pool-2x", "always-maximum": "tight-deadline"} {
		s := scenario(t, in)
		f := Run(t, s, contestant(t, mutant), 1, Direct)
		if f.ShareOfIdeal > s.Bar-0.1 {
			t.Errorf("%s reaches %.3f of the ideal in %s, with a bar of %.2f: the scenario is too easy", mutant, f.ShareOfIdeal, in, s.Bar)
		}
	}
}

// short is a scenario in the shortest form that still says something.
func short(s Scenario) Scenario {
	s.Length, s.Judged = 6*time.Second, 2*time.Second
	return s
}

// Whatever order the scheduler takes goroutines in, and the race detector shuffles them, one seed gives one result.
func TestSameSeedSameFigures(t *testing.T) {
	for name, length := range map[string]time.Duration{
		"pool-2x":  6 * time.Second,
		"usl64-3x": 3 * time.Second,
		"retries":  12 * time.Second,
		"rate-50k": 2 * time.Second,

		"methods-apart": 3 * time.Second,
		"guaranteed":    2 * time.Second,
	} {
		s := scenario(t, name)
		s.Length, s.Judged = length, length/2
		a := Run(t, s, contestant(t, "spillway"), 3, Direct)
		b := Run(t, s, contestant(t, "spillway"), 3, Direct)
		if !reflect.DeepEqual(a, b) {
			a.Trace, b.Trace = nil, nil // too long to read
			t.Errorf("two runs of one seed:\n%+v\n%+v", a, b)
		}
	}
}

// Calls through the whole of grpc-go come to the same as calls of the interceptor. When this was written they came to
// the same to the digit.
func TestModesAgree(t *testing.T) {
	for _, s := range []Scenario{
		short(scenario(t, "pool-2x")),
		scenario(t, "pool-10x").with(func(s *Scenario) { s.Length, s.Judged = 3*time.Second, time.Second }),
		short(scenario(t, "tight-deadline")),
		short(scenario(t, "tiers")),
		scenario(t, "delay-10x").with(func(s *Scenario) { s.Length = 12 * time.Second }), // it changes at 8 s
		scenario(t, "methods-apart").with(func(s *Scenario) { s.Length, s.Judged = 2*time.Second, time.Second }),
	} {
		t.Run(s.Name, func(t *testing.T) {
			direct := Run(t, s, contestant(t, "spillway"), 1, Direct)
			grpc := Run(t, s, contestant(t, "spillway"), 1, Grpc)
			if d := math.Abs(direct.ShareOfIdeal - grpc.ShareOfIdeal); d > 0.03 {
				t.Errorf("share of the ideal %.3f called directly, %.3f over gRPC; want them within 0.03", direct.ShareOfIdeal, grpc.ShareOfIdeal)
			}
			for i, of := range direct.SuccessByTier {
				if d := math.Abs(of - grpc.SuccessByTier[i]); d > 0.03 {
					t.Errorf("success of tier %d %.3f called directly, %.3f over gRPC; want them within 0.03", i, of, grpc.SuccessByTier[i])
				}
			}
			for i, of := range direct.ByMethod {
				if d := math.Abs(of.Success - grpc.ByMethod[i].Success); d > 0.03 {
					t.Errorf("success of %s %.3f called directly, %.3f over gRPC; want them within 0.03", of.Name, of.Success, grpc.ByMethod[i].Success)
				}
			}
		})
	}
}

// The stations do what their formulae say.
func TestStations(t *testing.T) {
	s := short(scenario(t, "pool-2x"))
	s.Sizes = uniform
	for name, c := range map[string]struct {
		station func() Station
		limit   string
		want    float64 // goodput per second
	}{
		"pool":  {pool(10), "oracle", 1000},
		"cores": {func() Station { return NewShared(10, 0.1) }, "oracle", 1000},
	} {
		s.Station = c.station
		if f := Run(t, s, contestant(t, c.limit), 1, Direct); math.Abs(f.GoodputPerS-c.want) > 0.12*c.want || f.GoodputPerS > 1.02*c.want {
			t.Errorf("%s at its knee: %.0f/s, want somewhat less than %.0f", name, f.GoodputPerS, c.want)
		}
	}
}
