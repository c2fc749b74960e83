package limiter

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// Request says what a caller of [Limiter.AcquireRequest] wants a permit for. The zero Request is an ordinary one.
type Request struct {
	// Criticality decides who is served first. The default is Critical.
	Criticality Criticality

	// Tenant is on whose behalf the request is. Inside a criticality, tenants share the service: whoever had the most
	// lately is refused first. Without one it takes its chance among all.
	Tenant Tenant

	// Bulkhead is the name of the group of requests that it belongs to; see [WithBulkheads]. Without one, and with a
	// name that has no guarantee, it has what nobody is guaranteed or nobody uses.
	Bulkhead string

	// Method is what the request asks for, such as "/package.Service/Method". How long requests of each method take is
	// learned, so that the line, the threshold and the shares of tenants count what a request costs, and a shift of the
	// mix is not taken for a change of the service. Without one it is taken for a typical request.
	Method string

	// Weight is how much of the limit the request takes while it is in flight, in ordinary requests. The default is 1,
	// which is right for nearly all: one that only takes longer than others needs no weight, for it is in flight for
	// longer. More is for one that uses more at a time, such as a query that runs on several workers. Less than 1 counts
	// as 1, and one that weighs more than the whole limit is served alone.
	Weight int

	// Patient requests are held back instead of refused: only the end of their context ends their wait. They
	// are for work that was admitted before and goes on, such as the next message of an open stream. Their
	// number must be bounded by something else.
	Patient bool

	// DryRun requests get a Permit at once, whatever the answer to them is; [Permit.Refusal] tells what it was. They take
	// of the limit what they would have if they were held to the answer, so that others are answered as if they were.
	// While most of those that find no permit free are of a dry run nothing is learned of the limit.
	DryRun bool
}

// Limiter holds the requests in flight at a limit that it finds by itself. It is safe for concurrent use.
//
// Requests that only wait, such as a Watch, hold nobody else up for good: what has no deadline and has stayed for eight
// times the mean, and for a second at least, takes none of the limit any more, once nobody waits for a permit, or nobody
// has got one for as long. That is for methods of which more stay for so long than have ever ended well before that: any
// other is taken for stuck, or for slow. [WithFixedLimit] and [WithMaxLimit] hold for all that are under way.
//
// Most callers want [Limiter.Acquire]. A Limiter needs no closing: it has no goroutine, and its only timer runs while
// all permits are taken.
type Limiter struct {
	config   config
	epoch    time.Time
	refusals *refusals
	waiters  sync.Pool // of *waiter

	// load counts who is in flight and who waits. While nobody waits, permits are taken and returned by it
	// alone. A waiter counts itself before it looks for a free permit a last time, and whoever returns a permit
	// looks for waiters after it did: one of the two sees the other, so that no wake-up is lost.
	load  load
	limit atomic.Int64

	shards []shard
	near   sync.Pool // of *shard, so that a processor keeps to one

	// What newcomers are told before they ask for anything else: gates for each criticality that has no room in the
	// line, and the place from which on tenants pass all the same; cut, the threshold; least, the time that one must
	// have left, as the float64 of the ns for a request of a typical method at its best, 0 while nobody waits.
	gates  [levels]atomic.Pointer[Refusal]
	passes [levels]atomic.Uint32
	cut    atomic.Pointer[cut]
	least  atomic.Uint64

	groups atomic.Pointer[map[string]*group] // those in force, by name

	usage *usage        // of tenants
	salt  atomic.Uint64 // of their cohorts

	methods methods
	// Of whoever closes the window:
	left     departures // in it
	patience patience

	due    atomic.Int64 // when the open window may be closed; see control.go
	signal signal
	scarce atomic.Bool // memory is what holds the limit down

	pressure atomic.Pointer[pressure] // nil: none
	handed   atomic.Int64             // requests that wait elsewhere; see handover.go
	parked   atomic.Int64             // requests that have stayed for very long, by weight; see park.go
	room     atomic.Int64             // that memory has, for requests in flight and handed over; 0: any number

	// For marks; see mark.go: what newcomers have to expect, the nanoseconds between two ends of requests, and how many
	// may be in flight in calm times, both as float64.
	outlooks     [levels]outlook
	each, flying atomic.Uint64

	mu        sync.Mutex // guards all below; nothing that can wait is done under it
	line      line
	pace      pace
	threshold threshold
	turned    time.Duration // when the cohorts were dealt
	retry     time.Duration // base of the hints to callers
	turns     uint64        // of the hints' jitter
	dry       dryRuns
	retired   []*group // that are gone but for requests that they still have

	watched bool          // a timer runs that looks whether permits are given; see park.go
	before  uint64        // how many it saw
	seen    time.Duration // when it saw that more were
	parks   time.Duration // when to look for what has stayed for very long

	wanted int    // the limit that the controller chose
	memory memory // what there is room for

	controllerPanics uint64
}

