package limiter

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// Mark returns the congestion mark for requests of criticality c, from 0 to 1: how long a newcomer would wait now, over
// what may be waited in calm times or by the credit of the line, and 1 while newcomers are refused. So who is answered can
// hold back before anybody is refused. It takes no lock and allocates nothing.
//
// Marks in the place of losses are those of ECN (RFC 3168), and that they say how much, those of DCTCP (M. Alizadeh et al.,
// SIGCOMM 2010). A mark is of this instant, where [Limiter.Pressure] has a memory: what a request has waited itself is
// known only when it is over, by which time the line may be another.
func (l *Limiter) Mark(c Criticality) float64 {
	level := c.level()
	at := &l.outlooks[level]
	stands := float64(at.stands.Load())
	if stands <= 0 {
		return 0
	}
	if l.gates[level].Load() != nil {
		return 1
	}
	hidden := l.hidden()
	return min(1, (float64(at.wait.Load())+hidden)/(stands+hidden))
}

// hidden returns how many nanoseconds of the stay of a newcomer are a wait of another name: by Little's law, what is in
// flight beyond what may be in calm times, over the rate at which requests end. While the limit has no reason to come down
// to the knee, a line stands in the service, where the limiter does not see it.
func (l *Limiter) hidden() float64 {
	each, flying := math.Float64frombits(l.each.Load()), math.Float64frombits(l.flying.Load())
	return max(0, float64(l.load.inFlight())-flying) * each
}

// outlook is what newcomers of a criticality have to expect, in nanoseconds.
type outlook struct {
	wait   atomic.Int64 // for those ahead
	stands atomic.Int64 // what is marked with 1; 0: marks would say nothing
}

// publishOutlook makes public what marks are made of, calm being calmStay. The caller holds mu.
func (l *Limiter) publishOutlook(level int, calm time.Duration) {
	wait := time.Duration(0)
	if l.line.ahead(level) > 0 {
		wait = l.pace.wait(l.line.work(level))
	}
	l.outlooks[level].wait.Store(int64(wait))
	l.outlooks[level].stands.Store(int64(l.line.stands(level, l.pace, &l.threshold, calm)))
}

// calmStay returns how long a typical request stays in calm times: as long as now where that is not known. The caller holds
// mu.
func (l *Limiter) calmStay() time.Duration {
	if stay := time.Duration(l.pace.cost() * l.methods.calm()); stay > 0 {
		return min(stay, l.pace.service)
	}
	return l.pace.service
}

// publishService makes public at which rate requests end, and how many may be in flight though they do not wait for each
// other: as many as if they took as long as in calm times, and two standard deviations of the number of those who come
// independently of each other, so that nothing is marked for chance. Where no calm times are known nothing is hidden. The
// caller holds mu.
func (l *Limiter) publishService() {
	each, flying := 0., 0.
	if l.methods.calm() > 0 && l.pace.drain > 0 {
		each = float64(time.Second) / float64(l.pace.drain)
		flying = float64(l.calmStay()) / each
		flying += 2 * math.Sqrt(flying)
	}
	l.each.Store(math.Float64bits(each))
	l.flying.Store(math.Float64bits(flying))
}

// stands returns the wait that is marked with 1 for a level: what may stand, but no less than a quarter of what could in
// calm times. When the credit is spent refusals say all, and the waits of those few who may still wait would be marked ten
// times as high as just before; and when all of the time goes into a line in the service, that is what is to be marked. 0
// is for a line in which so few are the quarter already: it tells nothing that they do not.
func (l *line) stands(level int, p pace, t *threshold, calm time.Duration) time.Duration {
	least := p.credit(calm) / 4
	if least < p.wait(shortLine*p.cost()) {
		return 0
	}
	return max(l.room(level, p, t), least)
}

// NoteMark notes that the work of ctx has met a [Limiter.Mark], its own or that of something that it called, and
// [MarkMet] returns the highest, 0 if there is none. Both are to marks what [NotePressure] and [PressureMet] are to
// pressures.
func NoteMark(ctx context.Context, mark float64) {
	if a := admittedFrom(ctx); a != nil {
		a.mark.note(mark)
	}
}

// MarkMet returns the highest mark that the work of ctx has met, 0 if none.
func MarkMet(ctx context.Context) float64 {
	a := admittedFrom(ctx)
	if a == nil {
		return 0
	}
	return a.mark.read()
}
