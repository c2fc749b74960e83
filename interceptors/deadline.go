package interceptors

import (
	"context"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// deadlines says how much time calls get.
type deadlines struct {
	least, most time.Duration // of those that come without one; most is 0: they get none
}

const (
	defaultLeastDeadline = time.Second // longer than what stops all for a while, such as a collection or a new connection
	defaultMostDeadline  = 5 * time.Minute

	// deadlineFactor is how many times the 99th percentile a call gets that came without a deadline: it is there to end
	// what hangs, not to hurry what is slow today.
	deadlineFactor = 5

	reserveShare = 20 // of the time left, one part is for the way back
	mostReserve  = 50 * time.Millisecond
)

// WithDefaultDeadline bounds the deadline of unary calls that come without one: it is five times what 99 of 100 answers
// of that method of that target take at most, but never shorter than least nor longer than most. Until a hundred answers
// are known it is most. A call that runs into it makes the next ones longer. The defaults are 1 s and 5 min. Streams
// never get one. [NewClient] rejects what is not positive, and a least above most.
func WithDefaultDeadline(least, most time.Duration) ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		if least <= 0 || most < least {
			return fmt.Errorf("interceptors: WithDefaultDeadline(%v, %v); want 0 < least <= most", least, most)
		}
		p.deadlines = deadlines{least, most}
		return nil
	})
}

// WithoutDefaultDeadline lets unary calls without a deadline wait for ever.
func WithoutDefaultDeadline() ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		p.deadlines = deadlines{}
		return nil
	})
}

// set gives a call the deadline that it is sent with. given is the time that it got by default, 0 if it had a deadline.
//
// Who has to answer a request itself until a deadline, and waits for a callee until then, answers too late: of the time
// left, some is kept back. A deadline that is earlier than the request's is the user's own, and stays.
func (d deadlines) set(ctx context.Context, c *callee, unary bool, now time.Time) (_ context.Context, cancel context.CancelFunc, given time.Duration) {
	at, limited := ctx.Deadline()
	if !limited {
		if !unary || d.most == 0 {
			return ctx, func() {}, 0
		}
		given = d.usual(time.Duration(c.latencies.p99.Load()))
		ctx, cancel = context.WithDeadline(ctx, now.Add(given))
		return ctx, cancel, given
	}
	if request, ok := limiter.RequestDeadline(ctx); !ok || !at.Equal(request) {
		return ctx, func() {}, 0
	}
	ctx, cancel = context.WithDeadline(ctx, at.Add(-min(mostReserve, max(0, at.Sub(now))/reserveShare)))
	return ctx, cancel, 0
}

// usual returns the time of a call that nobody gave one, where p99 is known or 0.
func (d deadlines) usual(p99 time.Duration) time.Duration {
	if p99 == 0 || p99 > d.most/deadlineFactor {
		return d.most
	}
	return max(d.least, deadlineFactor*p99)
}
