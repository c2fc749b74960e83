package interceptors

import (
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// With [WithHandover] a request hands over what there is to be done for it when its handler makes a unary call to a callee
// that holds its own load: one that says so, by marks of its own. What waits there is bounded there, so that the request is
// not in flight here meanwhile: see [limiter.HandOver]. Until a callee has said so it is asked with each call, so that the
// first answer tells: one in which nobody waits has nothing to say by itself, and so long a caller in front of it would say
// no for it (for 3.5 s, in one of ten runs). It is asked again after a while without a word, and if it has none then, it does
// not hold its load any more: it may be another by now, at the same address. Nor does one whose word is long ago, though all
// that it answers since be errors, which may be of something in front of it.
//
// The responsibility is handed over only to who accepts it. A callee that never spoke of its load may have no bound. One
// that is silent has taken nothing: it may be frozen, or gone. And one that lets calls run into their deadlines has more
// than it can do, whatever it says; or the calls wait before they are there, for a connection or a stream of one. What
// waits for such counts, and the limit here bounds it.

const (
	silent   = time.Second      // that a callee may have answered nothing
	askAgain = 10 * time.Second // after it last spoke of its load
	believed = time.Minute      // the same: no longer

	// A callee that holds its load refuses what it cannot do in time. Of its calls, up to one in five may run into
	// their deadlines all the same: each adds to the score, and each that does not takes away; 22 in a row are too many. That
	// trust comes back slowly keeps it from coming and going. With one in 13 a callee in front of which a limit ran far up
	// for a while lost it.
	mostTimeouts = .5
	timeoutCosts = 1. / 32
	inTimeEarns  = 1. / 128
)

// acceptance is whether a callee accepts what waits for it. The zero value does not.
type acceptance struct {
	spoke    atomic.Int64  // when it last spoke of its load, in nanoseconds of Unix time; 0: it does not hold it
	answered atomic.Int64  // when it last answered anything, the same
	timeouts atomic.Uint64 // a float64: the score of its calls that ran into their deadlines, from 0 to 1
}

// learn takes in how a call ended, whether it asked its callee, and what that said of its load. Of two at a time one may be
// lost.
func (a *acceptance) learn(now time.Time, err error, asked bool, n news) {
	switch {
	case n.holds:
		a.spoke.Store(now.UnixNano())
	case asked && err == nil: // an error may be of something in front of it
		a.spoke.Store(0)
	}
	code := status.Code(err)
	if a.spoke.Load() == 0 || code == codes.Canceled { // which is the caller's doing
		return
	}
	if isAnswer(err) {
		a.answered.Store(now.UnixNano())
	}
	score := math.Float64frombits(a.timeouts.Load())
	switch {
	case code == codes.DeadlineExceeded:
		score += (1 - score) * timeoutCosts
	case score == 0:
		return
	default:
		if score -= score * inTimeEarns; score < 1e-3 {
			score = 0
		}
	}
	a.timeouts.Store(math.Float64bits(score))
}

// isUnknown reports whether the callee is to be asked.
func (a *acceptance) isUnknown(now time.Time) bool {
	return !isLessAgo(askAgain, a.spoke.Load(), now)
}

// isLessAgo reports whether an instant, in nanoseconds of Unix time, is less than that ago. Where the clock was set it is not.
func isLessAgo(ago time.Duration, then int64, now time.Time) bool {
	passed := time.Duration(now.UnixNano() - then)
	return -ago < passed && passed < ago
}

// accepts reports whether the callee does, as far as is known.
func (a *acceptance) accepts(now time.Time) bool {
	if !isLessAgo(believed, a.spoke.Load(), now) || math.Float64frombits(a.timeouts.Load()) > mostTimeouts {
		return false
	}
	return isLessAgo(silent, a.answered.Load(), now)
}

// WithHandover takes requests out of flight while their handlers make unary calls to callees that hold their own load: by
// marks or pressure that they speak of, and deadlines that they keep. It is for servers of several methods: one callee that
// is overloaded then costs no method that does not call it. The default is that all are in flight until they are answered,
// so that the limit comes down to what the callees can do, and says no for them. Requests for streams are in flight in any
// case while a message is worked on.
func WithHandover() ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		p.handover = true
		return nil
	})
}

// asks reports whether an attempt is to ask its callee whether that holds its load.
func (d *dispatch) asks(to *standing, now time.Time) bool {
	return !d.hedge && d.call.unary && d.call.policy.handover && to.acceptance.isUnknown(now)
}

// handOver hands over to where an attempt goes, if that accepts, until the attempt ends. A hedge hands over nothing: its
// call has.
func (d *dispatch) handOver(to *standing, now time.Time) {
	if d.hedge || !d.call.unary || !d.call.policy.handover || !to.acceptance.accepts(now) {
		return
	}
	handover := limiter.HandOver(d.call.ctx) // not under mu: it looks into a context
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		handover, d.handover = d.handover, handover
	}
	handover.TakeBack()
}

// takeBack takes back what was handed over, if anything was. The caller holds mu.
func (d *dispatch) takeBack() {
	d.handover.TakeBack()
	d.handover = limiter.Handover{}
}

// close takes back what is handed over, now and later.
func (d *dispatch) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.takeBack()
}
