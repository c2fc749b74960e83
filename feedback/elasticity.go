package feedback

import (
	"math"
	"time"

	"github.com/spillway-go/spillway/littles"
)

// MinCompletions is how many completions a window should hold before it is worth a [Sample]: with fewer, the
// throughput of even the steadiest work is known to a quarter at best.
const MinCompletions = 16

// Elasticity finds the knee of a service by experiment: the fewest requests in flight at which goodput is at its
// highest.
//
// Its set-point is the elasticity of goodput to concurrency, e = d ln X / d ln N. Near 1, more in flight gives as
// much more goodput: nothing contends, however slow the service is. Near 0 the service is saturated, and below 0
// it does less the more is asked of it. By Little's law (N = X W) the elasticity of latency is 1 - e, so latency
// says the same, but only X needs no baseline.
//
// While the limit holds the load back it stands a phase above its centre and a phase below, in turn. Each phase
// is paired with the one before; the centre moves by what the pair shows, and in leaps where several pairs leave
// no doubt. Where more than lately is done, a probe tells whether a higher limit gives more still. While the limit
// does not bind, it only keeps some head-room. The whole law, and what was tried, is in docs/law.md.
//
// The zero Elasticity is ready for use, starts from the limit that the first sample was under, and has no
// settings: all its constants are dimensionless. It belongs to one limiter, and is not safe for concurrent use.
type Elasticity struct {
	centre float64       // of the dither, in requests; 0 before the first sample
	width  float64       // of the dither, in units of ln N
	high   bool          // this phase stands above the centre
	phase  stretch       // what it has shown so far
	resume time.Duration // windows that began before still show what was before the last change
	held   int           // upper phases in which something else held the limit below the centre, since it last looked below
	last   point         // the phase before
	lately [2]point      // what phases have shown lately, below the centre and above

	// The regression of ln X on ln N over pairs of phases, with forgetting.
	sxx, sxy float64

	changes

	noise  noise
	wander wander
	free   free
	full   float64 // goodput at the knee when it was last found, in work per second; 0: never
	tardy  float64 // share of what was admitted that ended late, lately
	bound  bool    // the limit binds
	told   bool    // and the first guess of the knee has been made
	rate   float64 // useful work per second, lately
	calm   int     // windows in a row in which it did not bind
}

// stretch is some windows, and the work that was of use in them.
type stretch struct {
	littles.Window
	useful float64
}

// point is a phase, or what several have shown, as a point of the curve: ln N, ln X and how many completions it rests on.
type point struct{ n, x, weight float64 }

// free is what the service did when nothing held it back.
type free struct {
	goodput float64 // useful work per second, lately, while the limit did not bind
	service float64 // seconds of stay for each unit of work at best; forgotten slowly
	waits   float64 // requests in flight lately that do not end, such as long polls
}

// The constants of the law. None has a dimension.
const (
	// The elasticity at which the centre rests where a request stays for e^slowEnough times as long as at best, or as its
	// work takes, or longer. At 0 the limit would drift over a plateau for ever; the more above 0, the more goodput is
	// given away at the knee, to win time. The less of a stay is waiting, the less time there is to win: the set-point
	// falls with ln W, to 0.
	setPoint, slowEnough = 0.08, math.Ln2

	// The dither's width, as ln of the ratio of its levels: a factor of two where little is known, four for the leaps
	// of a limit that is far too low, an eighth at rest, and a quarter at rest where all wait: a pair takes
	// perPhase * SCV / width² completions and moves the centre in proportion to the width, so that a narrower dither
	// would need minutes to come down from far above the knee. Where work is noisy so would that, hence times sqrt(SCV).
	wide, widest, narrow, narrowest = 0.7, 1.4, 0.25, 0.12

	// The part of the width that lies above the centre. In flight below the knee costs goodput, above it only time.
	above = 0.7

	// A phase lasts until perPhase * SCV / width² completions have been seen, so that every pair knows e to
	// sqrt(2 / perPhase) = 0.25 however noisy the work is and however narrow the dither; somewhat more above
	// the centre and less below, where it costs goodput.
	perPhase            = 32
	highPart, lowPart   = 1.5, 0.6
	forgetting          = 0.85       // of the evidence at each pair or phase: it remembers some seven
	gain                = 0.5        // share of the width by which a pair with e one off moves the centre
	leap, fall, near    = 3, -1, 1.5 // standard errors from the set-point: beyond doubt above, clear below, and what chance makes
	plain               = 4          // the same for an unfinished phase, which is looked at many times
	fallStep            = 0.25       // of the width, when clearly saturated
	widen, shrink       = 1.5, 0.85
	widenFalling        = 1.15
	pull                = 0.5 // extra fall where a request stays for longer than e^slowEnough times its best and e is short
	lateShare, lateStep = 0.03, 0.7
	lateMemory          = 112 // completions: one that is late in a window of 16 is chance, three are not
	memory              = 256 // windows, of how long requests stay at best
	headRoom            = 8   // times what was in flight at best service: a callee may become that much slower unnoticed
	surge, steady       = 1.3, 0.8
	hint                = 1.5       // times X W, the knee by Little's law; W is taken at its best, which is low
	oblivion            = 1. / 1024 // by which a known knee gives way to head-room, each window in which nothing binds
	stalled, rateMemory = 0.25, 16  // of the goodput of the last windows: below, the service stands still
	growing             = 2         // times what ends may be in flight because more comes than goes; what is beyond only waits
	heldPhases          = 32        // of which one with a lower limit after it costs a hundredth of the goodput at most, where all is needed
	calmWindows         = 6         // in fewer, those in flight may only be growing to a higher limit
)

