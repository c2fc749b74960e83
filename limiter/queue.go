package limiter

import (
	"context"
	"math"
	"time"
)

// queue puts a request that found no free permit into the line, or refuses it. One that was refused before, but has a
// group that has room, can wait for what is guaranteed to that alone.
func (l *Limiter) queue(r *Request, c *claim, refused *Refusal, now time.Duration) (*waiter, *Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch()
	level := c.at.level()
	overtakes, reserved := false, false
	if !r.Patient {
		var reason Reason
		if refused != nil {
			reason = refused.Reason
		} else {
			overtakes, reason = l.joins(r, c, now)
		}
		if reason != 0 && c.group.room(level) {
			reserved, reason = true, l.reserve(now, c)
		}
		if reason != 0 {
			reason = l.told(reason)
			l.shard().turnAway(c, now, reason)
			refusal := l.refusals.pick(reason, l.retry, l.turn())
			if l.gates[level].Load() == nil {
				l.publish(now)
			}
			return nil, refusal
		}
	}
	w := l.waiters.Get().(*waiter)
	w.claim, w.came = *c, now
	w.patient, w.reserved = r.Patient, reserved
	if c.dry != nil {
		c.dry.waiter = w
	}
	l.shard().wait(c, now)
	l.load.come()
	l.line.push(now, w, overtakes, l.pace, &l.threshold)
	l.displace(now, level)
	l.serveLocked(now) // a permit may have come back before we were counted
	return w, nil
}

// joins returns 0 if a newcomer may have a place in the line, or why it may not, and whether it overtakes worse
// tenants. Those who fit take no place from each other while there is room. The caller holds mu.
func (l *Limiter) joins(r *Request, c *claim, now time.Duration) (overtakes bool, reason Reason) {
	level := c.at.level()
	reason = l.line.admits(now, c, l.pace, &l.threshold)
	if reason != ReasonLimit || r.Tenant == 0 {
		return false, reason
	}
	room := l.line.length < l.line.most && l.pace.wait(l.line.work(level)) <= l.pace.fullCredit()
	if w := l.line.heaviest(level); w != nil && w.at < c.at && (w.at < l.threshold.fits || !room) {
		l.evict(now, w, ReasonTenant)
		return true, 0
	}
	if c.at >= l.threshold.fits && room {
		return true, 0
	}
	return false, reason
}

// wait blocks until the waiter has a verdict or ctx ends.
func (l *Limiter) wait(ctx context.Context, w *waiter) (Permit, *Refusal) {
	select {
	case <-w.ready:
	case <-ctx.Done():
		if l.abandon(w) {
			l.waiters.Put(w)
			return Permit{}, l.refusals.ended(ctx.Err())
		}
		<-w.ready // the verdict came first, and stands
	}
	permit, refusal := w.permit, w.refusal
	w.permit, w.refusal = Permit{}, nil
	l.waiters.Put(w)
	return permit, refusal
}

// abandon takes a waiter whose context has ended out of the line, and reports whether it was still there.
func (l *Limiter) abandon(w *waiter) bool {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.inLine {
		return false
	}
	l.giveUp(now, w, ReasonExpired)
	return true
}

// giveUp takes a waiter that waits no longer out of the line. A reason of 0 is no refusal. The caller holds mu.
func (l *Limiter) giveUp(now time.Duration, w *waiter, reason Reason) {
	l.line.remove(now, w, l.pace, &l.threshold)
	l.load.giveUp()
	if reason != 0 {
		l.shard().drop(reason)
	}
	l.serveLocked(now) // there may be room for the next, if this one was too heavy
}

// displace turns away the least critical waiter if those of the level have made the line too long for it. The
// caller holds mu.
func (l *Limiter) displace(now time.Duration, level int) {
	w := l.line.worst(level)
	if w == nil {
		return
	}
	before := max(0, l.line.work(w.level())-w.work())
	short := l.line.few(w.level(), l.line.ahead(w.level())-1, before, l.pace, &l.threshold) ||
		l.pace.wait(before) <= l.line.queues[w.level()].credit
	if short && l.line.length <= l.line.most {
		return
	}
	l.evict(now, w, ReasonDisplaced)
}

// serve gives free permits to those who wait, best first.
func (l *Limiter) serve(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serveLocked(now)
}

func (l *Limiter) serveLocked(now time.Duration) {
	limit := l.limit.Load()
	for {
		// Only permits that are back before the choice are given: one that comes back later may make a group owed it,
		// and whoever returns it serves the line again.
		free := limit - int64(l.load.inFlight())
		w := l.line.next()
		if w == nil {
			break
		}
		if w.deadline > 0 && !w.patient && w.deadline-now < l.pace.stay(w.cost) {
			l.turnAway(now, w, ReasonDeadline)
			continue
		}
		given := w.claim
		if min(int64(given.weight), limit) > free {
			break
		}
		inFlight, ok := l.load.hand(&given, limit)
		if !ok {
			break
		}
		l.line.take(now, w, l.pace, &l.threshold)
		l.spend(&given)
		w.tell(l.shard().admit(now, w.came, &given, inFlight), nil)
	}
	l.publish(now)
}

// turnAway takes a waiter out of the line without a permit.
func (l *Limiter) turnAway(now time.Duration, w *waiter, reason Reason) {
	l.line.remove(now, w, l.pace, &l.threshold)
	l.load.giveUp()
	l.shard().drop(reason)
	w.tell(Permit{}, l.refusals.pick(reason, l.retry, l.turn()))
}

// turn spreads the hints of refusals that follow each other.
func (l *Limiter) turn() uint64 {
	l.turns++
	return l.turns
}

// cut refuses newcomers who stand below a place.
type cut struct {
	from                       place
	criticality, tenant, limit *Refusal
}

func (c *cut) refusal(at place, r *Request) *Refusal {
	switch {
	case at.level() < c.from.level():
		return c.criticality
	case r.Tenant != 0:
		return c.tenant
	default:
		return c.limit
	}
}

// publish tells newcomers what to expect, so that most refusals need no lock. The caller holds mu.
func (l *Limiter) publish(now time.Duration) {
	least := 0.0
	if l.line.length > 0 {
		least = float64(l.pace.stay(1))
	}
	l.least.Store(math.Float64bits(least))
	calm := l.calmStay()
	for level := range l.gates {
		var refusal *Refusal
		if reason := l.line.full(now, level, l.pace, &l.threshold); reason != 0 {
			refusal = l.refusals.pick(l.told(reason), l.retry, l.turn())
			passes := max(placeOf(level, 0), l.threshold.fits)
			if w := l.line.heaviest(level); w != nil && reason == ReasonLimit {
				passes = min(passes, w.at+1)
			}
			if l.passes[level].Load() != uint32(passes) {
				l.passes[level].Store(uint32(passes))
			}
		}
		if l.gates[level].Load() != refusal {
			l.gates[level].Store(refusal)
		}
		l.publishOutlook(level, calm)
	}
}

// publishCut does the same for the threshold.
func (l *Limiter) publishCut() {
	if l.threshold.cut == 0 {
		l.cut.Store(nil)
		return
	}
	pick := func(reason Reason) *Refusal { return l.refusals.pick(reason, l.retry, l.turn()) }
	l.cut.Store(&cut{l.threshold.cut, pick(ReasonCriticality), pick(ReasonTenant), pick(l.told(ReasonLimit))})
}
