package interceptors

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// callee is what a client knows of one method of one target.
type callee struct {
	throttles [criticalities]throttle // by criticality
	quickest  atomic.Int64            // nanoseconds that an answer takes at least, as a low quantile; 0: not known
	foreign   atomic.Bool             // its last refusal was not one of this package: it never speaks of pressure
	latencies latencies
	breaker   breaker

	pressed atomic.Bool // by its last word
	hedges  hedges

	sent, fallbacks, hedged atomic.Int64
	notSent                 [obstacles]atomic.Int64
}

// refuses returns why a call is not worth sending, nil if it is.
func (c *callee) refuses(ctx context.Context, criticality limiter.Criticality, now time.Time) *notSent {
	if at, ok := ctx.Deadline(); ok && at.Sub(now) < time.Duration(c.quickest.Load()) {
		return errTooLate
	}
	if !c.throttles[bounded(criticality)].send(now) {
		return errThrottled
	}
	return nil
}

// learn takes in how a call ended: its error, and what the callee said. It reports whether it was refused.
func (c *callee) learn(criticality limiter.Criticality, now time.Time, err error, n news) bool {
	t := &c.throttles[bounded(criticality)]
	from := refusedBy(err)
	if from != nobody || isAnswer(err) {
		c.pressed.Store(from != nobody || n.pressure > 0)
	}
	switch {
	case from != nobody:
		c.foreign.Store(from == somebody)
		t.refused(now)
	case !isAnswer(err):
	case c.foreign.Load():
		t.answered(now, throttleBlind)
	default:
		t.answered(now, throttleSlow+(1-n.pressure)*throttleFree)
	}
	return from != nobody
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
	mu    sync.Mutex                             // held while the table is replaced
	table atomic.Pointer[map[calleeName]*callee] // never changed, only replaced
	other callee

	ignored [ignoredReasons]atomic.Int64 // of what callees said of their load
}

type calleeName struct{ target, method string }

// maxCallees bounds what a client remembers.
const maxCallees = 1000

func (c *callees) of(target, method string) *callee {
	name := calleeName{target, method}
	if callee := c.known()[name]; callee != nil {
		return callee
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.known()
	if callee := known[name]; callee != nil {
		return callee
	}
	if len(known) >= maxCallees {
		return &c.other
	}
	table := make(map[calleeName]*callee, len(known)+1)
	maps.Copy(table, known)
	callee := new(callee)
	table[name] = callee
	c.table.Store(&table)
	return callee
}

// known returns those that are told apart. It must not be changed.
func (c *callees) known() map[calleeName]*callee {
	if table := c.table.Load(); table != nil {
		return *table
	}
	return nil
}