// Update takes a window and returns the next limit.
func (e *Elasticity) Update(s Sample) int {
	if e.centre == 0 {
		e.centre, e.width = float64(s.Limit), wide
	}
	s = s.weighed()
	e.noise.learn(s)
	e.free.learn(s)
	e.rate += (s.per(s.Useful) - e.rate) / rateMemory
	switch {
	case e.late(s):
		return e.level(s)
	case !s.Bound() && !e.aboveCentre(s):
		return e.unbound(s)
	case !e.bound:
		return e.enter(s)
	}
	e.calm = 0
	if !e.told {
		e.told = true
		if e.guess(s) {
			return e.level(s)
		}
	}
	if s.Start < e.resume {
		return e.level(s) // not yet what this limit gives
	}
	if e.probing {
		e.probe(s)
		return e.level(s)
	}
	if s.Concurrency() < 0.75*float64(s.Limit) && !e.aboveCentre(s) {
		return e.level(s) // not all the time what this limit gives
	}
	if e.changed(s) {
		e.restart(s)
		e.high = true
		return e.level(s)
	}
	e.phase = e.phase.and(s)
	if e.done() {
		if e.high {
			e.lookBelow(s)
		}
		e.finish()
		e.settle(s)
	}
	if e.suspects() {
		e.probing = true
		e.wait(s)
	}
	return e.level(s)
}

// aboveCentre reports whether more is in flight than would be at the centre, in a phase above it: that shows something,
// whether the limit binds or not.
func (e *Elasticity) aboveCentre(s Sample) bool {
	return e.bound && (e.high || e.probing) && s.Concurrency() > e.centre
}

// level returns the limit of the phase, or of the probe, which is like the upper phase of a wide dither.
func (e *Elasticity) level(s Sample) int {
	low, high := e.levels(e.width)
	switch {
	case e.probing:
		_, probe := e.levels(wide)
		return round(probe, s.Limit)
	case e.high:
		return round(high, s.Limit)
	}
	return round(low, s.Limit)
}

// levels returns the limits below and above the centre of a dither of a width.
func (e *Elasticity) levels(width float64) (low, high float64) {
	low = max(1, math.Round(e.centre*math.Exp(-width*(1-above))))
	return low, max(low+1, math.Round(e.centre*math.Exp(width*above)))
}

// heldDown reports whether something else, such as a highest limit or the memory that there is, holds the limit below the
// centre.
func (e *Elasticity) heldDown(s Sample) bool {
	return float64(s.Limit) < math.Round(e.centre)
}

// lookBelow ends an upper phase. If something else holds the limit down, both phases may be under the same limit and show
// nothing, and should the service become weaker the limit would never come down. So, once for many of them, what is in force
// becomes the upper level. Where all of it is needed a pair finds that out.
func (e *Elasticity) lookBelow(s Sample) {
	if !e.heldDown(s) {
		return
	}
	if e.held++; e.held == heldPhases {
		e.held, e.centre = 0, max(1, float64(s.Limit)*math.Exp(-above*e.width))
	}
}

// settle begins a phase.
func (e *Elasticity) settle(s Sample) {
	e.phase = stretch{}
	e.wait(s)
}

// wait is for what was in flight before a change of the limit: it has to leave first, which takes about one stay.
func (e *Elasticity) wait(s Sample) {
	e.resume = s.End + min(s.Latency(), s.Length()) // by Little's law W of a window in which nothing ends is without bound
}

// stalls reports whether nearly nothing of use ends, compared with what did a moment ago: the service stands still, of
// which the limit is not the cause.
func (e *Elasticity) stalls(s Sample) bool {
	return s.per(s.Useful) < stalled*e.rate
}

// restart forgets the evidence, which was about another state of affairs.
func (e *Elasticity) restart(s Sample) {
	e.settle(s)
	e.last, e.lately, e.width = point{}, [2]point{}, wide
	e.sxx, e.sxy, e.changes = 0, 0, changes{}
}

