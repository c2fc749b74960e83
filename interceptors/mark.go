package interceptors

import (
	"math"
	"time"
)

// A callee that marks says with each answer how long its line is, relative to what it may be ([MarkTrailer]). Its callers
// then hold back before it refuses anybody, so that next to nothing is sent in vain: marks take the place of losses, as in
// ECN (RFC 3168), and say how much, as in DCTCP (M. Alizadeh et al., SIGCOMM 2010). Which of several backends gets a call
// depends on them too: see detour.go.
//
// The share s of a throttle is moved by each answer over the time since the one before, so that callers of many calls and
// of few are alike:
//
//	ds/dt = markGain s (markAim - mark) + markEven
//
// The line thus comes to rest where it stands at markAim of what it may, and a little more where shares are small: a line
// that is empty at times costs goodput, one that is full at times refusals. Decrease in proportion and increase by the same
// for all bring all callers to the same share, as with refusals. That a line goes on growing while too much comes makes this
// alone swing: so of the share as much is sent as the last mark leaves, e^-mark, which answers at once, and is over with
// the line (the P of a PI controller; C. V. Hollot et al., INFOCOM 2001).
//
// Only who serves no request of its own heeds marks: on the way to it they are handed up, the highest of those that a
// request has met. What is held back there was no work for anybody.
//
// A mark is believed only of who refuses, and bounded by the refusal: without one in throttleMemory marks lower nothing,
// and never further than half of the share there was when the last round of refusals began. So a callee that lies, or
// one whose refusals a handler further down makes good, can do without the calls that it would not get anyway, and no others.
const (
	markAim  = 0.6   // far from empty, which costs goodput, and not near full, which costs refusals
	markGain = 0.25  // per second: slower than lines grow and fall, faster than loads change
	markEven = 0.005 // of all calls, per second
	markFree = 1.    // upward, per second, in proportion to the share, while a callee that marks says nothing at all

	markGap = 300 * time.Millisecond // that an answer speaks for at most
)

// marked takes in what an answer of a callee that marks says.
func (t *throttle) marked(now time.Time, n news) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing == 0 {
		return
	}
	share, rise := 1-t.missing, markGain*(markAim-n.mark)
	if n.pressure == 0 && n.mark == 0 {
		rise = markFree
	}
	passed := min(now.Sub(t.last), markGap).Seconds()
	next := share*math.Exp(rise*passed) + markEven*passed
	least := min(share, t.least)
	if now.Sub(t.round) > throttleMemory {
		least = share
	}
	t.missing = max(0, 1-max(next, least))
	t.last, t.mark = now, n.mark
}
