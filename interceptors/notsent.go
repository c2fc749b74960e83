package interceptors

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// ErrNotSent matches, with [errors.Is], the error of a call that was not sent, because it would have been for nothing.
// Where the reason is load, the status is RESOURCE_EXHAUSTED, and the error also matches [limiter.ErrRefused]. Where the
// callee is broken, the status is UNAVAILABLE.
var ErrNotSent = errors.New("interceptors: not sent")

// obstacle says why a call is not sent.
type obstacle uint8

const (
	throttled obstacle = iota // the callee has refused most calls like it
	tooLate                   // less time is left than the callee takes
	crowded                   // enough calls are in flight to its target
	broken                    // the callee has failed most calls

	obstacles = int(iota)
)

// String returns the obstacle in lower case, as metrics have it.
func (o obstacle) String() string {
	return [obstacles]string{"throttled", "too_late", "crowded", "broken"}[o]
}

// notSent is the answer to a call that is not sent. Like a refusal of a server it is final.
type notSent struct {
	obstacle obstacle
	status   *status.Status
}

func (n *notSent) Error() string              { return n.status.String() }
func (n *notSent) GRPCStatus() *status.Status { return n.status }

func (n *notSent) Unwrap() []error {
	if n.obstacle == broken {
		return []error{ErrNotSent}
	}
	return []error{ErrNotSent, limiter.ErrRefused}
}

func newNotSent(o obstacle, code codes.Code, message string) *notSent {
	return &notSent{o, newStatus(code, message, o.String())}
}

var (
	errThrottled = newNotSent(throttled, codes.ResourceExhausted, "spillway: not sent, for the callee is overloaded")
	errTooLate   = newNotSent(tooLate, codes.ResourceExhausted, "spillway: not sent, for the callee takes longer than the time left")
	errCrowded   = newNotSent(crowded, codes.ResourceExhausted, "spillway: not sent, for enough calls are on their way to the callee")
	errWaited    = newNotSent(crowded, codes.DeadlineExceeded, "spillway: the deadline passed while the call waited to be sent")
	errLeft      = newNotSent(crowded, codes.Canceled, "spillway: the call was cancelled while it waited to be sent")
	errBroken    = newNotSent(broken, codes.Unavailable, "spillway: not sent, for the callee is broken")
)