// late lowers the limit while answers come too late, whatever the elasticity: what is served late at full speed
// is no goodput. But where a request stays about as long as at best, nothing in flight is what makes it late: some work
// is longer than its deadline, and with a lower limit it would still be.
func (e *Elasticity) late(s Sample) bool {
	part := float64(s.Completions) / (float64(s.Completions) + lateMemory)
	e.tardy += part * (float64(s.Late)/float64(max(1, s.Completions)) - e.tardy)
	far := 2*s.Late > s.Completions // too much is in flight for there to be time to wait, or to come down in steps
	if e.tardy <= lateShare || s.End <= e.resume && !far {
		return false
	}
	if e.probing { // which is what makes it late
		e.tardy = 0
		e.refute(s)
		return true
	}
	rate := s.per(s.Work)
	if e.stalls(s) {
		rate = max(rate, e.rate)
	}
	knee := hint*rate*e.free.service + 1
	was := min(e.centre, s.Concurrency())
	next := max(knee, lateStep*was)
	if far {
		next = knee
	}
	if next >= was {
		return false
	}
	e.bound, e.tardy = true, 0
	e.centre = next
	e.restart(s)
	return true
}

// unbound holds the limit while it holds nothing back, with head-room over what is in use. Once the knee is known it
// has less: callers that send no more than is taken would fill all of the head-room with a queue.
func (e *Elasticity) unbound(s Sample) int {
	if e.calm++; e.bound && e.calm < calmWindows {
		return e.level(s)
	}
	if e.bound && e.sxy > 0.5*e.sxx {
		e.centre = max(e.centre, float64(s.Limit)) // what was given was used: so much is needed
	} else if e.bound && e.sxx > 0 {
		e.full = math.Exp(max(e.lately[0].x, e.lately[1].x))
	}
	e.bound = false
	e.free.rate(s)
	e.free.wait(s)
	room := headRoom * e.free.goodput * e.free.service
	if e.full > 0 {
		room = min(room, e.centre*(1+oblivion))
	}
	e.centre = max(e.centre, room)
	return e.spacious(s)
}

// spacious returns the limit while it does not bind: what only waits has room beside what ends.
func (e *Elasticity) spacious(s Sample) int { return round(e.centre+e.free.waits, s.Limit) }

// enter begins to look for the knee when the limit begins to bind.
func (e *Elasticity) enter(s Sample) int {
	if s.Concurrency() < 0.75*float64(s.Limit) {
		return e.spacious(s) // it bound for a moment only
	}
	e.centre = float64(s.Limit) // what is in force: with room for what waits, or what something else holds it down to
	e.bound, e.told, e.calm, e.high = true, false, 0, true
	e.restart(s)
	if e.full > 0 && s.per(s.Useful) >= steady*e.full { // no less than before: the knee is where it was
		e.told, e.resume = true, 0
		return round(e.centre, s.Limit)
	}
	if e.free.goodput > 0 && !e.surged(s) { // no more load than before, but slower: see first whether there is room for all
		e.told, e.width = true, widest
		return e.level(s)
	}
	e.resume = 0             // this limit was in force before
	if e.free.goodput == 0 { // nothing is known, not even that there was a time of less: look below the limit first
		e.centre = max(1, e.centre*math.Exp(-above*e.width))
		return e.level(s)
	}
	return round(e.centre, s.Limit)
}

// surged reports whether more is asked for than was served before, while the service holds that rate. A window that is
// shorter than a stay cannot tell: what was admitted together also leaves together.
func (e *Elasticity) surged(s Sample) bool {
	if s.Length().Seconds() < s.Sum/float64(s.Completions) {
		return false
	}
	return e.free.goodput > 0 && s.per(s.Useful) >= steady*e.free.goodput && s.per(s.Asked) > surge*e.free.goodput
}

// guess makes the first step of a sudden overload: X now and W from before are two points of the same curve, and
// X W is the knee if it is sharp. It reports whether that lowers the limit. The experiments correct it.
func (e *Elasticity) guess(s Sample) bool {
	knee := hint*s.per(s.Useful)*e.free.service + 1
	if !e.surged(s) || knee >= e.centre || s.idle() > 0 { // of what does not end, what ends says nothing
		return false
	}
	e.centre = knee
	e.restart(s)
	return true
}

// side is 0 below the centre and 1 above.
func (e *Elasticity) side() int {
	if e.high {
		return 1
	}
	return 0
}

// done reports whether the phase has seen enough.
func (e *Elasticity) done() bool {
	need := perPhase * e.noise.scv() / (e.width * e.width)
	if !e.high {
		return float64(e.phase.Completions) >= lowPart*need
	}
	if float64(e.phase.Completions) >= highPart*need {
		return true
	}
	dx, dy, weight := e.last.to(e.phase.point()) // beyond doubt, even if it is not over?
	return dx > 0 && dy-setPoint*dx > plain*math.Sqrt(e.noise.scv()/weight)
}

