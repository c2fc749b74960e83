package limiter

import "time"

// shortLine is how many may wait in a standing line: enough that a permit that comes back always finds a taker,
// so that the limit goes on binding and the control law can see.
const shortLine = 3

// waiter is a request in the line. Its ready channel holds one element, so that a verdict never blocks.
type waiter struct {
	prev, next *waiter
	level      int
	cohort     int
	tenant     bool // it has one
	patient    bool
	inLine     bool
	deadline   time.Duration // 0: none
	came       time.Duration
	ready      chan struct{}

	// The verdict, written before ready is signalled.
	permit  Permit
	refusal *Refusal
}

// yields reports whether the waiter may be overtaken by a better tenant, and lose its place to one.
func (w *waiter) yields() bool { return w.tenant && !w.patient }

// queue holds the waiters of one criticality in the order in which they came.
//
// It may stand for as long as a burst can: credit is filled while less comes than can be served, and spent while
// somebody waits. When it is spent the queue is standing, and only shortLine may wait.
type queue struct {
	oldest, newest *waiter
	length         int
	credit         time.Duration
	counted        time.Duration // credit is right for this instant
}

// put places a waiter behind another, or first of all if that is nil.
func (q *queue) put(w, behind *waiter) {
	w.prev, w.next = behind, q.oldest
	if behind != nil {
		w.next = behind.next
		behind.next = w
	} else {
		q.oldest = w
	}
	if w.next != nil {
		w.next.prev = w
	} else {
		q.newest = w
	}
	q.length++
	w.inLine = true
}

func (q *queue) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.oldest = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.newest = w.prev
	}
	w.prev, w.next, w.inLine = nil, nil, false
	q.length--
}

// count brings the credit up to now. It is filled in proportion to what is left of the limit by all that comes of
// this criticality and above, and spent in proportion to the wait of who came first. Work that fits thus keeps
// its credit however often somebody waits for a moment; work that does not gets none, however often nobody does.
func (q *queue) count(now, full time.Duration, load float64) {
	passed := now - q.counted
	if passed <= 0 {
		return
	}
	q.counted = now
	change := filling * max(0, 1-load)
	if q.length > 0 && full > 0 {
		change -= spending * float64(now-q.oldest.came) / float64(full)
	}
	q.credit = max(0, min(full, q.credit+time.Duration(change*float64(passed))))
}

// How fast credit comes and goes, relative to time: while nothing is offered, and while somebody has waited for
// all of it.
const filling, spending = 2, 1.5

// line is everybody who waits for a permit: a queue for each criticality, the most critical served first.
type line struct {
	queues [levels]queue
	length int // of all queues
}

// ahead returns how many would be served before a newcomer of the level.
func (l *line) ahead(level int) int {
	n := 0
	for i := level; i < levels; i++ {
		n += l.queues[i].length
	}
	return n
}

// next returns who is served next, or nil.
func (l *line) next() *waiter {
	if l.length == 0 {
		return nil
	}
	for i := levels - 1; i >= 0; i-- {
		if q := &l.queues[i]; q.length > 0 {
			return q.oldest
		}
	}
	return nil
}

// worst returns who has to go first when there are too many: the oldest of the lowest criticality below level,
// or nil. Patient ones never go.
func (l *line) worst(level int) *waiter {
	for i := range level {
		if w := l.queues[i].oldest; w != nil && !w.patient {
			return w
		}
	}
	return nil
}

// heaviest returns who of the level has to go first when a better tenant comes: the lowest cohort among those who came
// last, or nil.
func (l *line) heaviest(level int) (worst *waiter) {
	w := l.queues[level].newest
	for range lookBack {
		if w == nil {
			break
		}
		if w.yields() && (worst == nil || w.cohort < worst.cohort) {
			worst = w
		}
		w = w.prev
	}
	return worst
}

// lookBack bounds the work of heaviest. A line that stands is shorter.
const lookBack = 8

// push puts a waiter at the end of its queue; one that overtakes passes those of a lower cohort.
func (l *line) push(now time.Duration, w *waiter, overtakes bool, p pace, t *threshold) {
	q := &l.queues[w.level]
	q.count(now, p.fullCredit(), t.loads[w.level])
	behind := q.newest
	for i := 0; overtakes && i < lookBack && behind != nil && behind.yields() && behind.cohort < w.cohort; i++ {
		behind = behind.prev
	}
	q.put(w, behind)
	l.length++
}

func (l *line) remove(now time.Duration, w *waiter, p pace, t *threshold) {
	q := &l.queues[w.level]
	q.count(now, p.fullCredit(), t.loads[w.level])
	q.remove(w)
	l.length--
}

// admits returns 0 if a newcomer of the level may wait, or why it may not. A deadline of 0 is none.
func (l *line) admits(now time.Duration, level int, deadline time.Duration, p pace, t *threshold) Reason {
	ahead := l.ahead(level)
	wait := p.wait(ahead)
	if deadline > 0 && deadline-now < wait+p.service {
		return ReasonDeadline
	}
	if reason := l.full(now, level, p, t); reason != 0 {
		return reason
	}
	if deadline > 0 && ahead >= shortLine && deadline-now < wait+p.need() {
		return ReasonDeadline
	}
	return 0
}

// full returns 0 if there is room for one more of the level, or why there is not.
func (l *line) full(now time.Duration, level int, p pace, t *threshold) Reason {
	q, ahead := &l.queues[level], l.ahead(level)
	q.count(now, p.fullCredit(), t.loads[level])
	if ahead < shortLine {
		return 0
	}
	room := q.credit
	if t.loads[level] < 1 {
		room = p.fullCredit() // what fits is a burst, however long
	}
	if p.drain > 0 && p.wait(ahead) <= room || p.drain <= 0 && ahead < p.first {
		return 0
	}
	if ahead > q.length {
		return ReasonCriticality
	}
	return ReasonLimit
}
