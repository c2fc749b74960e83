package limiter

import (
	"math"
	"time"
)

// shortLine is how many may always wait in a standing line, and seldom for which part of the time it may be empty: enough
// that a permit that comes back finds a taker, so that the limit goes on binding and the control law can see.
const (
	shortLine = 3
	seldom    = 0.05
)

// standingLine returns how many may wait in a standing line where so much comes, as a part of what can be served: shortLine,
// or so many that it is seldom empty. A line of k places to which a load r comes at random is empty for
// (r - 1) / (r^(k+1) - 1) of the time (Kleinrock, Queueing Systems I, 3.6): the nearer r is to 1, the more it takes.
func standingLine(r float64) int {
	k := math.Ceil(math.Log1p((r-1)/seldom)/math.Log(r) - 1)
	if !(r > 1 && k > shortLine) { // nor NaN
		return shortLine
	}
	return int(k)
}

// waiter is a request in the line. Its ready channel holds one element, so that a verdict never blocks.
type waiter struct {
	claim
	links    [2]links
	patient  bool
	reserved bool // has no place of its own: it waits for what its group is guaranteed
	inLine   bool
	came     time.Duration
	ready    chan struct{}

	// The verdict, written before ready is signalled.
	permit  Permit
	refusal *Refusal
}

// tell gives the waiter its verdict.
func (w *waiter) tell(p Permit, refusal *Refusal) {
	if d := w.dry; d != nil { // nobody waits for it
		d.hear(p, refusal)
		d.limiter.waiters.Put(w)
		return
	}
	w.permit, w.refusal = p, refusal
	w.ready <- struct{}{}
}

func (w *waiter) level() int  { return w.at.level() }
func (w *waiter) cohort() int { return w.at.cohort() }

// yields reports whether the waiter may be overtaken by a better tenant, and lose its place to one.
func (w *waiter) yields() bool { return w.tenant != 0 && !w.patient }

// links are the neighbours of a waiter in a list. It can be in two, that of the line and that of its group.
type links struct{ prev, next *waiter }

const byLine, byGroup = 0, 1

// list holds waiters, most often in the order in which they came.
type list struct {
	oldest, newest *waiter
	length         int
	by             int // which of the links
}

// queue holds the waiters of one criticality in the order in which they came.
//
// It may stand for as long as a burst can. When its credit is spent the queue is standing, and only a few may wait: see
// standingLine.
type queue struct {
	list
	burst
	work float64 // of all that wait
}

// burst is how long people may wait: credit is filled while less comes than can be served, and spent while somebody
// waits.
type burst struct {
	credit  time.Duration
	counted time.Duration // credit is right for this instant
}

// put places a waiter behind another, or first of all if that is nil.
func (l *list) put(w, behind *waiter) {
	at := links{behind, l.oldest}
	if behind != nil {
		at.next = behind.links[l.by].next
		behind.links[l.by].next = w
	} else {
		l.oldest = w
	}
	if at.next != nil {
		at.next.links[l.by].prev = w
	} else {
		l.newest = w
	}
	w.links[l.by] = at
	l.length++
}

func (l *list) remove(w *waiter) {
	at := w.links[l.by]
	if at.prev != nil {
		at.prev.links[l.by].next = at.next
	} else {
		l.oldest = at.next
	}
	if at.next != nil {
		at.next.links[l.by].prev = at.prev
	} else {
		l.newest = at.prev
	}
	w.links[l.by] = links{}
	l.length--
}

// behind returns whom a newcomer comes behind: the last; one that overtakes passes those of a lower cohort.
func (l *list) behind(w *waiter, overtakes bool) *waiter {
	last := l.newest
	for i := 0; overtakes && i < lookBack && last != nil && last.yields() && last.cohort() < w.cohort(); i++ {
		last = last.links[l.by].prev
	}
	return last
}

// count brings the credit up to now. The load is all that comes of this criticality and above, and the wait that of who
// came first. Work that fits thus keeps its credit however often somebody waits for a moment; work that does not gets
// none, however often nobody does.
func (q *queue) count(now, full time.Duration, load float64) {
	wait := time.Duration(0)
	if q.length > 0 {
		wait = now - q.oldest.came
	}
	q.burst.count(now, full, load, wait)
}

// count brings the credit up to now: filled in proportion to what the load leaves of what can be served, and spent in
// proportion to the wait and to what the load has above that. Callers that heed marks keep the load near 1, now above and
// now below: there the line is theirs to steer.
func (b *burst) count(now, full time.Duration, load float64, wait time.Duration) {
	passed := now - b.counted
	if passed <= 0 {
		return
	}
	b.counted = now
	change := filling * max(0, 1-load)
	if full > 0 {
		change -= spending * min(1, max(0, load-1)/plenty) * float64(wait) / float64(full)
	}
	b.credit = max(0, min(full, b.credit+time.Duration(change*float64(passed))))
}

// How fast credit comes and goes, relative to time: while nothing is offered, and while somebody has waited for all of it
// and plenty comes besides what can be served.
const filling, spending, plenty = 2, 1.5, 1.5

