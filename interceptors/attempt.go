package interceptors

import (
	"context"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// Only the layer right above a failure retries. If each did, n layers would make 3^n attempts of one call, at the very
// moment when what is at the bottom can do least (Google's SRE book, chapter 22).

// previousAttemptsHeader is where gRPC says how often it has tried already (gRFC A6).
const previousAttemptsHeader = "grpc-previous-rpc-attempts"

// PreviousAttempts returns how many attempts at the call of a handler's context gRPC has made before, by the word of the
// caller: 0 for the first, and where nothing that can be read was said. Those that gRPC made unseen, because no server had
// looked at the one before, are not among them.
func PreviousAttempts(ctx context.Context) int {
	values := metadata.ValueFromIncomingContext(ctx, previousAttemptsHeader)
	if len(values) != 1 {
		return 0
	}
	attempts, err := strconv.ParseUint(values[0], 10, 8)
	if err != nil {
		return 0
	}
	return int(attempts)
}

// noteFailure is the caller's part: the call of ctx has ended after all its retries, and whoever waits for it in turn
// need not try again. A refusal was not retried, and is not to be.
func noteFailure(ctx context.Context, err error) {
	if invitesRetry(err) {
		limiter.NoteFailure(ctx)
	}
}

// forbidRetry is the server's part: where a callee's failure is the answer, it ends gRPC's retries of the caller. They
// only come for an answer without headers or messages, which is all trailers, so a trailer is early enough.
func forbidRetry(ctx context.Context, err error) {
	if invitesRetry(err) && limiter.FailureMet(ctx) {
		// It fails only outside of a gRPC server, where nobody reads trailers.
		_ = grpc.SetTrailer(ctx, noRetry)
	}
}

var noRetry = metadata.Pairs(pushbackTrailer, "-1") // never changed

// invitesRetry reports whether an error has one of the codes that retry policies list.
func invitesRetry(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}
