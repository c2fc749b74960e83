package chaos

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// game is the faults that are in force together. It is never changed, only replaced.
type game []*running

// running is a fault that is in force. It is over when its end has come or somebody has stopped it.
type running struct {
	Fault
	methods methods
	planned bool  // From was not yet when it was put in force
	answer  error // of kind Error
	seed    uint64

	over context.Context // until it is over
	stop context.CancelFunc

	seen     atomic.Uint64
	injected atomic.Uint64
}

func (f Fault) run(now time.Time, seed uint64) *running {
	f.From, f.Until = f.window(now)
	f.For = 0
	f.Methods = slices.Clone(f.Methods)
	r := &running{Fault: f, methods: newMethods(f.Methods), planned: f.From.After(now), seed: seed}
	r.over, r.stop = context.WithDeadline(context.Background(), f.Until)
	if f.Kind == Error {
		r.answer = status.Error(f.Code, "chaos: an injected error")
	}
	return r
}

func (g game) stop() {
	for _, r := range g {
		r.stop()
	}
}

// picks reports whether the fault hits the call: whether it is on, is for this method, and has the call in its share.
func (r *running) picks(ctx context.Context, method string, call middleware.CallMeta) bool {
	return r.on() && r.selects(ctx, method, call) && fraction(r.seed, r.seen.Add(1)) < r.Share
}

func (r *running) on() bool {
	return r.over.Err() == nil && !(r.planned && time.Until(r.From) > 0)
}

func (r *running) selects(ctx context.Context, method string, call middleware.CallMeta) bool {
	if r.Matcher != nil {
		return r.Matcher.Match(ctx, call)
	}
	return r.methods.match(method)
}

// fraction returns the n-th of a sequence of numbers from 0 to below 1, evenly spread. A seed gives the same sequence
// each time, and no call waits for another to draw from it: it is SplitMix64, of which any member can be had by its
// number (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
func fraction(seed, n uint64) float64 {
	return float64(mix(seed+n*0x9e3779b97f4a7c15)>>11) / (1 << 53)
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// errDropped is what a caller without a deadline learns in the end: as much as from a connection that broke.
var errDropped = status.Error(codes.Unavailable, "chaos: an injected drop")

// strike does to a call what the fault is. Without an error the call goes on.
func (r *running) strike(ctx context.Context) error {
	switch r.Kind {
	case Delay:
		_, err := r.keep(ctx, r.Delay)
		return err
	case Error:
		return r.answer
	case Drop:
		return r.drop(ctx)
	default:
		panic("chaos: an injected panic") // so that whoever reads its stack knows that nothing is broken
	}
}

func (r *running) drop(ctx context.Context) error {
	hold := r.Hold
	if hold == 0 {
		hold = DefaultHold
	}
	if _, ok := ctx.Deadline(); ok {
		hold = MaxLength // the end of ctx, or of the fault, comes first
	}
	passed, err := r.keep(ctx, hold)
	if passed {
		return errDropped
	}
	return err
}

// keep holds a call for the time given, and reports that all of it has passed. It lets go of the call when the fault is
// over, and returns an error when the call's context is.
func (r *running) keep(ctx context.Context, d time.Duration) (passed bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-r.over.Done():
		return false, nil
	case <-ctx.Done():
		return false, status.FromContextError(ctx.Err()).Err()
	}
}
