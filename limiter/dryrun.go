package limiter

import (
	linked "container/list"
	"context"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// dryRuns are the requests of dry runs that are under way. None waits for its answer, but each has what it would have: a
// permit, a place in the line and the permit that comes of it, or a refusal. So whoever comes later is answered as if all
// of them were held to it.
//
// The service works for all of them, and each takes longer than it would. But it finishes as much as it can. So whoever is
// finished and has no permit returns the oldest of the others, which goes on without. Permits thus come back as fast as
// work is finished, in time or late, which is what decides how much is refused, and not after the time that a request
// takes.
//
// The limiter's mu guards all but open.
type dryRuns struct {
	open    atomic.Int64 // requests under way
	holders linked.List  // of *dryRun: those that have a permit, the oldest first

	fixed          bool    // the limit is
	offered, ended float64 // lately, in work; what ended is what was answered well
	floor          int     // of the limit
}

// without returns how many are under way that have no permit: the service has them beyond what is in flight.
func (d *dryRuns) without() int { return int(d.open.Load()) - d.holders.Len() }

// hides reports whether a window shows nothing of what another limit would do: most of those that found no permit free, or
// all that were there, went on without.
func (d *dryRuns) hides(t tally) bool {
	return t.dry > t.earnest || t.earnest == 0 && d.without() > 0
}

const (
	dryMemory = 64        // windows of which the balance is struck: enough that chance is a few per cent
	balanced  = 1 + spare // times what ends well may come, without ever more being under way
	overdrawn = 1.3       // times what ends well is too much
)

// follow raises the limit to what is under way, as long as what comes is answered well: however much that is, it is no
// overload. In earnest the law finds out by experiment.
func (d *dryRuns) follow(s feedback.Sample, t tally, inFlight int) {
	d.offered += s.Asked - d.offered/dryMemory
	d.ended += s.Useful - d.ended/dryMemory
	switch {
	case d.fixed, d.open.Load() == 0, t.earnest > t.dry, d.offered > overdrawn*d.ended:
		d.floor = 0
	case d.offered <= balanced*d.ended:
		d.floor = max(inFlight+d.without(), d.floor-d.floor/dryMemory)
	}
}

// dryRun is what one request has.
type dryRun struct {
	limiter  *Limiter
	deadline time.Duration   // 0: none
	waiter   *waiter         // its place in the line; nil: none
	holder   *linked.Element // its place among those that have a permit; nil: it has none
	permit   Permit
	refusal  *Refusal
	left     bool // it has given up its place
	ended    bool
}

// rehearse asks for a permit for a request that goes on whatever the answer is.
func (l *Limiter) rehearse(ctx context.Context, r *Request) Permit {
	d := &dryRun{limiter: l, deadline: l.deadline(ctx)}
	l.dry.open.Add(1)
	permit, waits, refusal := l.apply(ctx, r, d)
	l.mu.Lock()
	defer l.mu.Unlock()
	if waits == nil { // else it has heard already, or will
		d.hear(permit, refusal)
	}
	return Permit{dry: d}
}

// hear takes in the answer. The caller holds mu, here and below.
func (d *dryRun) hear(p Permit, refusal *Refusal) {
	d.waiter, d.permit, d.refusal = nil, p, refusal
	if refusal == nil {
		d.holder = d.limiter.dry.holders.PushBack(d)
	}
}

// give takes the permit from the request.
func (d *dryRun) give() Permit {
	d.limiter.dry.holders.Remove(d.holder)
	d.holder = nil
	return d.permit
}

// leave gives up the place in the line, if there is one. Whose time is over would have been refused.
func (d *dryRun) leave(now time.Duration) {
	w, l := d.waiter, d.limiter
	if w == nil {
		return
	}
	d.waiter, d.left = nil, true
	if d.deadline > 0 && now > d.deadline {
		d.refusal = &l.refusals.expired
		l.giveUp(now, w, ReasonExpired)
	} else {
		l.giveUp(now, w, 0)
	}
	l.waiters.Put(w)
}

// end takes a request from those under way, once, and returns the permit that goes back.
func (l *Limiter) end(d *dryRun, finished bool) Permit {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.ended {
		return Permit{}
	}
	d.ended = true
	l.dry.open.Add(-1)
	if d.holder != nil {
		return d.give()
	}
	d.leave(now)
	if !finished || d.left || l.dry.holders.Len() == 0 {
		return Permit{}
	}
	return l.dry.holders.Front().Value.(*dryRun).give()
}

// held returns the permit of a request that makes a pause or goes on. It gives up its place in the line: there is no work
// to wait for.
func (l *Limiter) held(d *dryRun) Permit {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	d.leave(now)
	return d.permit
}

func (l *Limiter) refusalOf(d *dryRun) *Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	return d.refusal
}
