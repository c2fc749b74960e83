package limiter

import (
	"context"
	"time"
)

// queue puts a request that found no free permit into the line, or refuses it.
func (l *Limiter) queue(now time.Duration, level int, deadline time.Duration, patient bool) (*waiter, *Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !patient {
		if reason := l.line.admits(now, level, deadline, l.pace); reason != 0 {
			l.shard().turnAway(level, reason)
			refusal := l.refusals.pick(reason, l.retry, l.turn())
			if l.gates[level].Load() == nil {
				l.publish(now)
			}
			return nil, refusal
		}
	}
	w := l.waiters.Get().(*waiter)
	w.level, w.patient, w.deadline, w.came = level, patient, deadline, now
	l.shard().wait(level)
	l.load.come()
	l.line.push(now, w, l.pace)
	l.displace(now, level)
	l.serveLocked(now) // a permit may have come back before we were counted
	return w, nil
}

// wait blocks until the waiter has a verdict or ctx ends.
func (l *Limiter) wait(ctx context.Context, w *waiter) (Permit, error) {
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
	if refusal != nil {
		return Permit{}, refusal
	}
	return permit, nil
}

// abandon takes a waiter whose context has ended out of the line, and reports whether it was still there.
func (l *Limiter) abandon(w *waiter) bool {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.inLine {
		return false
	}
	l.line.remove(now, w, l.pace)
	l.load.giveUp()
	l.shard().drop(ReasonExpired)
	l.publish(now)
	return true
}

// displace turns away the least critical waiter if those of the level have made the line too long for it. The
// caller holds mu.
func (l *Limiter) displace(now time.Duration, level int) {
	w := l.line.worst(level)
	if w == nil {
		return
	}
	ahead := l.line.ahead(w.level)
	if ahead <= shortLine || l.pace.wait(ahead-1) <= l.line.queues[w.level].credit {
		return
	}
	l.line.remove(now, w, l.pace)
	l.load.giveUp()
	l.turnAway(w, ReasonDisplaced)
}

// serve gives free permits to those who wait, best first.
func (l *Limiter) serve(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serveLocked(now)
}

func (l *Limiter) serveLocked(now time.Duration) {
	limit := l.limit.Load()
	for w := l.line.next(); w != nil; w = l.line.next() {
		if w.deadline > 0 && !w.patient && w.deadline-now < l.pace.service {
			l.line.remove(now, w, l.pace)
			l.load.giveUp()
			l.turnAway(w, ReasonDeadline)
			continue
		}
		inFlight, ok := l.load.hand(limit)
		if !ok {
			break
		}
		l.line.remove(now, w, l.pace)
		w.permit = l.shard().admit(now, w.came, w.deadline, w.level, inFlight)
		w.ready <- struct{}{}
	}
	l.publish(now)
}

func (l *Limiter) turnAway(w *waiter, reason Reason) {
	l.shard().drop(reason)
	w.refusal = l.refusals.pick(reason, l.retry, l.turn())
	w.ready <- struct{}{}
}

// turn spreads the hints of refusals that follow each other.
func (l *Limiter) turn() uint64 {
	l.turns++
	return l.turns
}

// publish tells newcomers what to expect, so that most refusals need no lock. The caller holds mu.
func (l *Limiter) publish(now time.Duration) {
	least := time.Duration(0)
	if l.line.length > 0 {
		least = l.pace.service
	}
	l.least.Store(int64(least))
	for level := range l.gates {
		var refusal *Refusal
		if reason := l.line.full(now, level, l.pace); reason != 0 {
			refusal = l.refusals.pick(reason, l.retry, l.turn())
		}
		if l.gates[level].Load() != refusal {
			l.gates[level].Store(refusal)
		}
	}
}
