package limiter

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// Pressure says how near the limiter that admitted the request of ctx is to refusing requests like it, from 0 to 1, so
// that a handler can answer with less, something cached or shorter, before anybody gets no answer at all:
//
//	if rand.Float64() < limiter.Pressure(ctx) {
//		return short, nil
//	}
//
// It is 0 while all fits well, rises before the first refusal, from about .8 of what can be served, and is 1 when not
// all of the criticality that ctx carries and of those above it can be served; for a lower criticality it is never
// less. It rises at once and falls slowly. For work that came neither through package interceptors nor with
// [ContextWithLimiter] it is 0. Reading it takes no lock and allocates nothing.
//
// The lots are there for a reason: with limiter.Pressure(ctx) > 0.5 all handlers change over at once, and back, what the
// work takes jumps, and the limit takes a while to follow it. At twice what can be answered in full, with short answers
// that take a fifth of the work, twice as many then get no answer.
//
// C. Klein et al., "Brownout: Building More Robust Cloud Applications", ICSE 2014.
func Pressure(ctx context.Context) float64 {
	l, _ := ctx.Value(limiterKey{}).(*Limiter)
	if l == nil {
		return 0
	}
	return l.Pressure(CriticalityFromContext(ctx))
}

// Pressure is the same for a criticality, where the limiter is at hand.
func (l *Limiter) Pressure(c Criticality) float64 {
	p := l.pressure.Load()
	if p == nil {
		return 0
	}
	return p.read(c.level(), l.now())
}

// ContextWithLimiter returns a context for the work of a request of criticality c that l has admitted: for [Pressure]
// and, as [ContextWithCriticality] does, for what the work calls. Where c is Unspecified, the criticality in ctx
// stays. The interceptors do it for their handlers.
func ContextWithLimiter(ctx context.Context, l *Limiter, c Criticality) context.Context {
	return ContextWithPermit(ctx, l, c, Permit{})
}

// ContextWithPermit is the same for a request that holds a permit, which [HandOver] can then suspend.
func ContextWithPermit(ctx context.Context, l *Limiter, c Criticality, p Permit) context.Context {
	return &admitted{Context: ctx, limiter: l, criticality: c, permit: p}
}

// NotePressure notes that the work of ctx has met a pressure in what it called, from 0 to 1: 1 where that refused it.
// [PressureMet] returns the highest, so that whoever answers for the work can tell its own caller. It does nothing for
// work that came neither through package interceptors nor with [ContextWithLimiter]. The interceptors of both sides do it.
func NotePressure(ctx context.Context, pressure float64) {
	if a := admittedFrom(ctx); a != nil {
		a.pressure.note(pressure)
	}
}

// PressureMet returns the highest pressure that the work of ctx has met in what it called, 0 if none.
func PressureMet(ctx context.Context) float64 {
	a := admittedFrom(ctx)
	if a == nil {
		return 0
	}
	return a.pressure.read()
}

type limiterKey struct{}
type admittedKey struct{}

// admitted is the context of a request that a limiter has admitted: several values for the price of one.
type admitted struct {
	context.Context
	limiter     *Limiter
	criticality Criticality
	pressure    highest
	mark        highest
	failed      atomic.Bool
	permit      Permit // zero: nobody said
	handed      handed
}

// admittedFrom returns what ctx carries, nil if it comes from no limiter.
func admittedFrom(ctx context.Context) *admitted {
	a, _ := ctx.Value(admittedKey{}).(*admitted)
	return a
}

func (a *admitted) Value(key any) any {
	switch key.(type) {
	case limiterKey:
		return a.limiter
	case admittedKey:
		return a
	case criticalityKey:
		if a.criticality != Unspecified {
			return a.criticality
		}
	}
	return a.Context.Value(key)
}

// String keeps whoever prints a context from reading the limiter's fields, which others write meanwhile.
func (a *admitted) String() string {
	outer, ok := a.Context.(fmt.Stringer)
	if !ok {
		return fmt.Sprintf("%T.WithLimiter", a.Context)
	}
	return outer.String() + ".WithLimiter"
}

// highest is the highest of what was noted, from 0 to 1: a float32.
type highest struct{ bits atomic.Uint32 }

func (h *highest) note(x float64) {
	if !(x > 0) { // nor NaN
		return
	}
	bits := math.Float32bits(float32(min(x, 1)))
	for {
		met := h.bits.Load()
		if bits <= met || h.bits.CompareAndSwap(met, bits) { // positive floats are ordered as their bits are
			return
		}
	}
}

func (h *highest) read() float64 { return float64(math.Float32frombits(h.bits.Load())) }

// pressure is what was made public when a window closed. It is never changed, only replaced.
type pressure struct {
	levels [levels]float64 // never less for a lower one
	closed time.Duration   // when the window did
	memory time.Duration   // in which it falls to 1/e
}

// The demand is what is asked of a level and all above it, over what there is: the load, relative to the limit, and the
// line, relative to what may stand. Where it is 1, the line has no end, or is at its end.
const (
	// comfortable is the demand up to which all fits well. Half of the way to 1 is then where threshold.fits ends, past
	// which not all can be served: there a handler should be about to answer with less.
	comfortable = 1 - 2*spare

	// faint is a pressure that no handler acts on: so the fall ends.
	faint = 1. / 64
)

// publishPressure makes public what the window that has closed showed. The caller holds mu.
//
// It rises at once, since what is smoothed is the load already, and falls over the memory of the load, or the time that
// a window takes, if that is longer: a handler that answers with less lowers the load, and would otherwise change its
// mind with every window.
func (l *Limiter) publishPressure(now time.Duration, limit int) {
	window := time.Duration(float64(l.pace.service) * max(1, feedback.MinCompletions/float64(limit)))
	next := pressure{closed: now, memory: loadMemory * max(minWindow, window, l.pace.fullCredit())}
	before := l.pressure.Load()
	above := 0.0
	for level := levels - 1; level >= 0; level-- {
		demand := l.threshold.loads[level] + l.line.standing(now, level, l.pace, &l.threshold)
		above = max(above, min(1, (demand-comfortable)/(1-comfortable)))
		next.levels[level] = above
		if before != nil {
			next.levels[level] = max(above, before.fallen(level, now-before.closed))
		}
	}
	if next.levels[0] == 0 {
		l.pressure.Store(nil)
		return
	}
	public := next // here, so that only this path allocates
	l.pressure.Store(&public)
}

// read returns the pressure at an instant. A window that is late to close, because nothing comes, is waited for as long
// as a memory, which is far longer than one takes under load; then the pressure falls by itself.
func (p *pressure) read(level int, now time.Duration) float64 {
	return p.fallen(level, now-p.closed-p.memory)
}

// fallen returns what is left after a time.
func (p *pressure) fallen(level int, after time.Duration) float64 {
	left := p.levels[level]
	if after > 0 {
		left *= math.Exp(-float64(after) / float64(p.memory))
	}
	if !(left >= faint) { // nor NaN
		return 0
	}
	return left
}

// standing returns which part of the line that may stand for a level does: 1 when its newcomers are refused. What spends
// the credit is a load above 1, which says so itself, so that the part is that of a full one.
func (l *line) standing(now time.Duration, level int, p pace, t *threshold) float64 {
	if l.full(now, level, p, t) != 0 {
		return 1
	}
	wait := p.wait(l.work(level))
	if l.ahead(level) < shortLine || wait <= 0 { // there is always room for so few
		return 0
	}
	return float64(wait) / float64(p.fullCredit())
}
