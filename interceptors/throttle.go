package interceptors

import (
	"math"
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
//
// The share is of the calls that there are now: when there are more or fewer, as many are sent in a second as before. A
// caller whose own callers hold back thus holds back no more itself; were it to drop the same share of what is left, they
// would hold back ever more, until nothing came through. And one whose spike is over soon sends all.
//
// What is refused late, by the last of many servers, is bad news of many calls at once, all sent before the first of
// them: such a round halves the share at most, as TCP does in a round trip.
//
// Callees that mark what has waited need hardly refuse: see mark.go.
type throttle struct {
	mu      sync.Mutex
	missing float64   // 1 - share of the calls that are sent
	credit  float64   // a call is sent when it reaches 1
	last    time.Time // when something was last learned
	mark    float64   // of the last answer of a callee that marks

	calls int64     // of the caller when they were last counted
	since time.Time // when that was; zero: not yet
	rate  float64   // of such calls per second, smoothed; 0: not known

	round time.Time // when the last began; the refusal of a call that was sent since then begins the next
	least float64   // share that this one leaves
}

const (
	throttleBack  = 0.1                 // of the share, at each refusal
	throttleFree  = 0.1                 // upward at an answer of a server without pressure
	throttleBlind = 0.02                // the same where servers never speak of pressure: half of what is sent is then refused at n = 10
	throttleSlow  = 0.06 * throttleBack // the same of a server that cannot serve all
	leastShare    = 1. / 64             // that is always sent, to find out

	// throttleBackServing is what a refusal takes of the share of a caller that serves a request itself. Its own callers
	// hear of it too, and are to send less before it does: what it drops is work done in vain. Where they do not, it still
	// comes to send little more than twice what is taken, at an overload of 10; the throttling of the SRE book sends twice.
	throttleBackServing = 0.02

	throttleCounts = 8                      // calls that show their rate, unless twice as many should have come by then
	throttleWindow = 200 * time.Millisecond // in which they come, at least: what is sent in bursts is no higher rate

	// throttleMemory is how long a throttle holds that hears nothing.
	throttleMemory = 10 * time.Second
)

// send reports whether the next call is to be sent. Calls are spread evenly: no dice. turn is 1, or less for a call that
// asks others as well. calls is how many there were so far, of this one and of others.
func (t *throttle) send(now time.Time, turn float64, calls int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing > 0 && now.Sub(t.last) > throttleMemory {
		t.missing = 0
	}
	if t.missing == 0 {
		return true
	}
	t.follow(now, calls)
	t.credit += (1 - t.missing) * math.Exp(-t.mark) * turn
	if t.credit < 1 {
		return false
	}
	t.credit--
	return true
}

// follow keeps what is sent in a second as it is when the rate of the calls changes. They are counted before they look for
// a backend: while a share falls they look at more, which is no higher rate. The caller holds mu.
func (t *throttle) follow(now time.Time, calls int64) {
	if t.since.IsZero() {
		t.calls, t.since = calls, now
		return
	}
	n, elapsed := float64(calls-t.calls), now.Sub(t.since)
	few := n < throttleCounts
	if elapsed < throttleWindow || few && t.rate*elapsed.Seconds() < 2*throttleCounts {
		return
	}
	before := t.rate
	t.rate = n / elapsed.Seconds()
	t.calls, t.since = calls, now
	if before > 0 {
		if !few { // else there is no doubt that there are fewer
			t.rate = (before + t.rate) / 2
		}
		t.missing = min(1-leastShare, max(0, 1-(1-t.missing)*before/t.rate))
	}
}

// refused takes in that a call was refused, when it was sent, and which part of the share that takes.
func (t *throttle) refused(now, sent time.Time, back float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	share := 1 - t.missing
	if share == 1 {
		t.credit, t.mark, t.since, t.rate = 1, 0, time.Time{}, 0
	}
	if !sent.Before(t.round) {
		t.round, t.least = now, max(leastShare, share/2)
	}
	t.missing = max(t.missing, 1-max(t.least, share*(1-back)))
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
