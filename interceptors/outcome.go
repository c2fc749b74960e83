package interceptors

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// Outcome is how a handler's error counts when [WithOutcome] is not given:
//
//   - no error, and errors that are the caller's fault (INVALID_ARGUMENT, NOT_FOUND, ...), are answers: OK;
//   - CANCELED says nothing about the service: Ignored, unless the request's deadline has passed: Late;
//   - DEADLINE_EXCEEDED is Late if the request's own deadline has passed, and Failed if it was a callee's;
//   - an error without a status counts by the code that gRPC answers with: ctx.Err() as one of the two above;
//   - everything else has failed. RESOURCE_EXHAUSTED and UNAVAILABLE too: they may be a callee's and are then no
//     sign that this service has too much in flight. Only what failed fast is told apart from capacity.
func Outcome(err error) limiter.Outcome {
	code := status.Code(err)
	if code == codes.Unknown { // what gRPC's server does with an error that has no status
		code = status.FromContextError(err).Code()
	}
	switch code {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return limiter.OK
	case codes.Canceled:
		return limiter.Ignored
	case codes.DeadlineExceeded:
		return limiter.Late
	default:
		return limiter.Failed
	}
}

// outcomeOf is how a handler's error counts for a request with the context ctx. What is over only after its
// deadline is late, whatever the error says: the caller's timer and ours run out together, and most often its
// reset of the stream arrives first, so that a passed deadline looks like a cancellation here.
func (p *policy) outcomeOf(ctx context.Context, err error) limiter.Outcome {
	decide := p.outcome
	if decide == nil {
		decide = Outcome
	}
	outcome := decide(err)
	if outcome == limiter.Ignored {
		if at, ok := ctx.Deadline(); ok && time.Until(at) <= 0 {
			return limiter.Late
		}
	}
	return outcome
}
