package interceptors

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/spillway-go/spillway/limiter"
)

// Domain is the domain of the ErrorInfo in a refusal: who said no. A refusal in the tap may come without; see [IsRefusal].
const Domain = "spillway"

// pushbackTrailer tells gRPC's own retries when to try again; a negative value, never (gRFC A6).
const pushbackTrailer = "grpc-retry-pushback-ms"

// IsRefusal reports whether an error is a NO of this package: of a server, or of a client with [DialOptions] in its stead.
// It tells it from a RESOURCE_EXHAUSTED that is a service's own, such as that of a quota, also where the refusal has no
// details: by its message, which must then be exactly one of those of [docs/refusals.md]. A server that drains or a
// deadline that has passed is no refusal.
//
// [docs/refusals.md]: https://github.com/spillway-go/spillway/blob/main/docs/refusals.md
func IsRefusal(err error) bool { return refusedBy(err) == spillway }

// The messages of refusals. Where the details are left out, callers know a refusal by them.
const (
	messageOverloaded = "spillway: overloaded, try again later"
	messageTooLate    = "spillway: overloaded, this request cannot be answered before its deadline"
)

// answer is what a caller gets for a refusal: to gRPC it is a status, and inside of the server still the refusal,
// so that an interceptor outside of ours tells our own no from a callee's by [limiter.ErrRefused]. The trailer is
// nil where there is nothing to say.
type answer struct {
	status  *status.Status
	refusal *limiter.Refusal
	trailer metadata.MD
	brief   *answer // the same without details; itself, where it has none
}

func (a *answer) Error() string              { return a.status.String() }
func (a *answer) GRPCStatus() *status.Status { return a.status }
func (a *answer) Unwrap() error              { return a.refusal }

// answers holds the answer to every refusal met so far, so that one is put together once and refusing neither
// formats nor encodes. A limiter has a bounded number of refusals. The zero value is ready for use.
type answers struct{ known sync.Map } // of *limiter.Refusal to *answer

func (a *answers) to(refusal *limiter.Refusal) *answer {
	if known, ok := a.known.Load(refusal); ok {
		return known.(*answer)
	}
	known, _ := a.known.LoadOrStore(refusal, newAnswer(refusal))
	return known.(*answer)
}

// newAnswer is the one place where a refusal becomes a gRPC status. The message tells a caller nothing of the
// inside; what a program wants to know is in the details.
func newAnswer(refusal *limiter.Refusal) *answer {
	switch {
	case errors.Is(refusal, context.Canceled):
		return newBrief(refusal, codes.Canceled, "spillway: the caller went away while the request waited")
	case errors.Is(refusal, context.DeadlineExceeded):
		return newBrief(refusal, codes.DeadlineExceeded, "spillway: the deadline passed while the request waited")
	}
	var more []protoadapt.MessageV1
	message, pushback := messageTooLate, int64(-1)
	if refusal.RetryAfter > 0 {
		more = append(more, &errdetails.RetryInfo{RetryDelay: durationpb.New(refusal.RetryAfter)})
		message, pushback = messageOverloaded, refusal.RetryAfter.Milliseconds()
	}
	return &answer{
		status:  newStatus(codes.ResourceExhausted, message, refusal.Reason.String(), more...),
		refusal: refusal,
		trailer: metadata.Pairs(pushbackTrailer, strconv.FormatInt(pushback, 10)),
		brief:   newBrief(refusal, codes.ResourceExhausted, message),
	}
}

// newBrief returns an answer without details.
func newBrief(refusal *limiter.Refusal, code codes.Code, message string) *answer {
	a := &answer{status: status.New(code, message), refusal: refusal}
	a.brief = a
	return a
}

// newStatus returns a status that says who gave it and why, in an ErrorInfo, and what more details there are.
func newStatus(code codes.Code, message, reason string, more ...protoadapt.MessageV1) *status.Status {
	info := &errdetails.ErrorInfo{Reason: strings.ToUpper(reason), Domain: Domain}
	st := status.New(code, message)
	if detailed, err := st.WithDetails(append([]protoadapt.MessageV1{info}, more...)...); err == nil {
		return detailed
	}
	return st
}