// New returns a limiter. Without options it needs no settings.
func New(opts ...Option) (*Limiter, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	l := &Limiter{config: cfg, epoch: time.Now(), refusals: newRefusals(), usage: newUsage()}
	l.pace.first = cfg.initialLimit
	l.wanted = cfg.initialLimit
	l.limit.Store(int64(cfg.initialLimit))
	l.line.most = math.MaxInt
	l.signal.read = cfg.memory
	l.due.Store(int64(minWindow))
	_, l.dry.fixed = cfg.controller.(feedback.Fixed)
	l.setBulkheads(0, cfg.bulkheads)
	l.shards = make([]shard, min(runtime.GOMAXPROCS(0), maxShards))
	for i := range l.shards {
		l.shards[i].limiter = l
	}
	var turn atomic.Uint32
	l.near.New = func() any { return &l.shards[int(turn.Add(1))%len(l.shards)] }
	l.waiters.New = func() any { return &waiter{ready: make(chan struct{}, 1)} }
	return l, nil
}

// maxShards bounds the memory of the books; more processors than that share.
const maxShards = 64

// now is the only place that reads a clock: a monotonic time since the limiter was made, never 0.
func (l *Limiter) now() time.Duration { return time.Since(l.epoch) + 1 }

// shard returns the books to use, most often the same on the same processor.
func (l *Limiter) shard() *shard {
	s := l.near.Get().(*shard)
	l.near.Put(s)
	return s
}

// Acquire returns a permit for a request of the criticality that ctx carries (see [ContextWithCriticality]), at
// once or after a wait in the line, or a [*Refusal].
func (l *Limiter) Acquire(ctx context.Context) (Permit, error) {
	return l.AcquireRequest(ctx, Request{Criticality: CriticalityFromContext(ctx)})
}

// TryAcquire returns a permit if one is free and nobody waits for it.
func (l *Limiter) TryAcquire() (Permit, bool) {
	now := l.now()
	l.sense(now)
	l.control(now)
	var c claim
	c.fill(l, &Request{}, other, 0)
	if n, ok := l.load.enter(&c, l.limit.Load()); ok {
		return l.shard().admit(now, now, &c, n), true
	}
	l.shard().turnAway(&c, now, l.told(ReasonLimit))
	return Permit{}, false
}

// AcquireRequest returns a permit for the request, at once or after a wait in the line, or a [*Refusal]. The
// wait ends early when ctx does. The deadline of ctx also says how long the request is worth waiting for.
func (l *Limiter) AcquireRequest(ctx context.Context, r Request) (Permit, error) {
	if r.DryRun {
		return l.rehearse(ctx, &r), nil
	}
	permit, w, refusal := l.apply(ctx, &r, nil)
	if w != nil {
		permit, refusal = l.wait(ctx, w)
	}
	if refusal != nil {
		return Permit{}, refusal
	}
	return permit, nil
}

// apply returns a permit, or a place in the line, or a refusal.
func (l *Limiter) apply(ctx context.Context, r *Request, dry *dryRun) (Permit, *waiter, *Refusal) {
	if err := ctx.Err(); err != nil {
		l.shard().ignore(ReasonExpired)
		return Permit{}, nil, l.refusals.ended(err)
	}
	c := claim{dry: dry}
	c.fill(l, r, l.methods.learn(r.Method), l.deadline(ctx))
	refusal := l.refuses(r, c.at)
	if refusal != nil && !c.group.room(c.at.level()) {
		l.shard().turnAway(&c, 0, refusal.Reason)
		return Permit{}, nil, refusal
	}
	now := l.now()
	l.sense(now)
	l.control(now)
	if n, ok := l.load.enter(&c, l.limit.Load()); ok {
		l.spend(&c)
		return l.shard().admit(now, now, &c, n), nil, nil
	}
	w, refusal := l.queue(r, &c, refusal, now)
	return Permit{}, w, refusal
}

// spend notes what a tenant gets.
func (l *Limiter) spend(c *claim) {
	if c.tenant != 0 {
		l.usage.spend(uint64(c.tenant), c.work())
	}
}

// deadline returns that of ctx on the limiter's clock, 0 if there is none.
func (l *Limiter) deadline(ctx context.Context) time.Duration {
	at, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, at.Sub(l.epoch)+1)
}

// refuses returns why the request is refused at once, nil if it is not.
func (l *Limiter) refuses(r *Request, at place) *Refusal {
	if r.Patient {
		return nil
	}
	level := at.level()
	if refusal := l.gates[level].Load(); refusal != nil && (r.Tenant == 0 || at < place(l.passes[level].Load())) {
		return refusal
	}
	if c := l.cut.Load(); c != nil && l.cuts(c, r, at) {
		return c.refusal(at, r)
	}
	return nil
}

