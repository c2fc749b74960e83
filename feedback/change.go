package feedback

import "math"

// changes tells, while the limit holds the load back, of a service that does something else than it did lately. The odds
// are logs, summed over windows.
type changes struct {
	more, less float64 // odds that goodput is higher, or lower, against that it is as it was; never below 0
	run        stretch // the windows since more was last 0: what the suspicion rests on that more could be had
	refuted    bool    // a probe in this run was in vain
	probing    bool    // a higher limit is tried
	gives      float64 // odds that it gives more than the run
}

// The constants of the tests. None has a dimension.
const (
	// A change of ln X worth finding: what a dither of a fifth shows where nothing contends. And the odds at which it counts
	// as found: less, and chance finds one every few minutes.
	shift, certain = 0.15, 10

	// The odds at which more is worth a probe, where the dither is narrow. There, just above what the service could do, twice
	// as much shows as a tenth or two more: certainty takes a thousand completions, suspicion and a probe some six hundred.
	// A wide dither shows it by itself.
	suspected = 4

	// The odds at which a probe counts as a find, and as in vain. By Wald's bounds one in e^5 that have nothing to find finds
	// something, which has to be unlearned, and one in e^2 that have does not, and is left to certainty.
	find, vain = 5, -2
)

// odds returns what a window adds to the odds that ln X is by so much higher than it was, against as it was. The goodput of a
// window varies as the mean of its completions does.
func odds(by, was float64, now point, scv float64) float64 {
	return now.weight / scv * (by - math.Expm1(by)*math.Exp(was-now.x))
}

// changed reports whether the service does something else than it did lately under much the same limit, by more than
// chance, its wander and all of the difference between the limits explain. What was learned is then about another service.
//
// It is the test of E. S. Page (Continuous inspection schemes, Biometrika 41, 1954), which needs the fewest completions
// for as few false alarms: the log of the odds that goodput is higher by shift, against as it was, summed over windows
// and never below 0; and the same for lower. What is lately known only to a standard error gets the benefit of it.
func (e *Elasticity) changed(s Sample) bool {
	lately, now := e.lately[e.side()], stretch{}.and(s).point()
	if lately.weight == 0 || now.weight == 0 {
		return false
	}
	scv := e.noise.scv()
	chance, dx := math.Sqrt(scv/lately.weight+e.wander.variance()), now.n-lately.n
	e.more = max(0, e.more+odds(shift, lately.x+chance+max(0, dx), now, scv))
	e.less = max(0, e.less+odds(-shift, lately.x-chance+min(0, dx), now, scv))
	if e.run = e.run.and(s); e.more == 0 {
		e.run, e.refuted = stretch{}, false
	}
	return max(e.more, e.less) > certain
}

// suspects reports whether a probe is worth it, which is so once for each run of windows, and only where it is a higher limit
// than the dither has anyway.
func (e *Elasticity) suspects() bool {
	if !(e.more > suspected) || e.refuted || e.width > narrow {
		return false
	}
	_, high := e.levels(e.width)
	_, probe := e.levels(wide)
	return probe > high
}

// probe takes a window of a probe, which ends by the test of A. Wald (Sequential tests of statistical hypotheses, Annals of
// Mathematical Statistics 16, 1945). It has to give more than the windows that raised the suspicion, not than lately: a
// machine that has become faster does more at any limit. The run was picked for being high, so that it gets no benefit of a
// standard error. If no more is in flight than would be anyway, or nothing of use ends, there is nothing to find.
func (e *Elasticity) probe(s Sample) {
	now := stretch{}.and(s).point()
	if now.weight == 0 || s.Concurrency() <= e.centre {
		e.refute(s)
		return
	}
	e.gives += odds(shift, e.run.point().x, now, e.noise.scv())
	switch {
	case e.gives > find: // on from there
		e.centre = min(e.centre*math.Exp(above*wide), s.Concurrency())
		e.restart(s)
		e.high = true
	case e.gives < vain:
		e.refute(s)
	}
}

// refute ends a probe in vain: on with the phase that it broke into.
func (e *Elasticity) refute(s Sample) {
	e.probing, e.gives, e.refuted = false, 0, true
	e.wait(s)
}

// wander learns by how much the goodput of a phase differs from what phases on its side of the centre have shown lately, beyond
// what the noise of the work and their limits explain: the variance of ln X of a service that is faster in one phase and
// slower in another, as on a machine that others use too.
type wander struct{ squares, weight float64 } // sums over phases, with forgetting

// learn takes in a phase, with what phases on its side have shown lately, and the elasticity and the noise as they are known.
// What differs by more than a change worth finding may be one, or a stall: it counts as much as that.
func (w *wander) learn(lately, now point, elasticity, scv float64) {
	weight := lately.weight * now.weight / (lately.weight + now.weight)
	if !(weight > 0) {
		return
	}
	d := math.Abs(now.x - lately.x - max(0, min(1, elasticity))*(now.n-lately.n))
	if !(d <= math.MaxFloat64) { // nor NaN
		return
	}
	d = min(d, shift)
	w.squares = forgetting*w.squares + weight*d*d - scv
	w.weight = forgetting*w.weight + weight
}

func (w *wander) variance() float64 {
	if w.weight == 0 {
		return 0
	}
	return max(0, w.squares/w.weight)
}
