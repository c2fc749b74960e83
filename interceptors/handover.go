package interceptors

import (
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// A request hands over what there is to be done for it when its handler makes a unary call to a callee that holds its own
// load: one that has refused, marked, or spoken of pressure, as this package does. What waits there is bounded there, so
// that the request is not in flight here meanwhile: see [limiter.HandOver].
//
// The responsibility is handed over only to who accepts it. A callee that was never heard to shed load may have no bound;
// and one that is silent has taken nothing: it may be frozen, or gone. Then what waits for it counts, and the limit here
// bounds it.

// silent is how long a callee may have answered nothing and be taken for one that accepts.
const silent = time.Second

// acceptance is whether a callee accepts what waits for it. The zero value does not.
type acceptance struct {
	holds    atomic.Bool  // its load: it was heard to
	answered atomic.Int64 // when it last did, in nanoseconds of Unix time
}

// learn takes in an answer, and whether it says that the callee holds its load.
func (a *acceptance) learn(now time.Time, holds bool) {
	if holds && !a.holds.Load() {
		a.holds.Store(true)
	}
	if a.holds.Load() {
		a.answered.Store(now.UnixNano())
	}
}

func (a *acceptance) accepts(now time.Time) bool {
	return a.holds.Load() && now.UnixNano()-a.answered.Load() < int64(silent)
}

// WithoutHandover counts requests as in flight also while their handlers wait for callees that hold their own load, for
// servers whose limit is to bound all that is there: one that was given, and not found. By default, what such a callee has
// in its line is no load of its caller.
func WithoutHandover() ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		p.withoutHandover = true
		return nil
	})
}

// handOver hands over to a callee that accepts, until the call is closed. A hedge hands over nothing: its call has.
func (d *dispatch) handOver(to *standing, now time.Time) {
	if d.hedge || !d.call.unary || d.call.policy.withoutHandover || !to.acceptance.accepts(now) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed && d.handover == (limiter.Handover{}) {
		d.handover = limiter.HandOver(d.call.ctx)
	}
}

// close takes back what was handed over.
func (d *dispatch) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.handover.TakeBack()
}
