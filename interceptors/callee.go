package interceptors

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callee is what a client knows of one method of one target.
type callee struct {
	standing             // where backends are not told apart
	apart    atomic.Bool // they are, as far as the last call knows
	backends standings
	tally    tally
	calls    [criticalities]atomic.Int64 // that there were, by criticality, also those that were not sent
	turns    [criticalities]turns

	quickest  atomic.Int64 // nanoseconds that an answer takes at least, as a low quantile; 0: not known
	latencies latencies
	hedges    hedges

	sent, fallbacks, hedged atomic.Int64
	notSent                 [obstacles]atomic.Int64
}

// isTooLate reports whether less time is left than the quickest answers take.
func (c *callee) isTooLate(ctx context.Context, now time.Time) bool {
	at, ok := ctx.Deadline()
	return ok && at.Sub(now) < time.Duration(c.quickest.Load())
}

// isAnswer reports whether the callee has answered: what ended on the way, or on this side, says nothing of its load.
func isAnswer(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return false
	default:
		return true
	}
}

// observe follows the quickest answers: down at once, up slowly. Two calls that end together may count as one.
func (c *callee) observe(took time.Duration) {
	before := time.Duration(c.quickest.Load())
	switch {
	case before == 0:
		before = took
	case took < before:
		before += (took - before) / 8
	default:
		before += (took - before) / 256
	}
	c.quickest.Store(int64(max(1, before)))
}

// callees are the methods that a client has called, by target. Those beyond a bound are one.
type callees struct {
	known table[calleeName, callee]
	other callee

	ignored [ignoredReasons]atomic.Int64 // of what callees said of their load
}

type calleeName struct{ target, method string }

// maxCallees bounds what a client remembers.
const maxCallees = 1000

func (c *callees) of(target, method string) *callee {
	name := calleeName{target, method}
	if callee := c.known.at(name); callee != nil {
		return callee
	}
	if callee := c.known.add(name, maxCallees, func() *callee { return new(callee) }); callee != nil {
		return callee
	}
	return &c.other
}
