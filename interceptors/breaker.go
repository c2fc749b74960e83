package interceptors

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// WithoutBreaker sends calls also to a method that fails nearly all of them. By default, once nine of ten calls of a
// method have failed at a backend ([BackendPolicy]), and ten at least, they are not sent there; nor once ten in a row have
// failed there, while the other backends have answered ten, and two for each that they failed. A call that no backend is
// left for fails at once, with [ErrNotSent] and UNAVAILABLE. After a second, with jitter, one call at a time is sent to
// find out: three answers in a row, and all are sent again; a failure, and the next is sent after twice the time, up to
// half a minute.
//
// Failures are UNAVAILABLE, INTERNAL, UNKNOWN, and DEADLINE_EXCEEDED where the callee had as much time as most of its
// answers take. Refusals are none, nor is anything that this package or its peer says in the place of a callee: what
// sheds load is well.
func WithoutBreaker() ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		p.withoutBreaker = true
		return nil
	})
}

// breaker stops the calls to a callee that is broken. It is there for callees that are no use at all: as long as one in
// ten is answered, sending costs less than what not sending would lose.
type breaker struct {
	mu       sync.Mutex
	calls    float64   // ended lately, decaying
	failures float64   // of them
	last     time.Time // when both were brought up to date

	row            int   // failures without an answer in between
	rowOK, rowFail int64 // of all backends, when it began

	opened   int       // times in a row, without an answer in between; 0: closed
	until    time.Time // when probes begin
	probe    time.Time // when the one that is out was sent; zero: none is
	answered int       // probes in a row
	openings int64     // in all
}

const (
	breakerMemory = 10 * time.Second // in which what is seen decays to 1/e
	breakerLeast  = 10               // failures that open it
	breakerShare  = 0.9              // of the calls that have failed
	breakerOthers = 2                // answers of other backends to each failure of theirs show that they are well

	breakerFirst  = time.Second // the first wait, doubled each time
	breakerMost   = 30 * time.Second
	breakerJitter = 0.2 // both ways, so that callers do not return together
	breakerProbes = 3   // answered in a row close it
)

// verdict is what the end of a call says of its callee.
type verdict uint8

const (
	unclear verdict = iota // nothing: the caller gave up, or gave too little time
	alive
	failed
)

// send reports whether a call is to be sent, and whether it is a probe.
func (b *breaker) send(now time.Time) (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened == 0 {
		return false, true
	}
	if now.Before(b.until) {
		return false, false
	}
	// One that is out for long is not waited for: a stream that nobody reads may never end.
	if !b.probe.IsZero() && now.Sub(b.probe) < breakerMost {
		return false, false
	}
	b.probe = now
	return true, true
}

// end takes in how a call ended. all is what all backends did with calls like it, this one included.
func (b *breaker) end(now time.Time, probe bool, v verdict, all *tally) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.opened == 0:
		b.count(now, v, all)
	case probe:
		b.judge(now, v)
	}
}

func (b *breaker) count(now time.Time, v verdict, all *tally) {
	switch v {
	case unclear:
		return
	case alive:
		b.row = 0
	case failed:
		if b.row++; b.row == 1 {
			b.rowOK, b.rowFail = all.answered.Load(), all.failed.Load()-1
		}
	}
	left := math.Exp(-float64(now.Sub(b.last)) / float64(breakerMemory))
	b.calls, b.failures, b.last = b.calls*left+1, b.failures*left, now
	if v == failed {
		b.failures++
	}
	if math.Round(b.failures) >= breakerLeast && b.failures >= breakerShare*b.calls || b.outlies(all) {
		b.openings++
		b.open(now)
	}
}

// outlies reports whether the failures are this backend's alone. Where others are well, not sending to one of them loses
// nothing, so there is no need to wait until nine of ten have failed.
func (b *breaker) outlies(all *tally) bool {
	if b.row < breakerLeast {
		return false
	}
	answered, failed := all.answered.Load()-b.rowOK, all.failed.Load()-b.rowFail-int64(b.row)
	return answered >= breakerLeast && answered >= breakerOthers*failed
}

// tally counts what the backends of a method did.
type tally struct{ answered, failed atomic.Int64 }

func (t *tally) add(v verdict) {
	switch v {
	case alive:
		t.answered.Add(1)
	case failed:
		t.failed.Add(1)
	}
}

func (b *breaker) judge(now time.Time, v verdict) {
	b.probe = time.Time{}
	switch v {
	case failed:
		b.open(now)
	case alive:
		if b.answered++; b.answered >= breakerProbes {
			b.opened, b.calls, b.failures, b.row = 0, 0, 0, 0
		}
	}
}

func (b *breaker) open(now time.Time) {
	wait := min(breakerMost, breakerFirst<<min(b.opened, 10))
	wait += time.Duration(float64(wait) * breakerJitter * (2*rand.Float64() - 1))
	b.until = now.Add(wait)
	b.answered = 0
	b.opened++
}

// state returns whether it is open, and how often it opened.
func (b *breaker) state() (open bool, openings int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opened > 0, b.openings
}

// verdictOn returns what the end of a call says of its callee, given whether it had enough time.
func verdictOn(err error, enough bool) verdict {
	st, ok := status.FromError(err)
	if !ok { // from an interceptor of the user
		return unclear
	}
	switch st.Code() {
	case codes.Canceled:
		return unclear
	case codes.DeadlineExceeded:
		if !enough {
			return unclear
		}
		return failed
	case codes.Unavailable, codes.Internal, codes.Unknown:
		if isOurs(st) {
			return unclear
		}
		return failed
	default:
		return alive
	}
}
