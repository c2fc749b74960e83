package interceptors

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// timed is a server that tells how much time its requests come with, and takes some itself.
type timed struct {
	testpb.TestServiceClient
	left  span // 0: no deadline
	takes span
}

// span is a time that the server and the test share.
type span struct{ n atomic.Int64 }

func (i *span) set(d time.Duration) { i.n.Store(int64(d)) }
func (i *span) get() time.Duration  { return time.Duration(i.n.Load()) }

func newTimed(t *testing.T, opts ...ClientOption) *timed {
	timed := &timed{}
	left := func(ctx context.Context) {
		timed.left.set(0)
		if at, ok := ctx.Deadline(); ok {
			timed.left.set(time.Until(at))
		}
	}
	conn, _ := serve(t, &service{
		unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			left(ctx)
			select {
			case <-time.After(timed.takes.get()):
				return &testpb.SimpleResponse{}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			left(stream.Context())
			return nil
		},
	}, nil, newClient(t, opts...).DialOptions()...)
	timed.TestServiceClient = testpb.NewTestServiceClient(conn)
	return timed
}

// A call without a deadline gets a long one, until it is known how long its callee takes; then five times what nearly all
// answers take.
func TestDefaultDeadlineIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTimed(t)
		s.takes.set(400 * time.Millisecond)
		for i := range 2 * latencyKnown {
			if err := askUnary(t.Context(), s); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
			if i == 0 && s.left.get() != defaultMostDeadline {
				t.Errorf("%v at the start, want %v", s.left.get(), defaultMostDeadline)
			}
		}
		if s.left.get() < 5*s.takes.get() || s.left.get() > 7*s.takes.get() {
			t.Errorf("%v of a callee that takes %v, want about five times that", s.left.get(), s.takes.get())
		}
		s.takes.set(time.Millisecond) // the shortest there is
		for range 3 * latencyMemory {
			if err := askUnary(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if s.left.get() != defaultLeastDeadline {
			t.Errorf("%v of a callee that takes %v, want %v", s.left.get(), s.takes.get(), defaultLeastDeadline)
		}
	})
}

// A callee that becomes far slower than its deadline is not cut off for good: each call that runs into it makes the
// next ones longer.
func TestDefaultDeadlineFollowsASlowCallee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTimed(t)
		s.takes.set(10 * time.Millisecond)
		for range 3 * latencyKnown {
			if err := askUnary(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		s.takes.set(20 * time.Second) // 20 times the deadline
		failed := 0
		for askUnary(t.Context(), s) != nil {
			if failed++; failed > 1000 {
				t.Fatal("cut off for good")
			}
			time.Sleep(time.Second)
		}
		t.Logf("%d calls failed on the way from %v to %v", failed, 10*time.Millisecond, s.takes.get())
		for range 100 {
			if err := askUnary(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What somebody has decided stays: a deadline of the caller's own, none for a stream, and none at all without default.
func TestDeadlinesOfOnesOwnStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTimed(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := askUnary(ctx, s); err != nil || s.left.get() != time.Hour {
			t.Errorf("%v left, %v; want an hour", s.left.get(), err)
		}
		if err := askStream(t.Context(), s, 0); err != nil || s.left.get() != 0 {
			t.Errorf("a stream has %v left, %v; want no deadline", s.left.get(), err)
		}
		s = newTimed(t, WithoutDefaultDeadline())
		if err := askUnary(t.Context(), s); err != nil || s.left.get() != 0 {
			t.Errorf("%v left, %v; want no deadline", s.left.get(), err)
		}
		s = newTimed(t, WithDefaultDeadline(time.Second, 3*time.Second))
		if err := askUnary(t.Context(), s); err != nil || s.left.get() != 3*time.Second {
			t.Errorf("%v left, %v; want 3s", s.left.get(), err)
		}
		s.takes.set(4 * time.Second)
		if err := askUnary(t.Context(), s); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v, want DEADLINE_EXCEEDED", err)
		}
	})
}

// A handler whose callee does not answer can still answer itself: what it calls gets a little less time than it has.
func TestSomeTimeIsForTheWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := newTimed(t)
		below.takes.set(time.Hour)
		own := time.Duration(0) // that the handler sets
		p := connect(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			if own > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, own)
				defer cancel()
			}
			if err := askUnary(ctx, below); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("the callee: %v, want DEADLINE_EXCEEDED", err)
			}
			return &testpb.SimpleResponse{Username: "yesterday's"}, nil
		}}, nil)
		for _, c := range []struct{ left, own, want time.Duration }{
			{100 * time.Millisecond, 0, 95 * time.Millisecond},
			{10 * time.Second, 0, 9950 * time.Millisecond},
			{10 * time.Second, time.Second, time.Second},
			{100 * time.Millisecond, time.Second, 95 * time.Millisecond},
		} {
			own = c.own
			ctx, cancel := context.WithTimeout(t.Context(), c.left)
			answer, err := p.UnaryCall(ctx, &testpb.SimpleRequest{})
			cancel()
			if err != nil || answer.Username == "" {
				t.Errorf("with %v left: %v, want an answer", c.left, err)
			}
			if below.left.get() != c.want {
				t.Errorf("the callee has %v of %v, and of %v set by the handler; want %v", below.left.get(), c.left, c.own, c.want)
			}
		}
	})
}

// A stream that cannot send, for nobody reads, ends with its deadline.
func TestSendMsgRespectsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := serve(t, &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		}}, nil, newClient(t).DialOptions()...)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		message := &testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 1<<14)}}
		for err == nil {
			err = stream.Send(message)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("Send returned %v after %v, want an error after 1s", err, took)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v, want DEADLINE_EXCEEDED", err)
		}
	})
}

func TestDeadlineOptionErrors(t *testing.T) {
	for _, c := range []struct{ least, most time.Duration }{{0, time.Second}, {-1, 1}, {2, 1}, {1, 0}} {
		_, err := NewClient(WithDefaultDeadline(c.least, c.most))
		if err == nil || !strings.Contains(err.Error(), "WithDefaultDeadline(") {
			t.Errorf("%v, %v: %v, want an error that names the option", c.least, c.most, err)
		}
	}
}
