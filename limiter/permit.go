package limiter

import "time"

// Permit is the right to work on one request. It is a value and may be copied; the first Release, through
// whichever copy, returns it and all later ones do nothing. The zero Permit holds nothing.
type Permit struct {
	shard      *shard // where it is accounted for
	slot       int32
	generation uint32
	sojourn    time.Duration
}

// Release returns the permit and tells how the work ended. It may be called from any goroutine.
func (p Permit) Release(outcome Outcome) {
	if p.shard != nil {
		p.shard.limiter.release(p, outcome)
	}
}

// Cancel returns a permit that was not used: nothing is learned from it.
func (p Permit) Cancel() {
	if p.shard != nil {
		p.shard.limiter.cancel(p)
	}
}

// Suspend stops counting the request as in flight, for a time in which it does no work here, such as a stream
// that waits for its reader. Resume counts it again, without waiting, since it was admitted before. Both do
// nothing on a permit that was released or is already in the state asked for.
func (p Permit) Suspend() {
	if p.shard != nil {
		p.shard.limiter.suspend(p)
	}
}

// Resume ends what Suspend began.
func (p Permit) Resume() {
	if p.shard != nil {
		p.shard.limiter.resume(p)
	}
}

// Sojourn returns how long the request waited in the line: 0 if it was admitted at once.
func (p Permit) Sojourn() time.Duration { return p.sojourn }
