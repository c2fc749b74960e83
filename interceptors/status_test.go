package interceptors

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		refusal  limiter.Refusal
		reason   string
		pushback string
	}{
		{limiter.Refusal{Reason: limiter.ReasonLimit, RetryAfter: 40 * time.Millisecond}, "LIMIT", "40"},
		{limiter.Refusal{Reason: limiter.ReasonCriticality, RetryAfter: 1125 * time.Microsecond}, "CRITICALITY", "1"},
		{limiter.Refusal{Reason: limiter.ReasonDisplaced, RetryAfter: 2 * time.Second}, "DISPLACED", "2000"},
		{limiter.Refusal{Reason: limiter.ReasonDeadline}, "DEADLINE", "-1"}, // asking again is of no use
	} {
		answer := newAnswer(&c.refusal)
		st, ok := status.FromError(answer)
		if !ok || st.Code() != codes.ResourceExhausted {
			t.Errorf("%s: status %v, want ResourceExhausted", c.reason, st)
		}
		var info *errdetails.ErrorInfo
		var retry *errdetails.RetryInfo
		for _, detail := range st.Details() {
			switch d := detail.(type) {
			case *errdetails.ErrorInfo:
				info = d
			case *errdetails.RetryInfo:
				retry = d
			}
		}
		if info.GetReason() != c.reason || info.GetDomain() != Domain {
			t.Errorf("%s: ErrorInfo %v", c.reason, info)
		}
		if got := retry.GetRetryDelay().AsDuration(); got != c.refusal.RetryAfter || (retry != nil) != (got > 0) {
			t.Errorf("%s: RetryInfo %v, want %v", c.reason, retry, c.refusal.RetryAfter)
		}
		if got := answer.trailer.Get(pushbackTrailer); len(got) != 1 || got[0] != c.pushback {
			t.Errorf("%s: pushback %q, want %q", c.reason, got, c.pushback)
		}
	}
}

// Inside the server an answer is still the refusal that it stands for.
func TestAnswersUnwrap(t *testing.T) {
	s, err := NewServer()
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.admit(gone, "/a.B/C", limiter.Request{})
	var refusal *limiter.Refusal
	if !errors.Is(err, limiter.ErrRefused) || !errors.Is(err, context.Canceled) || !errors.As(err, &refusal) {
		t.Errorf("%v is not also ErrRefused, Canceled and a *Refusal", err)
	}
	if got := status.Code(err); got != codes.Canceled {
		t.Errorf("code %v, want Canceled", got)
	}
	if _, again := s.admit(gone, "/a.B/C", limiter.Request{}); again != err {
		t.Error("the answer to the same refusal was made twice")
	}
}
