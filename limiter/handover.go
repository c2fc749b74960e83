package limiter

import (
	"context"
	"sync"
)

// HandOver says that the work of ctx now waits for a service that holds its own load within what it can do, and does
// nothing here until TakeBack: its request is not in flight meanwhile. What waits there is bounded there. Counted here too,
// the line of the callee would look like a slow service of its caller, whose limit would come down until it refuses what
// others have worked for already.
//
// Work may wait for several callees at a time: it is in flight again when the last has been taken back, at once, since it
// was admitted before. What it does meanwhile is not counted, as far as it takes no longer than the callees.
//
// HandOver does nothing for work that came neither through package interceptors nor with [ContextWithPermit]. The
// interceptors of callers do it for unary calls to callees that have been heard to hold their load. It is safe for
// concurrent use.
func HandOver(ctx context.Context) Handover {
	a := admittedFrom(ctx)
	if a == nil || a.permit == (Permit{}) {
		return Handover{}
	}
	a.handed.over(a.permit)
	if a.limiter != nil {
		a.limiter.handed.Add(1)
	}
	return Handover{a}
}

// Handover is a wait that [HandOver] began. The zero Handover is none.
type Handover struct{ of *admitted }

// TakeBack ends the wait. It is to be called once, also after the permit was released.
func (h Handover) TakeBack() {
	a := h.of
	if a == nil {
		return
	}
	a.handed.back(a.permit)
	if a.limiter != nil {
		a.limiter.handed.Add(-1)
	}
}

// handed counts the callees that the work of a permit waits for at a time.
type handed struct {
	mu sync.Mutex // held over Suspend and Resume, so that they come in the order of the counts
	n  int
}

func (h *handed) over(p Permit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n++; h.n == 1 {
		p.inEarnest().Suspend()
	}
}

func (h *handed) back(p Permit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n--; h.n == 0 {
		p.inEarnest().Resume()
	}
}

// inEarnest returns the permit itself, or what a dry run has of one by now. Its place in the line it keeps: it works on.
func (p Permit) inEarnest() Permit {
	if p.dry == nil {
		return p
	}
	l := p.dry.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	return p.dry.permit
}
