package interceptors

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want limiter.Outcome
	}{
		{nil, limiter.OK},
		{status.Error(codes.NotFound, ""), limiter.OK},
		{status.Error(codes.InvalidArgument, ""), limiter.OK},
		{status.Error(codes.Canceled, ""), limiter.Ignored},
		{status.Error(codes.DeadlineExceeded, ""), limiter.Late},
		{status.Error(codes.ResourceExhausted, ""), limiter.Failed},
		{status.Error(codes.Unavailable, ""), limiter.Failed},
		{status.Error(codes.Unknown, ""), limiter.Failed},
		{errors.New("not a status"), limiter.Failed},
		{context.Canceled, limiter.Ignored},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), limiter.Late},
		{fmt.Errorf("query: %w", status.Error(codes.NotFound, "")), limiter.OK},
	} {
		if got := Outcome(c.err); got != c.want {
			t.Errorf("Outcome(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

// A handler that gives up at its deadline is late, also when it hears of the deadline as a cancellation.
func TestGivingUpAtTheDeadlineIsLate(t *testing.T) {
	for _, end := range []error{context.DeadlineExceeded, context.Canceled, status.Error(codes.Canceled, "")} {
		synctest.Test(t, func(t *testing.T) {
			svc := &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				<-ctx.Done()
				return nil, end
			}}
			p := connect(t, svc, limit(1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			// At this instant the caller gives up and the server answers: either may be first.
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err == nil {
				t.Error("an answer, want an error")
			}
			synctest.Wait()
			if got := p.server.Limiter().Stats().Outcomes; got[limiter.Late] != 1 {
				t.Errorf("%v at the deadline: outcomes %v, want 1 late", end, got)
			}
		})
	}
}

func TestCancellingEarlyIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		p := connect(t, svc, limit(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		time.AfterFunc(time.Second/2, cancel)
		if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); status.Code(err) != codes.Canceled {
			t.Errorf("call: %v, want Canceled", err)
		}
		synctest.Wait()
		if got := p.server.Limiter().Stats().Outcomes; got[limiter.Ignored] != 1 {
			t.Errorf("outcomes %v, want 1 ignored", got)
		}
	})
}
