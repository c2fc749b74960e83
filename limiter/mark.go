package limiter

import (
	"context"
	"time"
)

// Mark returns the congestion mark of a request of criticality c that has been admitted after a wait of sojourn in the
// line: the wait over what may stand now, from 0 to 1. So who it is answered to can hold back before anybody is refused.
// It takes no lock and allocates nothing.
//
// Marks in the place of losses are those of ECN (RFC 3168), and that they say how much, those of DCTCP (M. Alizadeh et al.,
// SIGCOMM 2010). A mark is of one request, where [Limiter.Pressure] is of all: it has no memory, and thus no lag.
func (l *Limiter) Mark(c Criticality, sojourn time.Duration) float64 {
	stands := time.Duration(l.stands[c.level()].Load())
	if sojourn <= 0 || stands <= 0 {
		return 0
	}
	return min(1, float64(sojourn)/float64(stands))
}

// stands returns the wait that is marked with 1 for a level: what may stand, but no less than a quarter of a full credit.
// When the credit is spent refusals say all, and the waits of those few who may still wait would be marked ten times as
// high as just before. 0 is for a line in which so few are the quarter already: it tells nothing that they do not.
func (l *line) stands(level int, p pace, t *threshold) time.Duration {
	least := p.fullCredit() / 4
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