// finish pairs the phase with the one before and moves the centre.
func (e *Elasticity) finish() {
	before, now, lately := e.last, e.phase.point(), &e.lately[e.side()]
	dx, dy, weight := before.to(now)
	if e.sxx > 0 {
		e.wander.learn(*lately, now, e.sxy/e.sxx, e.noise.scv())
	}
	e.last, *lately = now, lately.with(now)
	e.high = !e.high
	if dx == 0 {
		return
	}
	e.sxx = forgetting*e.sxx + weight*dx*dx
	e.sxy = forgetting*e.sxy + weight*dx*dy
	best := math.Log(e.free.service)
	waiting := e.noise.waiting()
	aim := setPoint * max(0, min(1, max(waiting, (before.stay()+now.stay())/2-best)/slowEnough))
	z := (e.sxy/e.sxx - aim) / math.Sqrt(e.noise.scv()/e.sxx)

	pair, width := dy/dx, min(e.width, wide)
	trust := min(1, 2*weight*dx*dx/(perPhase*e.noise.scv())) // 1 for a pair as long as planned
	step := gain * width * trust * max(-1, min(1, pair-aim))
	if z < 0 {
		step -= pull * width * min(1, -z) * max(0, min(1, now.stay()-best-slowEnough))
	}
	switch {
	case z > leap && pair > aim:
		step = max(step, e.width)
		e.width = min(widest, widen*e.width)
		e.high = true       // on from there
		e.sxx, e.sxy = 0, 0 // where nothing is known yet
	case z < fall && pair < aim:
		step = min(step, -fallStep*width)
		e.width = min(wide, widenFalling*e.width)
	case 0 < z && z < near: // at rest
		least := max(narrowest, min(waiting, narrow*math.Sqrt(max(1, e.noise.scv()))))
		e.width = min(wide, max(least, shrink*e.width))
	}
	e.centre = max(1, e.centre*math.Exp(step))
}

// and returns the stretch with a window more.
func (s stretch) and(next Sample) stretch {
	return stretch{s.Window.Add(next.Window), s.useful + next.Useful}
}

// point returns it as a point of the curve, whose weight is 0 if it is none.
func (s stretch) point() point {
	if !(s.useful > 0) || s.Area <= 0 || s.Length() <= 0 {
		return point{}
	}
	return point{math.Log(s.Concurrency()), math.Log(float64(littles.PerSecond(s.useful, s.Length()))), float64(s.Completions)}
}

// stay returns ln W, by Little's law.
func (p point) stay() float64 { return p.n - p.x }

// with returns the mean of a point, of which a part is forgotten, and a later one.
func (p point) with(later point) point {
	kept := forgetting * p.weight
	weight := kept + later.weight
	if weight == 0 {
		return point{}
	}
	part := later.weight / weight
	return point{p.n + part*(later.n-p.n), p.x + part*(later.x-p.x), weight}
}

// to returns the differences from one point to another and their weight: var(dy) = SCV / weight. All are 0 where
// the points say nothing: one is none, or they stand on the same spot.
func (p point) to(q point) (dx, dy, weight float64) {
	dx, dy = q.n-p.n, q.x-p.x
	weight = p.weight * q.weight / (p.weight + q.weight)
	if !(weight > 0) || math.Abs(dx) < 0.02 {
		return 0, 0, 0
	}
	return dx, dy, weight
}

// learn takes in how long requests stay at best: down at once, up slowly, as a low quantile.
func (f *free) learn(s Sample) {
	if s.Completions == 0 || s.Sum <= 0 {
		return
	}
	stay := s.Sum / s.Work
	switch {
	case f.service == 0:
		f.service = stay
	case stay < f.service:
		f.service += (stay - f.service) / 8
	default:
		f.service += (stay - f.service) / memory
	}
}

// wait learns how much only waits, while the limit does not bind. More may come fast: up at once, and down slowly.
func (f *free) wait(s Sample) { f.waits = max(f.waits*(1-1./rateMemory), s.idle()) }

// idle returns how many were in flight beyond those that ended, by Little's law, and those that come when more does than
// goes: what only waits, as a long poll does.
func (s Sample) idle() float64 {
	return max(0, (s.Area-growing*s.Sum)/s.Length().Seconds())
}

// rate takes in what was served while the limit did not bind; a window in which more came than went says nothing.
func (f *free) rate(s Sample) {
	if s.Completions == 0 || float64(s.Arrivals) > surge*float64(s.Completions) {
		return
	}
	if f.goodput == 0 {
		f.goodput = s.per(s.Useful)
	}
	f.goodput += (s.per(s.Useful) - f.goodput) / 16
}
