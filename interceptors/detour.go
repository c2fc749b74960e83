package interceptors

import (
	"math"
	"sync/atomic"
	"time"
)

// detour has calls pass over a backend for the next one: as large a part of those that look at it first as it marked its
// last answer, and all of them once it has refused. Of several backends those with long lines thus get less, before any
// has to refuse while another has nothing to do.
//
// A call passes over one backend at most, so that it goes to the better of two more often than not, which is nearly as
// good as the best of all (M. Mitzenmacher, IEEE Transactions on Parallel and Distributed Systems 12(10), 2001). A part of
// the calls, and not whoever comes, because all callers hear of the same lines: they would all go to the same.
//
// What was said is believed less and less, and nothing of it after throttleMemory. The zero detour takes nobody.
type detour struct {
	mark   atomic.Uint64 // a float64, of the last answer; 1 for a refusal
	said   atomic.Int64  // when that was, in nanoseconds of Unix time
	credit atomic.Uint64 // a float64: a call takes the detour when it reaches 1
}

// learn takes in what an answer says. Of two at a time one may be lost.
func (d *detour) learn(now time.Time, mark float64) {
	bits := math.Float64bits(mark)
	if bits == 0 && d.mark.Load() == 0 {
		return
	}
	d.mark.Store(bits)
	d.said.Store(now.UnixNano())
}

// takes reports whether a call that looks at the backend passes it over.
func (d *detour) takes(now time.Time) bool {
	mark := math.Float64frombits(d.mark.Load())
	if mark == 0 {
		return false
	}
	age := float64(now.UnixNano()-d.said.Load()) / float64(throttleMemory)
	credit := math.Float64frombits(d.credit.Load()) + mark*min(1, max(0, 1-age))
	takes := credit >= 1
	if takes {
		credit--
	}
	d.credit.Store(math.Float64bits(credit))
	return takes
}
