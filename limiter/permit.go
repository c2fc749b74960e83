package limiter

import "time"

// Permit is the right to work on one request. It is a value and may be copied; the first Release, through
// whichever copy, returns it and all later ones do nothing. The zero Permit holds nothing.
//
// It has no more than four fields, and four words: the compiler keeps no larger one in registers.
type Permit struct {
	shard *shard // where it is accounted for
	ticket
	sojourn time.Duration
	dry     *dryRun // where all the rest is; nil: it is in earnest
}

// ticket is the number of a permit in its shard.
type ticket struct {
	slot       int32
	generation uint32
}

// Release returns the permit and tells how the work ended. It may be called from any goroutine.
func (p Permit) Release(outcome Outcome) {
	if p.shard != nil {
		p.shard.limiter.release(p, outcome)
	} else if p.dry != nil {
		p.dry.limiter.end(p.dry, outcome == OK).Release(outcome)
	}
}

// Cancel returns a permit that was not used: nothing is learned from it.
func (p Permit) Cancel() {
	if p.shard != nil {
		p.shard.limiter.cancel(p)
	} else if p.dry != nil {
		p.dry.limiter.end(p.dry, false).Cancel()
	}
}

// Suspend stops counting the request as in flight, for a time in which it does no work here, such as a stream
// that waits for its reader. Resume counts it again, without waiting, since it was admitted before. Both do
// nothing on a permit that was released or is already in the state asked for.
func (p Permit) Suspend() {
	if p.shard != nil {
		p.shard.limiter.suspend(p)
	} else if p.dry != nil {
		p.dry.limiter.held(p.dry).Suspend()
	}
}

// Resume ends what Suspend began.
func (p Permit) Resume() {
	if p.shard != nil {
		p.shard.limiter.resume(p)
	} else if p.dry != nil {
		p.dry.limiter.held(p.dry).Resume()
	}
}

// Refusal returns why a request of a dry run would have been refused, nil if it would not have been, as far as that is
// known: while one that would have waited goes on, it may still change. It is nil for all other requests.
func (p Permit) Refusal() *Refusal {
	if p.dry == nil {
		return nil
	}
	return p.dry.limiter.refusalOf(p.dry)
}

// Sojourn returns how long the request waited in the line: 0 if it was admitted at once.
func (p Permit) Sojourn() time.Duration { return p.sojourn }