// line is everybody who waits for a permit: a queue for each criticality, the most critical served first. But before
// all come those of a group that has less than it is guaranteed; see bulkhead.go. Who found no place in a queue, and
// waits for that alone, is in reserve: it takes nobody's place, and another permit only if nobody as critical waits.
type line struct {
	queues   [levels]queue
	reserves [levels]list
	groups   []*group
	length   int // of all queues and reserves
	most     int // that there is memory for
	grouped  int // how many of them are of a group
}

// ahead returns how many would be served before a newcomer of the level.
func (l *line) ahead(level int) int {
	n := 0
	for i := level; i < levels; i++ {
		n += l.queues[i].length
	}
	return n
}

// work returns what would be served before a newcomer of the level.
func (l *line) work(level int) float64 {
	work := 0.0
	for i := level; i < levels; i++ {
		work += l.queues[i].work
	}
	return work
}

// next returns who is served next, or nil.
func (l *line) next() *waiter {
	if l.length == 0 {
		return nil
	}
	if w := l.owed(); w != nil {
		return w
	}
	for i := levels - 1; i >= 0; i-- {
		if q := &l.queues[i]; q.length > 0 {
			return q.oldest.turn()
		}
		if r := &l.reserves[i]; r.length > 0 {
			return r.oldest
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
		if w.yields() && (worst == nil || w.cohort() < worst.cohort()) {
			worst = w
		}
		w = w.links[byLine].prev
	}
	return worst
}

// lookBack bounds the work of heaviest and of behind. A line that stands is hardly ever longer, but where little more comes
// than can be served: there they choose among those who came last.
const lookBack = 8

// push puts a waiter at the end of its queue, or of the reserve; one that overtakes passes those of a lower cohort.
func (l *line) push(now time.Duration, w *waiter, overtakes bool, p pace, t *threshold) {
	l.stand(now, w, overtakes, p, t)
	l.length++
	w.inLine = true
	if w.group != nil {
		w.group.count(now, p, l.most)
		w.group.put(w, overtakes)
		l.grouped++
	}
}

func (l *line) remove(now time.Duration, w *waiter, p pace, t *threshold) {
	l.leave(now, w, p, t)
	l.length--
	w.inLine = false
	if w.group != nil {
		w.group.count(now, p, l.most)
		w.group.remove(w)
		l.grouped--
	}
}

// stand gives a waiter a place in its queue or in the reserve, and leave takes it.
func (l *line) stand(now time.Duration, w *waiter, overtakes bool, p pace, t *threshold) {
	if w.reserved {
		l.reserves[w.level()].put(w, l.reserves[w.level()].newest)
		return
	}
	q := &l.queues[w.level()]
	q.count(now, p.fullCredit(), t.loads[w.level()])
	q.put(w, q.behind(w, overtakes))
	q.work += w.work()
}

func (l *line) leave(now time.Duration, w *waiter, p pace, t *threshold) {
	if w.reserved {
		l.reserves[w.level()].remove(w)
		return
	}
	q := &l.queues[w.level()]
	q.count(now, p.fullCredit(), t.loads[w.level()])
	q.remove(w)
	if q.work -= w.work(); q.length == 0 {
		q.work = 0 // whatever the roundings
	}
}

// admits returns 0 if a newcomer may wait, or why it may not.
func (l *line) admits(now time.Duration, c *claim, p pace, t *threshold) Reason {
	level := c.at.level()
	wait, stay, left := p.wait(l.work(level)), p.stay(c.cost), c.deadline-now
	if c.deadline > 0 && left < wait+stay {
		return ReasonDeadline
	}
	if reason := l.full(now, level, p, t); reason != 0 {
		return reason
	}
	if c.deadline > 0 && l.ahead(level) >= shortLine && left < wait+time.Duration(margin*float64(stay)) {
		return ReasonDeadline
	}
	return 0
}

// full returns 0 if there is room for one more of the level, or why there is not.
func (l *line) full(now time.Duration, level int, p pace, t *threshold) Reason {
	q, ahead := &l.queues[level], l.ahead(level)
	q.count(now, p.fullCredit(), t.loads[level])
	work := l.work(level)
	if l.few(level, ahead, work, p, t) {
		return 0
	}
	if ahead < l.most && (p.drain > 0 && p.wait(work) <= l.room(level, p, t) || p.drain <= 0 && ahead < p.first) {
		return 0
	}
	if ahead > q.length {
		return ReasonCriticality
	}
	return ReasonLimit
}

// few reports whether so many, with so much work, are few enough for one more of the level behind them in a standing line.
// But for the first three none waits longer than a burst would, or where there is no memory for more.
func (l *line) few(level, ahead int, work float64, p pace, t *threshold) bool {
	return ahead < shortLine || ahead < min(t.lines[level], l.most) && p.wait(work) <= p.fullCredit()
}

// room returns how long the line may stand for a level, but for the few who may always wait. The credit is that of now.
func (l *line) room(level int, p pace, t *threshold) time.Duration {
	if t.loads[level] < 1 {
		return p.fullCredit() // what fits is a burst, however long
	}
	return l.queues[level].credit
}
