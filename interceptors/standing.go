package interceptors

import (
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// standing is how the calls of a method have fared lately: with one backend, or, where backends are not told apart, with
// a target.
type standing struct {
	throttles  [criticalities]throttle // by criticality
	foreign    atomic.Bool             // its last refusal was not one of this package: it never speaks of pressure
	pressed    atomic.Bool             // by its last word
	marks      atomic.Bool             // it has marked an answer: it does so whenever somebody waits
	detours    [criticalities]detour   // the same
	breaker    breaker
	acceptance acceptance
}

// learn takes in how a call ended: when it was sent, its error, and what the callee said. back is for the throttle.
func (s *standing) learn(criticality limiter.Criticality, now, sent time.Time, err error, n news, back float64) {
	level := bounded(criticality)
	t := &s.throttles[level]
	from := refusedBy(err)
	switch {
	case from != nobody:
		s.pressed.Store(true)
		s.detours[level].learn(now, 1)
	case isAnswer(err):
		s.pressed.Store(n.pressure > 0)
		s.detours[level].learn(now, n.mark)
	}
	if n.mark > 0 && !s.marks.Load() {
		s.marks.Store(true)
	}
	switch {
	case from != nobody:
		s.foreign.Store(from == somebody)
		t.refused(now, sent, back)
	case !isAnswer(err):
	case s.foreign.Load():
		t.answered(now, throttleBlind)
	case back == throttleBack && s.marks.Load():
		t.marked(now, n)
	default:
		t.answered(now, throttleSlow+(1-n.pressure)*throttleFree)
	}
}

// eased reports whether all calls are sent, and the last answer did not speak of pressure: there is room for more than
// the calls that have to be.
func (s *standing) eased(criticality limiter.Criticality) bool {
	open, _ := s.breaker.state()
	return !open && !s.pressed.Load() && s.throttles[bounded(criticality)].share() == 1
}
