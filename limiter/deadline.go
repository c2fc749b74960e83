package limiter

import (
	"context"
	"time"
)

// RequestDeadline returns the deadline of the request that the work of ctx is for, if it has one: until then its caller
// waits for the answer. The deadline of ctx itself may be another, which the work has set for a part of it. For work that
// came neither through package interceptors nor with [ContextWithLimiter], ok is false.
func RequestDeadline(ctx context.Context) (deadline time.Time, ok bool) {
	a := admittedFrom(ctx)
	if a == nil {
		return time.Time{}, false
	}
	return a.Context.Deadline()
}