// cuts reports whether the cut refuses one who stands there. While a quarter of the permits is free it refuses nobody,
// however old it is: no state lasts in which everything is refused. A tenant that it goes through it refuses only while no
// permit is left: one who has just had much has moved below where its load was seen, and what stood above may not be
// enough to keep everybody busy.
func (l *Limiter) cuts(c *cut, r *Request, at place) bool {
	switch inFlight, limit := int64(l.load.inFlight()), l.limit.Load(); {
	case at >= c.from:
		return false
	case r.Tenant != 0 && at.level() == c.from.level():
		return inFlight >= limit
	default:
		return 4*inFlight >= 3*limit
	}
}

// Preview foretells whether the request would be refused now, nil if it would not. It takes nothing, never waits
// and allocates nothing, so that a request can be turned away before its message is read; only AcquireRequest
// holds the limit.
func (l *Limiter) Preview(ctx context.Context, r Request) *Refusal {
	if r.Patient || r.DryRun {
		return nil
	}
	var c claim
	c.fill(l, &r, l.methods.find(r.Method), l.deadline(ctx))
	if refusal := l.refuses(&r, c.at); refusal != nil && !c.group.room(c.at.level()) {
		return refusal
	}
	if least := math.Float64frombits(l.least.Load()); least > 0 {
		if at, ok := ctx.Deadline(); ok && float64(time.Until(at)) < least*c.cost {
			return l.refusals.pick(ReasonDeadline, 0, 0)
		}
	}
	return nil
}

// Refused counts a request that was turned away on the word of Preview, so that the limiter's own figures hold
// all that came.
func (l *Limiter) Refused(ctx context.Context, r Request, refusal *Refusal) {
	var c claim
	c.fill(l, &r, l.methods.find(r.Method), l.deadline(ctx))
	l.shard().turnAway(&c, 0, refusal.Reason)
}

// release ends the work of a permit.
func (l *Limiter) release(p Permit, outcome Outcome) {
	now := l.now()
	l.sense(now) // while it is still in flight: what it took is a request's
	weight, ok := p.shard.finish(p, now, outcome)
	if !ok {
		return
	}
	if l.load.leave(weight) {
		l.serve(now)
	}
	l.control(now)
}

// cancel returns a permit whose work never began.
func (l *Limiter) cancel(p Permit) {
	now := l.now()
	if l.load.leave(p.shard.cancel(p, now)) {
		l.serve(now)
	}
}

// suspend takes a permit's request out of flight.
func (l *Limiter) suspend(p Permit) {
	now := l.now()
	if l.load.leave(p.shard.pause(p, now)) {
		l.serve(now)
	}
}

// resume puts it back, above the limit if need be: it was admitted before.
func (l *Limiter) resume(p Permit) {
	p.shard.resume(p, l.now())
}

// load is what is in flight, by weight (low half), and the number who wait (high half) in one word.
type load struct{ word atomic.Uint64 }

const oneWaiting = 1 << 32

// enter takes a permit if there is room for it and nobody waits, and returns what is then in flight. Who weighs more
// than the limit is let in alone, with the weight of the limit.
func (l *load) enter(c *claim, limit int64) (inFlight int, ok bool) {
	weight := min(int64(c.weight), limit)
	for {
		word := l.word.Load()
		if word >= oneWaiting || int64(word)+weight > limit {
			return 0, false
		}
		if l.word.CompareAndSwap(word, word+uint64(weight)) {
			c.weight = int32(weight)
			return int(word) + int(weight), true
		}
	}
}

// hand takes a permit for the first who waits, if there is room, and counts that one as waiting no more. Only the
// holder of the line's mutex calls it.
func (l *load) hand(c *claim, limit int64) (inFlight int, ok bool) {
	weight := min(int64(c.weight), limit)
	for {
		word := l.word.Load()
		if int64(uint32(word))+weight > limit {
			return 0, false
		}
		if l.word.CompareAndSwap(word, word+uint64(weight)-oneWaiting) {
			c.weight = int32(weight)
			return int(uint32(word)) + int(weight), true
		}
	}
}

// leave returns a permit of that weight, and reports whether somebody waits for it.
func (l *load) leave(weight int32) bool {
	return weight > 0 && l.word.Add(^uint64(weight-1)) >= oneWaiting
}

func (l *load) force(weight int32) { l.word.Add(uint64(weight)) }
func (l *load) come()              { l.word.Add(oneWaiting) }
func (l *load) giveUp()            { l.word.Add(^uint64(oneWaiting - 1)) }
func (l *load) inFlight() int      { return int(uint32(l.word.Load())) }
