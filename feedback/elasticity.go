package feedback

import (
	"math"
	"time"

	"github.com/spillway-go/spillway/littles"
)

// MinCompletions is how many completions a window should hold before it is worth a [Sample].
const MinCompletions = 16

const (
	headRoom   = 8.0
	setPoint   = 0.15
	gain       = 0.5
	wide       = 0.7
	widest     = 1.4
	narrow     = 0.2
	forgetting = 0.75
	lateShare  = 0.03
	above      = 0.7 // share of the dither above the centre
	calm       = 4
)

// Elasticity is the law.
type Elasticity struct {
	centre float64
	width  float64
	high   bool
	phase  littles.Window
	resume time.Duration // windows that start before it are still settling
	last   point
	sxx    float64
	sxy    float64
	free   free
	bound  bool
	hinted bool
	idle   int
	scv    float64
	prev   Sample
	Trace  func(format string, args ...any)
}

type point struct{ n, x, weight float64 }

type free struct{ n, x, w float64 }

func (e *Elasticity) Update(s Sample) int {
	if e.centre == 0 {
		e.centre = float64(s.Limit)
		e.width = wide
		e.scv = 1
	}
	n, x := s.Concurrency(), float64(s.Goodput())
	w := 0.0
	if s.Completions > 0 {
		w = s.Sum / float64(s.Completions)
	}
	e.noise(s)
	late := float64(s.Late) / float64(max(1, s.Completions))
	if late > lateShare && s.End > e.resume {
		e.bound = true
		e.centre = max(1, min(e.centre, n)*0.7)
		e.restart(s)
		e.trace("late %.2f centre %.1f", late, e.centre)
		return e.level(s)
	}
	if !s.Bound() {
		e.idle++
		if !e.bound || e.idle >= calm {
			return e.unbound(s, n, x, w)
		}
		return e.level(s)
	}
	if n < 0.75*float64(s.Limit) && !e.bound {
		return round(e.centre, s.Limit)
	}
	e.idle = 0
	if !e.bound {
		e.bound, e.hinted = true, false
		e.restart(s)
		e.resume = 0
		e.high = true
		e.trace("enter n %.1f x %.0f free %+v centre %.1f", n, x, e.free, e.centre)
		return round(e.centre, s.Limit)
	}
	if !e.hinted {
		e.hinted = true
		if hint := x*e.free.w*1.5 + 1; e.surged(s, x) && hint < e.centre {
			e.trace("hint n %.1f x %.0f free %+v centre %.1f", n, x, e.free, hint)
			e.centre = hint
			e.restart(s)
			return e.level(s)
		}
	}
	if s.Start < e.resume || n < 0.75*float64(s.Limit) {
		return e.level(s)
	}
	e.phase = e.phase.Add(s.Window)
	need := 32 * e.scv / (e.width * e.width)
	if float64(e.phase.Completions) < need {
		return e.level(s)
	}
	e.finish()
	e.resume = s.End + s.Latency()
	e.phase = littles.Window{}
	return e.level(s)
}

func (e *Elasticity) trace(f string, a ...any) {
	if e.Trace != nil {
		e.Trace(f, a...)
	}
}

func (e *Elasticity) level(s Sample) int {
	c := e.centre
	lo := math.Round(c * math.Exp(-e.width*(1-above)))
	lo = max(1, lo)
	if !e.high {
		return round(lo, s.Limit)
	}
	hi := math.Round(c * math.Exp(e.width*above))
	return round(max(hi, lo+1), s.Limit)
}

func (e *Elasticity) restart(s Sample) {
	e.phase = littles.Window{}
	e.last = point{}
	e.sxx, e.sxy = 0, 0
	e.width = wide
	e.resume = s.End + s.Latency()
}

// surged reports whether the load has risen above what was served before, and the service holds that rate.
func (e *Elasticity) surged(s Sample, x float64) bool {
	return e.free.w > 0 && x >= 0.8*e.free.x && float64(littles.PerSecond(float64(s.Offered), s.Length())) > 1.3*e.free.x
}

// noise learns the squared coefficient of variation of the work from how the throughput of neighbouring windows
// at the same limit differs: var(ln X1 - ln X2) = SCV (1/n1 + 1/n2).
func (e *Elasticity) noise(s Sample) {
	p := e.prev
	e.prev = s
	if p.Limit != s.Limit || p.Completions < 2 || s.Completions < 2 || p.Length() == 0 || s.Length() == 0 || !s.Bound() || !p.Bound() {
		return
	}
	d := math.Log(float64(p.Throughput()) / float64(s.Throughput()))
	a, b := float64(p.Completions), float64(s.Completions)
	e.scv += (d*d*a*b/(a+b) - e.scv) / 16
	e.scv = max(e.scv, 0.02)
}

func (e *Elasticity) unbound(s Sample, n, x, w float64) int {
	e.bound = false
	growing := float64(s.Arrivals) > 1.3*float64(s.Completions)
	if !growing && s.Completions > 0 {
		if e.free.w == 0 {
			e.free = free{n, x, w}
		}
		e.free.x += (x - e.free.x) / 16
		if w < e.free.w {
			e.free.w += (w - e.free.w) / 8
		} else {
			e.free.w += (w - e.free.w) / 1024
		}
		e.centre = max(e.centre, headRoom*e.free.x*e.free.w)
	}
	return round(e.centre, s.Limit)
}

// finish ends a phase: pairs it with the one before, and moves.
func (e *Elasticity) finish() {
	p := point{math.Log(e.phase.Concurrency()), math.Log(float64(e.phase.Goodput())), float64(e.phase.Completions)}
	if math.IsInf(p.x, 0) || math.IsInf(p.n, 0) {
		e.last = point{}
		return
	}
	q := e.last
	e.last = p
	e.high = !e.high
	if q.weight == 0 {
		return
	}
	dx, dy := p.n-q.n, p.x-q.x
	if math.Abs(dx) < 0.02 {
		return
	}
	w := p.weight * q.weight / (p.weight + q.weight)
	e.sxx = forgetting*e.sxx + w*dx*dx
	e.sxy = forgetting*e.sxy + w*dx*dy
	el := e.sxy / e.sxx
	se := math.Sqrt(e.scv / e.sxx)
	z := (el - setPoint) / se
	pair := dy / dx
	trust := min(1, 0.0625*w*dx*dx/e.scv)
	step := gain * min(e.width, wide) * trust * max(-1, min(1, pair-setPoint))
	switch {
	case z > 3 && pair > setPoint:
		step = max(step, e.width)
		e.width = min(widest, e.width*1.5)
		e.high = true
	case z < -1:
		step = min(step, -min(e.width, wide)/4)
		e.width = min(wide, e.width*1.25)
	case z > -0.5:
		e.width = min(wide, max(narrow, e.width*0.85))
	}
	e.centre = max(1, e.centre*math.Exp(step))
	e.trace("pair %.2f e %.2f se %.2f z %.1f centre %.1f width %.2f n=%.1f x=%.0f", pair, el, se, z, e.centre, e.width, math.Exp(p.n), math.Exp(p.x))
}
