package lab

import (
	"math/rand/v2"
	"time"
)

// request is one of the load, all of it decided before the run.
type request struct {
	number int           // from 1 on, in the order of at
	at     time.Duration // a multiple of apart, and no other's
	size   time.Duration
	method int
	tier   int
	tenant int
	fails  bool
}

// load draws the requests of a scenario: a Poisson process of the rate, by thinning.
func (s Scenario) load(seed uint64) []request {
	rng, mix := rand.New(rand.NewPCG(seed, 0x5eed)), rand.New(rand.NewPCG(seed, 0x313))
	methods, top := s.methods(), 0.0
	for t := time.Duration(0); t < s.Length; t += tick {
		top = max(top, rateOf(methods, t))
	}
	var all []request
	for at := 0.0; ; {
		at += rng.ExpFloat64() / top
		now := time.Duration(at * float64(time.Second))
		if now >= s.Length {
			return all
		}
		// Every draw is made for every candidate, so that one scenario's change does not move another's numbers.
		rate := rateOf(methods, now)
		r := request{at: now, method: pick(mix, len(methods), func(i int) float64 { return methods[i].Rate(now) / rate })}
		r.size = s.Sizes(rng, methods[r.method].Mean)
		if methods[r.method].Waits {
			r.size = methods[r.method].Mean
		}
		r.tier = pick(rng, len(s.Tiers), func(i int) float64 { return s.Tiers[i].Share })
		r.tenant = pick(rng, len(s.Tenants), func(i int) float64 { return s.Tenants[i] })
		if s.Apart {
			r.tenant = r.method
		}
		r.fails = rng.Float64() < s.FailFast
		if rng.Float64()*top < rate {
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
