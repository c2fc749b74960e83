package lab

import (
	"cmp"
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
	Tiers    []Tier                       // nil: all are of the default criticality
	Tenants  []float64                    // shares of the load by tenant
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
		base("tandem", 3000).with(func(s *Scenario) {
			s.Station = func() Station { return Tandem{NewPool(1), NewPool(1), NewPool(1)} }
			s.Mean, s.Knee, s.Bar = 3*ms, 24, 0.90
		}),
	}
}

// delays is a callee that becomes so many times slower, with room for all.
func delays(name string, times int) Scenario {
	return base(name, 1000).with(func(s *Scenario) {
		s.Station, s.Knee = func() Station { return NewDelay(10 * ms) }, 1000
		s.Changed, s.Events = 8*time.Second, once(8*time.Second, func(st Station) { st.(*Delay).Slow(times) })
	})
}

// request is one of the load, all of it decided before the run.
type request struct {
	number int           // from 1 on, in the order of at
	at     time.Duration // a multiple of apart, and no other's
	size   time.Duration
	tier   int
	tenant int
	fails  bool
}

// load draws the requests of a scenario: a Poisson process of the rate, by thinning.
func (s Scenario) load(seed uint64) []request {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	top := 0.0
	for t := time.Duration(0); t < s.Length; t += tick {
		top = max(top, s.Rate(t))
	}
	var all []request
	for at := 0.0; ; {
		at += rng.ExpFloat64() / top
		now := time.Duration(at * float64(time.Second))
		if now >= s.Length {
			return all
		}
		// Every draw is made for every candidate, so that one scenario's change does not move another's numbers.
		r := request{at: now, size: s.Sizes(rng, s.Mean), tier: pick(rng, len(s.Tiers), func(i int) float64 { return s.Tiers[i].Share })}
		r.tenant = pick(rng, len(s.Tenants), func(i int) float64 { return s.Tenants[i] })
		r.fails = rng.Float64() < s.FailFast
		if rng.Float64()*top < s.Rate(now) {
			if r.at = now / apart * apart; len(all) > 0 {
				r.at = max(r.at, all[len(all)-1].at+apart)
			}
			r.number = len(all) + 1
			all = append(all, r)
		}
	}
}

// pick draws an index by shares.
func pick(rng *rand.Rand, n int, share func(int) float64) int {
	u := rng.Float64()
	for i := range n {
		if u -= share(i); u < 0 {
			return i
		}
	}
	return max(0, n-1)
}

// ideal returns how many answers in time are possible at best in each tick: a fluid that flows at the station's capacity, from a
// store. The store holds what waits for a few service times, enough to smooth a Poisson process. A longer line could carry
// work over into a lull after an overload, but only for those who knew that the lull was coming: who is to be
// refused should be told at once. Where bursts are the case, the ideal is patient. Failures use no capacity and
// are no goodput.
func (s Scenario) ideal(all []request) []float64 {
	station := s.Station()
	arrivals := make([]float64, int(s.Length/tick)+1)
	work, works := time.Duration(0), 0
	for _, r := range all {
		if !r.fails {
			arrivals[int(r.at/tick)]++
			work += r.size
			works++
		}
	}
	mean := work / time.Duration(max(1, works)) // as drawn: of heavy-tailed sizes it is off by a few per cent
	patience := cmp.Or(s.Patience, max(50*ms, 5*s.Mean))
	store, served := 0.0, make([]float64, len(arrivals))
	for i, n := range arrivals {
		now := time.Duration(i) * tick
		if s.Events != nil {
			s.Events(station, now)
		}
		capacity := station.Capacity(mean)
		store += n
		out := min(store, capacity*tick.Seconds())
		store = min(store-out, capacity*patience.Seconds())
		served[i] = out * (1 - s.Lost)
	}
	return served
}
