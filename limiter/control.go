package limiter

import (
	"math"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// minWindow keeps the cost of the loop, about a microsecond a window, at a thousandth of a processor.
const minWindow = time.Millisecond

// control closes the window if it is due, and lets the controller choose the next limit. It runs on the path of
// whichever request finds the window due, by winning one compare-and-swap: a timer would starve just when it is
// needed. The controller runs without a lock, and no other window is due before it has answered: one that never
// returns costs the request that called it, and the last limit stays.
func (l *Limiter) control(now time.Duration) {
	due := l.due.Load()
	if int64(now) < due || !l.due.CompareAndSwap(due, math.MaxInt64) {
		return
	}
	completions := int64(0)
	for i := range l.shards {
		completions += l.shards[i].completions()
	}
	if completions < feedback.MinCompletions {
		l.due.Store(int64(now + minWindow))
		return
	}
	var sample feedback.Sample
	var found tally
	var came [places]float64
	l.patience.forget()
	for i := range l.shards {
		t := l.shards[i].roll(now, &sample, &came, &l.left, &l.patience)
		found.dry += t.dry
		found.earnest += t.earnest
	}
	sample.Limit = int(l.limit.Load())
	l.mu.Lock()
	hidden := l.dry.hides(found)
	sample.Work, sample.Useful = l.methods.observe(&l.left, l.pace, sample)
	l.left.forget()
	l.memory.learn(sample, l.aside())
	l.pace.observe(sample, l.patience.typical())
	if !hidden {
		l.pace.learn(sample)
	}
	l.threshold.observe(sample, &came, l.pace)
	l.parkOld(now, sample)
	l.dry.follow(sample, found, l.load.inFlight())
	l.turnOver(now, sample.Length())
	l.retry = l.pace.retryHint(sample)
	l.publishCut()
	l.publishPressure(now, sample.Limit)
	l.publishService()
	next, ok := l.wanted, true
	l.mu.Unlock()

	if !hidden {
		next, ok = l.ask(sample)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if ok {
		l.wanted = min(max(next, l.config.minLimit), l.config.maxLimit)
		l.setLimit(now)
	} else {
		l.controllerPanics++
	}
	l.due.Store(int64(now + max(minWindow, l.pace.service)))
}

// setLimit puts the limit in force that the controller wants, or what there is memory for. The caller holds mu.
func (l *Limiter) setLimit(now time.Duration) {
	limit := max(l.config.minLimit, min(max(l.wanted, l.dry.floor), l.config.maxLimit-int(l.parked.Load())))
	l.line.most = math.MaxInt
	l.room.Store(int64(l.memory.room))
	if room := l.memory.room; room > 0 {
		room = max(1, room-int(l.aside()))
		limit = max(l.config.minLimit, min(limit, room))
		l.line.most = max(shortLine, room-limit, room/8)
	}
	l.limit.Store(int64(limit))
	l.scarce.Store(limit < l.wanted)
	l.divide(now)
	l.serveLocked(now)
}

// ask calls the controller; ok is false if it panicked.
func (l *Limiter) ask(sample feedback.Sample) (next int, ok bool) {
	defer func() {
		if !ok {
			_ = recover() // what it says is the controller's own; that it happened is in Stats
		}
	}()
	return l.config.controller.Update(sample), true
}
