package interceptors

import (
	"sync"
	"time"
)

// throttle learns which share of the calls of one criticality a callee takes, and sends no more: what it would refuse
// costs both sides for nothing.
//
// Each refusal takes a tenth of the share, each answer adds to it: much when its server says nothing of being under
// pressure, little when it says that it cannot serve all. Multiplicative decrease and additive increase bring all callers
// of a callee to the same share (D.-M. Chiu and R. Jain, Computer Networks and ISDN Systems 17, 1989); the adaptive
// throttling of Google's SRE book (chapter 21), which sends K times what was accepted, keeps the shares that chance gave
// them. At an overload of n the share s ends where n s q = 1 and s = r q / (1 - q), q being the part of what is sent that
// is taken and r = .06: at n = 10, 4% of the calls are sent and refused, at n = 2, 5%. With r = .03 so little is refused
// that the limit of the callee hardly ever binds, which costs the callee 3% of its goodput.
type throttle struct {
	mu      sync.Mutex
	missing float64   // 1 - share of the calls that are sent
	credit  float64   // a call is sent when it reaches 1
	last    time.Time // when something was last learned
}

const (
	throttleBack  = 0.1                 // of the share, at each refusal
	throttleFree  = 0.1                 // upward at an answer of a server without pressure
	throttleBlind = 0.02                // the same where servers never speak of pressure: half of what is sent is then refused at n = 10
	throttleSlow  = 0.06 * throttleBack // the same of a server that cannot serve all
	leastShare    = 1. / 64             // that is always sent, to find out

	// throttleMemory is how long a throttle holds that hears nothing.
	throttleMemory = 10 * time.Second
)

// send reports whether the next call is to be sent. Calls are spread evenly: no dice. turn is 1, or less for a call that
// asks others as well.
func (t *throttle) send(now time.Time, turn float64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing > 0 && now.Sub(t.last) > throttleMemory {
		t.missing = 0
	}
	if t.missing == 0 {
		return true
	}
	t.credit += (1 - t.missing) * turn
	if t.credit < 1 {
		return false
	}
	t.credit--
	return true
}

// refused takes in that a call was refused.
func (t *throttle) refused(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing == 0 {
		t.credit = 1
	}
	t.missing = min(1-leastShare, 1-(1-t.missing)*(1-throttleBack))
	t.last = now
}

// answered takes in that a call was not refused, and by how much the share may rise.
func (t *throttle) answered(now time.Time, rise float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing == 0 {
		return
	}
	if t.missing -= rise; t.missing < 1e-9 { // whatever the roundings
		t.missing = 0
	}
	t.last = now
}

// share returns the part of the calls that is sent.
func (t *throttle) share() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return 1 - t.missing
}

// met reports whether a call was ever refused.
func (t *throttle) met() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.last.IsZero()
}
