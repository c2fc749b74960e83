package feedback

import "math"

// changes tells, while the limit holds the load back, of a service that does something else than it did lately. The odds
// are logs, summed over windows.
type changes struct {
	before     float64 // ln X lately, below the centre or above, as this phase is
	more, less float64 // odds that goodput is higher, or lower, against that it is as it was; never below 0
	probing    bool    // a higher limit is tried, on the suspicion that it gives more than before
	gives      float64 // odds that it does
}

// The constants of the tests. None has a dimension.
const (
	// A change of ln X worth finding, and the odds at which it counts as found.
	shift, certain = 0.15, 10

	// The odds at which more is worth a probe, where the dither is narrow. There, just above what the service could do, twice
	// as much shows as a few hundredths more: certainty would take seconds, and a probe takes a hundred completions. A wide
	// dither shows it by itself.
	suspected = 4

	// What a probe has to give, as a change of ln X, and the odds at which it counts as given, and as not. The limit is
	// higher by above * wide = 0.49.
	worth, given, refuted = 0.25, 5, -2
)

// odds returns what a window adds to the odds that ln X is by so much higher than it was, against as it was. The goodput of a
// window varies as the mean of its completions does.
func odds(by, was float64, now point, scv float64) float64 {
	return now.weight / scv * (by - math.Expm1(by)*math.Exp(was-now.x))
}

// changed reports whether the service does something else than it did lately under much the same limit, by more than
// chance and all of the difference between the limits explain. What was learned is then about another service.
//
// It is the test of E. S. Page (Continuous inspection schemes, Biometrika 41, 1954), which needs the fewest completions
// for as few false alarms: the log of the odds that goodput is higher by shift, against as it was, summed over windows
// and never below 0; and the same for lower. What is lately known only to a standard error gets the benefit of it.
func (e *Elasticity) changed(s Sample) bool {
	lately, now := e.lately[e.side()], pointOf(s.Window, s.Useful)
	if lately.weight == 0 || now.weight == 0 {
		return false
	}
	scv := e.noise.scv()
	chance, dx := math.Sqrt(scv/lately.weight), now.n-lately.n
	e.before = lately.x
	e.more = max(0, e.more+odds(shift, lately.x+chance+max(0, dx), now, scv))
	e.less = max(0, e.less+odds(-shift, lately.x-chance+min(0, dx), now, scv))
	return max(e.more, e.less) > certain
}

// suspects reports whether a probe is worth it.
func (e *Elasticity) suspects() bool { return e.more > suspected && e.width <= narrow }

// probe takes a window of a probe, which ends by the test of A. Wald (Sequential tests of statistical hypotheses, Annals of
// Mathematical Statistics 16, 1945): on from there if there is room for more, or back to the phase it broke into.
func (e *Elasticity) probe(s Sample) {
	if now := pointOf(s.Window, s.Useful); now.weight > 0 {
		e.gives += odds(worth, e.before, now, e.noise.scv())
	}
	switch {
	case e.gives > given:
		e.centre *= math.Exp(above * wide)
		e.restart(s)
		e.high = true
	case e.gives < refuted:
		e.changes = changes{less: e.less}
		e.wait(s)
	}
}
