package lab

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// Scenario is a load on a station.
type Scenario struct {
	Name     string
	Length   time.Duration // of the load
	Judged   time.Duration // figures count requests that come from here on
	Changed  time.Duration // of the last change of load or station, for the time to recover; 0: Judged
	Deadline time.Duration // of each call
	Mean     time.Duration // size of a request
	Sizes    func(*rand.Rand, time.Duration) time.Duration
	Rate     func(time.Duration) float64 // offered, requests per second, at an instant
	Station  func() Station
	Events   func(Station, time.Duration) // called every 10 ms: changes of the station; nil: none
	Knee     int                          // the limit that the static oracle is told
	Methods  []Method                     // in place of Mean and Rate; nil: a single one
	Tiers    []Tier                       // nil: all are of the default criticality, or what their methods say
	Tenants  []float64                    // shares of the load by tenant
	Apart    bool                         // each method is a tenant, in place of Tenants
	FailFast float64                      // share of calls that fails after 1 ms without using the station
	Tries    int                          // of each request, with exponential backoff; 0: one
	Patience time.Duration                // how long the ideal lets requests wait; 0: five sizes, at least 50 ms
	Lost     float64                      // share of the capacity that nobody can have
	Bar      float64                      // least share of the ideal for Spillway
}

// Tier is a share of the load of one criticality.
type Tier struct {
	Share       float64
	Criticality limiter.Criticality
}

func exponential(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(rng.ExpFloat64() * float64(mean))
}

// uniform is between half and one and a half of the mean.
func uniform(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration((0.5 + rng.Float64()) * float64(mean))
}

// bimodal is a fifth of the mean for nine of ten, and 8.2 times the mean for the tenth.
func bimodal(rng *rand.Rand, mean time.Duration) time.Duration {
	if rng.Float64() < 0.1 {
		return mean * 82 / 10
	}
	return mean / 5
}

