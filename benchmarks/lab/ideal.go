package lab

import (
	"cmp"
	"time"
)

// ideal is what is possible at best in each tick.
type ideal struct {
	answers []float64 // in time
	work    []float64 // in those answers, in seconds
}

// ideal returns what is possible at best: a fluid that flows at the station's capacity, from a store. The store holds
// what waits for a few service times, enough to smooth a Poisson process. A longer line could carry
// work over into a lull after an overload, but only for those who knew that the lull was coming: who is to be
// refused should be told at once. Where bursts are the case, the ideal is patient. Failures use no capacity and
// are no goodput. Methods get the shares of the work that they offer: who serves the light ones alone has more
// answers than the ideal, for the same work.
func (s Scenario) ideal(all []request) ideal {
	station, meanAt := s.Station(), s.meanAt(all)
	calls, work := newFluid(s.Length), newFluid(s.Length)
	for _, r := range all {
		if !r.fails && !s.waits(r) {
			calls.come(r.at, 1)
			work.come(r.at, r.size.Seconds())
		}
	}
	patience := cmp.Or(s.Patience, max(50*ms, 5*s.Mean))
	for i := range calls.flow {
		now := time.Duration(i) * tick
		if s.Events != nil {
			s.Events(station, now)
		}
		mean := meanAt(now)
		capacity := station.Capacity(mean)
		calls.pass(i, capacity, patience, s.Lost)
		work.pass(i, capacity*mean.Seconds(), patience, s.Lost)
	}
	for _, r := range all {
		if s.waits(r) {
			calls.come(r.at, 1)
		}
	}
	return ideal{calls.flow, work.flow}
}

// meanAt returns the mean size of what is offered at an instant, of sizes as they were drawn: of heavy-tailed ones the
// mean is off by a few per cent.
func (s Scenario) meanAt(all []request) func(time.Duration) time.Duration {
	methods := s.methods()
	sizes, counts := make([]time.Duration, len(methods)), make([]time.Duration, len(methods))
	for _, r := range all {
		if !r.fails {
			sizes[r.method] += r.size
			counts[r.method]++
		}
	}
	for i := range sizes {
		sizes[i] /= max(1, counts[i])
	}
	return func(now time.Duration) time.Duration {
		if len(methods) == 1 {
			return sizes[0]
		}
		sum, rate := 0.0, 0.0
		for i, m := range methods {
			if !m.Waits {
				sum += float64(sizes[i]) * m.Rate(now)
				rate += m.Rate(now)
			}
		}
		return time.Duration(sum / rate)
	}
}

// fluid is what flows through a station in each tick: at first what comes, and after pass what goes.
type fluid struct {
	flow  []float64
	store float64
}

func newFluid(length time.Duration) *fluid { return &fluid{flow: make([]float64, int(length/tick)+1)} }

func (f *fluid) come(at time.Duration, amount float64) { f.flow[at/tick] += amount }

// pass lets a tick pass at a capacity a second, of which a part is lost.
func (f *fluid) pass(i int, capacity float64, patience time.Duration, lost float64) {
	f.store += f.flow[i]
	out := min(f.store, capacity*tick.Seconds())
	f.store = min(f.store-out, capacity*patience.Seconds())
	f.flow[i] = out * (1 - lost)
}
