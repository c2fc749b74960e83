package limiter

import (
	"math"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// Some requests only wait for something that does not come for long, such as a Watch or a long poll. They are in flight
// meanwhile, but a limit is learned from what ends, and says nothing of what does not. As many of them as the limit would
// leave nothing for anybody else, for good.
//
// So requests that stay for very long are parked: they go on, and take none of the limit any more, until they end. That is
// done where nothing is lost by letting in more: while nobody waits for a permit, so that more may come anyway; and where
// the limiter stands still, since nobody is served then who could be served worse. While requests wait and some are served,
// all that are in flight count, however long they stay: what stays may be at work.
//
// And it is done for those that say nothing of a deadline, for one ends what only waits, too; and for methods of which more
// stay for very long than have ever ended well before that. Those of any other are stuck: in a callee that hangs, or in a
// lock. To send more after them would only make the heap higher that has to be worked off when it gives way. Where one that
// was parked ends well, it was at work after all, and very long is so many times as long as that from then on.

// Very long is so many times the mean time from permit to release, or leastStill where that is longer or not known. Shorter
// would be a pause of the process, or a callee that is somewhat slower; longer, and an operator would notice.
const (
	stillFor   = 8
	leastStill = time.Second
)

func (p pace) veryLong() time.Duration { return max(leastStill, stillFor*p.service) }

// looks is how often a limiter looks whether it stands still, in the time that it takes to be sure.
const looks = 4

// watch sees to it that a limiter which stands still gets going again. From when somebody has to wait until nobody does and
// there are permits, a timer looks now and then whether any has been given; the line cannot, for nobody may come to it. The
// caller holds mu.
func (l *Limiter) watch() {
	if l.watched || l.dry.fixed {
		return
	}
	l.watched = true
	time.AfterFunc(l.pace.veryLong()/looks, func() {
		now := l.now()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.watched = false
		if given := l.given(); given != l.before {
			l.before, l.seen = given, now
		}
		if l.line.length == 0 && int64(l.load.inFlight()) < l.limit.Load() {
			return
		}
		if now-l.seen >= l.pace.veryLong() {
			l.restart(now)
		}
		l.watch()
	})
}

// given returns how many permits were given since the start.
func (l *Limiter) given() (n uint64) {
	for i := range l.shards {
		n += l.shards[i].read().admitted
	}
	return n
}

// restart gets a limiter going that stands still. The open window then shows nothing of what the limit does. The caller holds
// mu.
func (l *Limiter) restart(now time.Duration) {
	due := l.due.Load()
	if !l.due.CompareAndSwap(due, math.MaxInt64) {
		return // whoever closes the window has seen something end
	}
	if l.park(now) {
		var window feedback.Sample
		var came [places]float64
		for i := range l.shards {
			l.shards[i].roll(now, &window, &came, &l.left, &l.patience)
		}
		l.left.forget()
		l.serveLocked(now)
	}
	l.due.Store(due)
}

// parkOld parks what has stayed for very long, looked for once in a while, where nobody waits. The caller holds mu.
func (l *Limiter) parkOld(now time.Duration, s feedback.Sample) {
	if s.Bound() || now < l.parks || l.dry.fixed {
		return
	}
	l.parks = now + l.pace.veryLong()/looks
	l.park(now)
}

// park parks those in flight who have stayed for very long, if that is how their method is, as far as there is memory for as
// many more, and WithMaxLimit allows it. It reports whether any were. The caller holds mu.
func (l *Limiter) park(now time.Duration) bool {
	more := int64(l.config.maxLimit) - l.limit.Load() - l.parked.Load()
	if room := l.room.Load(); room > 0 {
		more = min(more, room-l.inside())
	}
	var waits waits
	for method := range waits.since {
		waits.since[method] = now - max(l.pace.veryLong(), stillFor*time.Duration(l.methods.slowest[method].Load()))
	}
	for i := range l.shards {
		l.shards[i].countOld(&waits)
	}
	parked := int64(0)
	for i := range l.shards {
		weight := l.shards[i].park(now, &waits, &l.methods, more-parked)
		l.parked.Add(weight)
		l.load.leave(int32(weight))
		parked += weight
	}
	return parked > 0
}

// waits are, for each method, since when a request has to be in flight to have stayed for very long, and how many are.
type waits struct {
	since [maxMethods]time.Duration
	stay  [maxMethods]float64
}

// old reports whether a request has stayed for very long, and nothing else will end it.
func (w *waits) old(held *slot) bool {
	return held.taken() && held.deadline == 0 && held.start <= w.since[held.method]
}

// countOld counts those that have stayed for very long, parked or not.
func (s *shard) countOld(w *waits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if held := &s.slots[i]; w.old(held) {
			w.stay[held.method]++
		}
	}
}

// park takes requests of at most that weight, that have stayed for very long as their method does, out of flight until they
// end, and returns their weight.
func (s *shard) park(now time.Duration, w *waits, m *methods, most int64) (weight int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		held := &s.slots[i]
		if !w.old(held) || held.paused || w.stay[held.method] <= m.ended[held.method] || weight+int64(held.weight) > most {
			continue
		}
		held.parked, held.paused, held.pausedAt = true, true, now
		held.count(-1)
		s.meter.Pause(now, int(held.weight))
		weight += int64(held.weight)
	}
	return weight
}
