package feedback

import "math"

// changes tells, while the limit holds the load back, of a service that does something else than it did lately. The odds
// are logs, summed over windows.
type changes struct {
	more, less float64 // odds that goodput is higher, or lower, against that it is as it was; never below 0
	run        stretch // the windows since more was 0, which are what makes it suspect that more could be had
	refuted    bool    // and a probe has shown otherwise
	probing    bool    // a higher limit is tried on that suspicion
	gives      float64 // odds that it gives more than run
}

// The constants of the tests. None has a dimension.
const (
	// A change of ln X worth finding, and the odds at which it counts as found.
	shift, certain = 0.15, 10

	// The odds at which more is worth a probe, where the dither is narrow. There, just above what the service could do, twice
	// as much shows as a few hundredths more: certainty would take seconds, and a probe takes a hundred completions or two. A
	// wide dither shows it by itself.
	suspected = 4

	// The odds at which a probe counts as a find, and as in vain.
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

// suspects reports whether a probe is worth it, which is so once for each run of windows.
func (e *Elasticity) suspects() bool {
	return e.more > suspected && !e.refuted && e.width <= narrow
}

// probe takes a window of a probe, which ends by the test of A. Wald (Sequential tests of statistical hypotheses, Annals of
// Mathematical Statistics 16, 1945): on from there if it gives more, or back to the phase it broke into. More than what
// made it suspect, and not than what was lately: on a machine that has become faster as much more is done at any limit.
func (e *Elasticity) probe(s Sample) {
	if now := (stretch{}).and(s).point(); now.weight > 0 {
		e.gives += odds(shift, e.run.point().x, now, e.noise.scv())
	}
	switch {
	case e.gives > find:
		e.centre *= math.Exp(above * wide)
		e.restart(s)
		e.high = true
	case e.gives < vain:
		e.probing, e.gives, e.refuted = false, 0, true
		e.wait(s)
	}
}

// wander learns by how much the goodput of phases on the same side of the centre differs, beyond what the noise of the work
// and their limits explain: the variance of ln X of a service that is now faster and now slower, as on a machine that others
// use too.
type wander struct{ squares, weight float64 } // sums over phases, with forgetting

// learn takes in a phase, with what phases on its side have shown lately, and the elasticity and the noise as they are known.
// What differs by more than a change worth finding may be one, or a stall: it counts as much as that.
func (w *wander) learn(lately, now point, elasticity, scv float64) {
	weight := lately.weight * now.weight / (lately.weight + now.weight)
	if !(weight > 0) {
		return
	}
	d := math.Abs(now.x - lately.x - max(0, min(1, elasticity))*(now.n-lately.n))
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