func constant(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

// step is one rate before an instant and another after it.
func step(at time.Duration, before, after float64) func(time.Duration) float64 {
	return func(t time.Duration) float64 {
		if t < at {
			return before
		}
		return after
	}
}

func pool(workers int) func() Station { return func() Station { return NewPool(workers) } }

// once returns events that change the station at an instant.
func once(at time.Duration, change func(Station)) func(Station, time.Duration) {
	return func(s Station, now time.Duration) {
		if now >= at && now < at+tick {
			change(s)
		}
	}
}

// tick is how often events are looked at.
const tick = 10 * time.Millisecond

const ms = time.Millisecond

// base is a pool of ten workers of 10 ms under a constant load; most scenarios differ from it in little.
func base(name string, rate float64) Scenario {
	return Scenario{
		Name: name, Length: 20 * time.Second, Judged: 5 * time.Second, Deadline: 500 * ms,
		Mean: 10 * ms, Sizes: exponential, Rate: constant(rate), Station: pool(10), Knee: 10, Bar: 0.97,
	}
}

// with changes a scenario.
func (s Scenario) with(change func(*Scenario)) Scenario {
	change(&s)
	return s
}

// Scenarios returns all of them, in the order of the table.
func Scenarios() []Scenario {
	fourTiers := []Tier{{0.1, limiter.CriticalPlus}, {0.2, limiter.Critical}, {0.3, limiter.SheddablePlus}, {0.4, limiter.Sheddable}}
	return []Scenario{
		base("pool-2x", 2000),
		base("pool-10x", 10_000),
		base("usl8-3x", 2400).with(func(s *Scenario) {
			s.Station, s.Knee = func() Station { return NewShared(8, 0.02) }, 8
		}),
		base("usl64-3x", 19_200).with(func(s *Scenario) {
			s.Station, s.Knee = func() Station { return NewShared(64, 0.002) }, 64
			s.Length = 12 * time.Second
		}),
		base("halves", 900).with(func(s *Scenario) {
			s.Changed, s.Events = 10*time.Second, once(10*time.Second, func(st Station) { st.(*Pool).Resize(5) })
			s.Knee = 5
		}),
		base("doubles", 3000).with(func(s *Scenario) {
			s.Changed, s.Events = 10*time.Second, once(10*time.Second, func(st Station) { st.(*Pool).Resize(20) })
			s.Knee = 20
		}),
		delays("delay-10x", 10),
		delays("delay-20x", 20),
		base("bimodal-2x", 2000).with(func(s *Scenario) { s.Sizes = bimodal }),
		base("tight-deadline", 3000).with(func(s *Scenario) { s.Sizes, s.Deadline = uniform, 40*ms }),
		base("retries", 0).with(func(s *Scenario) {
			s.Tries = 4
			s.Rate = func(t time.Duration) float64 {
				if t >= 5*time.Second && t < 10*time.Second {
					return 3000
				}
				return 800
			}
			s.Judged, s.Length = 10*time.Second, 25*time.Second
		}),
		base("bursts", 0).with(func(s *Scenario) {
			s.Rate = func(t time.Duration) float64 {
				if t%(500*ms) < 50*ms {
					return 5000
				}
				return 0
			}
			s.Patience = 450 * ms
		}),
		base("underload", 700).with(func(s *Scenario) { s.Bar = 0.99 }),
		base("cold-start", 3000).with(func(s *Scenario) { s.Judged = 0 }),
		base("onset", 0).with(func(s *Scenario) {
			s.Rate, s.Length, s.Bar = step(5*time.Second, 500, 3000), 15*time.Second, 0.95
		}),
		base("tiers", 3000).with(func(s *Scenario) { s.Tiers = fourTiers }),
		base("flood", 0).with(func(s *Scenario) {
			s.Tiers = []Tier{{0.6 / 12.6, limiter.CriticalPlus}, {12 / 12.6, limiter.Sheddable}}
			s.Rate = constant(12_600)
			s.Length = 12 * time.Second
		}),
		base("on-off", 0).with(func(s *Scenario) {
			s.Bar = 0.95
			s.Rate = func(t time.Duration) float64 {
				if t%(4*time.Second) < 2*time.Second {
					return 3000
				}
				return 0
			}
			s.Length = 24 * time.Second
			s.Judged = 8 * time.Second
		}),
		base("mix-shift", 2000).with(func(s *Scenario) {
			s.Changed, s.Events = 10*time.Second, once(10*time.Second, func(st Station) { st.(*Pool).Slow(4) })
		}),
		base("fail-fast", 2000).with(func(s *Scenario) { s.FailFast = 1. / 3 }),
		base("lock", 300).with(func(s *Scenario) {
			s.Station, s.Knee, s.Length, s.Judged = pool(1), 1, 60*time.Second, 15*time.Second
		}),
		base("pool-2", 600).with(func(s *Scenario) {
			s.Station, s.Knee, s.Length, s.Judged = pool(2), 2, 60*time.Second, 15*time.Second
		}),
		base("pool-100", 30_000).with(func(s *Scenario) { s.Station, s.Knee, s.Length = pool(100), 100, 10*time.Second }),
		base("pool-1000", 300_000).with(func(s *Scenario) {
			s.Station, s.Knee, s.Length, s.Judged = pool(1000), 1000, 5*time.Second, 3*time.Second
		}),
		base("svc-1ms", 30_000).with(func(s *Scenario) { s.Mean, s.Length = 1*ms, 10*time.Second }),
		base("svc-100ms", 300).with(func(s *Scenario) {
			s.Mean, s.Deadline, s.Length, s.Judged = 100*ms, 2*time.Second, 120*time.Second, 30*time.Second
		}),
		base("svc-1s", 30).with(func(s *Scenario) {
			s.Mean, s.Deadline, s.Length, s.Judged = time.Second, 10*time.Second, 600*time.Second, 150*time.Second
		}),
		base("rate-20", 20).with(func(s *Scenario) {
			s.Mean, s.Deadline, s.Station, s.Knee = 100*ms, 2*time.Second, pool(1), 1
			s.Length, s.Judged = 600*time.Second, 150*time.Second
		}),
		base("rate-50k", 50_000).with(func(s *Scenario) { s.Station, s.Knee, s.Length = pool(250), 250, 9*time.Second }),
		base("drift", 3000).with(func(s *Scenario) { s.Length = 10 * time.Minute }),
		base("abuser", 3000).with(func(s *Scenario) {
			s.Tenants = []float64{0.9, 0.1 / 9, 0.1 / 9, 0.1 / 9, 0.1 / 9, 0.1 / 9, 0.1 / 9, 0.1 / 9, 0.1 / 9, 0.1 / 9}
		}),
		base("stalls", 1500).with(func(s *Scenario) {
			s.Events = func(st Station, now time.Duration) {
				if now%time.Second < tick {
					st.(*Pool).Freeze(50 * ms)
				}
			}
			s.Lost = 0.04 // of 50 ms a second, those at work use the first 10
		}),
		base("wanders", 3000).with(func(s *Scenario) {
			s.Length = time.Minute
			speed := wander(s.Length, 0.1, time.Second)
			s.Events = func(st Station, now time.Duration) { st.(*Pool).Slow(1 / speed[min(now, s.Length)/tick]) }
		}),
		base("tandem", 3000).with(func(s *Scenario) {
			s.Station = func() Station { return Tandem{NewPool(1), NewPool(1), NewPool(1)} }
			s.Mean, s.Knee, s.Bar = 3*ms, 24, 0.90
		}),
		lightAndHeavy("methods-50x", 500*ms),
		lightAndHeavy("methods-2s", 2*time.Second),
		lightAndHeavy("methods-apart", 500*ms).with(func(s *Scenario) {
			s.Apart, s.Judged, s.Length, s.Bar = true, 10*time.Second, 30*time.Second, 0.95
			for i, m := range s.Methods { // a calm hour first, in which to learn what they cost
				s.Methods[i].Rate = step(5*time.Second, m.Rate(0)*0.7/3, m.Rate(0))
			}
		}),
		shifting("methods-shift", 0.9, 0.1),
		impatient("impatient", 3000),
		waiting("watches", Method{Name: "Watch", Rate: step(time.Second, 40, 0), Mean: time.Minute}, constant(300)),
		waiting("long-polls", Method{Name: "Poll", Rate: constant(40. / 3), Mean: 3 * time.Second}, constant(300)),
		waiting("watched-3x", Method{Name: "Watch", Rate: step(5*time.Second, 20, 0), Mean: time.Minute},
			step(15*time.Second, 700, 3000)),
		guaranteed("guaranteed", constant(250)),
		guaranteed("guaranteed-back", step(8*time.Second, 0, 250)).with(func(s *Scenario) { s.Judged = 8 * time.Second }),
	}
}

// wander returns a speed for each tick, as of a machine that others use too: 1 in the median, lognormal with a standard
// deviation of its ln, whose correlation falls by e within memory. It is the same in each run, whatever the seed.
func wander(length time.Duration, deviation float64, memory time.Duration) []float64 {
	rng := rand.New(rand.NewPCG(1, 0))
	kept := math.Exp(-tick.Seconds() / memory.Seconds())
	speed := make([]float64, length/tick+1)
	ln := deviation * rng.NormFloat64()
	for i := range speed {
		speed[i] = math.Exp(ln)
		ln = kept*ln + math.Sqrt(1-kept*kept)*deviation*rng.NormFloat64()
	}
	return speed
}

// delays is a callee that becomes so many times slower, with room for all.
func delays(name string, times int) Scenario {
	return base(name, 1000).with(func(s *Scenario) {
		s.Station, s.Knee = func() Station { return NewDelay(10 * ms) }, 1000
		s.Changed, s.Events = 8*time.Second, once(8*time.Second, func(st Station) { st.(*Delay).Slow(times) })
	})
}
