package limiter

import (
	"context"
	"errors"
	"time"
)

// ErrRefused matches every refusal of a [Limiter] with [errors.Is].
var ErrRefused = errors.New("limiter: refused")

// Reason says why a request was refused.
type Reason uint8

// The reasons.
const (
	ReasonLimit       Reason = iota + 1 // no permit is free and no place in the line
	ReasonDeadline                      // the wait and the service would take longer than the time left
	ReasonCriticality                   // no place in the line because more critical requests have them
	ReasonDisplaced                     // had a place in the line; a more critical request took it
	ReasonExpired                       // the context ended before a permit came
	ReasonTenant                        // other tenants of its criticality have had less lately
	ReasonMemory                        // no memory is free for it; as ReasonLimit otherwise

	reasons = int(iota) + 1
)

// String returns the reason in lower case, such as "deadline".
func (r Reason) String() string {
	names := [reasons]string{"none", "limit", "deadline", "criticality", "displaced", "expired", "tenant", "memory"}
	if int(r) >= len(names) {
		return "unknown"
	}
	return names[r]
}

// Refusal is the error of a request that gets no permit. Refusals are immutable and shared: a limiter makes all
// that it will ever return when it is made, so that refusing allocates nothing, and a pointer to one can be the
// key of a table.
type Refusal struct {
	// Reason says why.
	Reason Reason

	// RetryAfter is how long a caller should wait before it asks again, jittered so that those refused together
	// do not return together. 0 means that asking again is of no use: the request itself has run out of time.
	RetryAfter time.Duration

	cause error
}

// Error describes the refusal in a form that may be shown to a caller: it tells nothing of the inside.
func (r *Refusal) Error() string { return "limiter: refused (" + r.Reason.String() + ")" }

// Unwrap returns [ErrRefused], and for ReasonExpired also [context.Canceled] or [context.DeadlineExceeded].
func (r *Refusal) Unwrap() []error {
	if r.cause == nil {
		return []error{ErrRefused}
	}
	return []error{ErrRefused, r.cause}
}

const (
	minRetry  = time.Millisecond // the shortest hint: less than one round trip between machines helps nobody
	retrySpan = 15               // doublings above minRetry, up to 16 s
	jitters   = 8                // hints from one doubling to the next, chosen in turn
)

// refusals are all the refusals that a limiter can return.
type refusals struct {
	retry    [reasons][retrySpan][jitters]Refusal
	expired  Refusal
	canceled Refusal
}

func newRefusals() *refusals {
	r := &refusals{
		expired:  Refusal{Reason: ReasonExpired, cause: context.DeadlineExceeded},
		canceled: Refusal{Reason: ReasonExpired, cause: context.Canceled},
	}
	for reason := range r.retry {
		for span := range r.retry[reason] {
			for jitter := range r.retry[reason][span] {
				after := minRetry << span
				after += after * time.Duration(jitter) / jitters
				if Reason(reason) == ReasonDeadline {
					after = 0
				}
				r.retry[reason][span][jitter] = Refusal{Reason: Reason(reason), RetryAfter: after}
			}
		}
	}
	return r
}

// ended returns the refusal of a request whose context has ended with err.
func (r *refusals) ended(err error) *Refusal {
	if errors.Is(err, context.DeadlineExceeded) {
		return &r.expired
	}
	return &r.canceled
}

// pick returns the refusal for a reason with a hint of at least after, jittered by turn.
func (r *refusals) pick(reason Reason, after time.Duration, turn uint64) *Refusal {
	span := 0
	for span < retrySpan-1 && minRetry<<span < after {
		span++
	}
	return &r.retry[reason][span][turn%jitters]
}
