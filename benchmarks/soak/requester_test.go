package soak

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// requester asks for a permit again and again, each time in another way, and does all with it that can be done.
type requester struct {
	limiter   *limiter.Limiter
	dice      *rand.Rand
	cancel    *atomic.Pointer[context.CancelFunc] // of the request at hand, if it can be cancelled, for a neighbour
	neighbour *atomic.Pointer[context.CancelFunc]
	elsewhere sync.WaitGroup // permits that others return
	books     books
}

// names are more methods than a limiter tells apart, and bulkheads of which some exist at times.
var names = func() (names [300]string) {
	for i := range names {
		names[i] = "/soak.Service/Method" + strconv.Itoa(i)
	}
	return names
}()

var groups = [...]string{"", "", "", "a", "b", "none"}

func (r *requester) turn() {
	if cancel := r.neighbour.Load(); cancel != nil && r.dice.IntN(4) == 0 {
		(*cancel)()
	}
	ctx, cancel := r.context()
	defer cancel()
	permit, ok := r.acquire(ctx)
	if !ok {
		r.books.Refused++
		runtime.Gosched()
		return
	}
	r.books.Admitted++
	if permit.Sojourn() > 0 {
		r.books.Waited++
	}
	r.use(permit)
}

// context returns one that ends by itself, or is ended by a neighbour, or has ended, or, most often, never ends.
func (r *requester) context() (context.Context, context.CancelFunc) {
	switch r.dice.IntN(32) {
	case 0:
		return context.WithTimeout(context.Background(), time.Duration(r.dice.Int64N(int64(time.Millisecond))))
	case 1, 2:
		ctx, cancel := context.WithCancel(context.Background())
		r.cancel.Store(&cancel)
		return ctx, cancel
	case 3:
		return ended, func() {}
	default:
		return context.Background(), func() {}
	}
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (r *requester) request() limiter.Request {
	return limiter.Request{
		Criticality: limiter.Criticality(r.dice.IntN(6)), // one too many
		Tenant:      limiter.Tenant(r.dice.IntN(1_000_000)),
		Bulkhead:    groups[r.dice.IntN(len(groups))],
		Method:      names[r.dice.IntN(len(names))],
		Weight:      max(1, r.dice.IntN(64)-60) * (1 + r.dice.IntN(500)/499*maxLimit),
		Patient:     r.dice.IntN(32) == 0,
	}
}

func (r *requester) acquire(ctx context.Context) (permit limiter.Permit, ok bool) {
	switch request := r.request(); r.dice.IntN(16) {
	case 0:
		return r.limiter.TryAcquire()
	case 1:
		permit, err := r.limiter.Acquire(limiter.ContextWithCriticality(ctx, request.Criticality))
		return permit, err == nil
	case 2:
		if refusal := r.limiter.Preview(ctx, request); refusal != nil {
			r.limiter.Refused(ctx, request, refusal)
			return limiter.Permit{}, false
		}
		fallthrough
	default:
		permit, err := r.limiter.AcquireRequest(ctx, request)
		return permit, err == nil
	}
}

// use ends with the permit returned, or about to be by somebody else.
func (r *requester) use(permit limiter.Permit) {
	switch at := r.dice.IntN(1000); {
	case at < 1:
		r.books.Panicked++
		r.panics(permit)
	case at < 2: // two at once
		r.books.Elsewhere++
		for range 2 {
			r.elsewhere.Go(func() { permit.Release(limiter.OK) })
		}
	case at < 50:
		r.books.Cancelled++
		r.work()
		permit.Cancel()
	case at < 70: // never resumed
		permit.Suspend()
		permit.Suspend()
		r.finish(permit)
	case at < 200:
		r.books.Suspended++
		for range 1 + r.dice.IntN(2) {
			permit.Suspend()
			r.work()
			permit.Resume()
		}
		fallthrough
	default:
		r.finish(permit)
	}
	permit.Release(limiter.OK) // once more does nothing
	permit.Suspend()
	permit.Resume()
}

func (r *requester) finish(permit limiter.Permit) {
	r.work()
	permit.Release(limiter.Outcome(r.dice.IntN(int(limiter.Panicked))))
}

// work lets the others have the processor a few times.
func (r *requester) work() {
	for range r.dice.IntN(4) {
		runtime.Gosched()
	}
}

// panics works as the package comment of limiter has it, and what it does panics.
func (r *requester) panics(permit limiter.Permit) {
	defer func() { _ = recover() }()
	outcome := limiter.Panicked
	defer func() { permit.Release(outcome) }()
	panic("as it happens")
}
