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
// HandOver does nothing for the work of a dry run, for work that came neither through the unary interceptor nor with
// [ContextWithPermit], and where there is no memory for more requests than are there ([WithMemory]). The interceptors of
// callers do it for unary calls to callees that hold their load, as far as is known. It is safe for concurrent use.
func HandOver(ctx context.Context) Handover {
	a := admittedFrom(ctx)
	if a == nil || a.permit.shard == nil {
		return Handover{}
	}
	l := a.permit.shard.limiter
	if room := l.room.Load(); room > 0 && l.inside() >= room {
		return Handover{}
	}
	a.handed.over(a.permit)
	return Handover{a}
}

// Handover is a wait that [HandOver] began. The zero Handover is none.
type Handover struct{ of *admitted }

// TakeBack ends the wait. It is to be called once, also after the permit was released.
func (h Handover) TakeBack() {
	if h.of != nil {
		h.of.handed.back(h.of.permit)
	}
}

// inside returns how many requests are there, in flight or not.
func (l *Limiter) inside() int64 { return int64(l.load.inFlight()) + l.aside() }

// aside returns how many are there that are not in flight: handed over or parked.
func (l *Limiter) aside() int64 { return l.handed.Load() + l.parked.Load() }

// handed counts the callees that the work of a permit waits for at a time.
type handed struct {
	mu sync.Mutex // held over Suspend and Resume, so that they come in the order of the counts
	n  int
}

func (h *handed) over(p Permit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n++; h.n == 1 {
		p.shard.limiter.handed.Add(1)
		p.Suspend()
	}
}

func (h *handed) back(p Permit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 { // it was taken back twice
		return
	}
	if h.n--; h.n == 0 {
		p.Resume()
		p.shard.limiter.handed.Add(-1)
	}
}
