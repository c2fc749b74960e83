package interceptors

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// Outcome is how a handler's error counts when [WithOutcome] is not given:
//
//   - no error, and errors that are the caller's fault (INVALID_ARGUMENT, NOT_FOUND, ...), are answers: OK;
//   - CANCELED says nothing about the service: Ignored, and Late at the request's deadline, which most often arrives
//     as a cancellation: after it, and in the 32nd of its time before;
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

// outcomeOf is how a handler's error counts. That of a request that has run out of time is late, as the limiter sees.
func (p *policy) outcomeOf(err error) limiter.Outcome {
	if p.outcome != nil {
		return p.outcome(err)
	}
	return Outcome(err)
}
