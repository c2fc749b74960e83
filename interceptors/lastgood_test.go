package interceptors

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func newLastGood(t *testing.T, age time.Duration, bytes int, key func(context.Context, any) string) *LastGood {
	t.Helper()
	l, err := NewLastGood(age, bytes, key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// While the callee is down, each request gets its own last answer, until that is too old.
func TestLastGoodAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		client := newAnswering(t, func(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			if down {
				return nil, status.Error(codes.Unavailable, "")
			}
			return &testpb.SimpleResponse{Username: fmt.Sprint(r.ResponseSize)}, nil
		}, WithLastGood("/grpc.testing.TestService/UnaryCall", newLastGood(t, time.Minute, 1<<20, nil)))
		ask := func(size int32) (string, error) {
			answer, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: size})
			return answer.GetUsername(), err
		}
		for size := range int32(3) {
			if _, err := ask(size); err != nil {
				t.Fatal(err)
			}
		}
		down = true
		time.Sleep(time.Minute)
		for range 100 { // also while the breaker is open
			for size := range int32(3) {
				if got, err := ask(size); err != nil || got != fmt.Sprint(size) {
					t.Fatalf("%q, %v to the request %d", got, err, size)
				}
			}
		}
		if _, err := ask(3); status.Code(err) != codes.Unavailable {
			t.Errorf("%v to a request that never was answered, want UNAVAILABLE", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := ask(1); status.Code(err) != codes.Unavailable {
			t.Errorf("%v when the answer is too old, want UNAVAILABLE", err)
		}
	})
}

// With a key that says who asks, nobody gets another's answer.
func TestLastGoodByKey(t *testing.T) {
	l := newLastGood(t, time.Minute, 1<<20, func(ctx context.Context, _ any) string {
		return limiter.CriticalityFromContext(ctx).String() // as well as any
	})
	one := limiter.ContextWithCriticality(t.Context(), limiter.Sheddable)
	other := limiter.ContextWithCriticality(t.Context(), limiter.CriticalPlus)
	down := status.Error(codes.Unavailable, "")
	l.keep(one, "/a.B/C", &testpb.SimpleRequest{}, &testpb.SimpleResponse{Username: "one"})
	for _, c := range []struct {
		ctx    context.Context
		method string
		want   string
	}{{one, "/a.B/C", "one"}, {other, "/a.B/C", ""}, {one, "/a.B/D", ""}} {
		var reply testpb.SimpleResponse
		if err := l.give(c.ctx, c.method, nil, &reply, down); (err == nil) != (c.want != "") || reply.Username != c.want {
			t.Errorf("%s, %v: %q, %v; want %q", c.method, limiter.CriticalityFromContext(c.ctx), reply.Username, err, c.want)
		}
	}
}

// Memory is bounded; what was used lately stays.
func TestLastGoodIsBounded(t *testing.T) {
	const most = 100 * (lastGoodOverhead + 20)
	l := newLastGood(t, time.Minute, most, nil)
	request := func(i int) *testpb.SimpleRequest { return &testpb.SimpleRequest{ResponseSize: int32(i)} }
	var reply testpb.SimpleResponse
	down := status.Error(codes.Unavailable, "")
	for i := range 10_000 {
		l.keep(t.Context(), "/a.B/C", request(i), &testpb.SimpleResponse{Username: "0123456789"})
		if err := l.give(t.Context(), "/a.B/C", request(0), &reply, down); err != nil {
			t.Fatalf("what is used each time is gone after %d others", i)
		}
		if l.bytes > most || len(l.answers) != l.recent.Len() || len(l.answers) > 110 {
			t.Fatalf("%d bytes, %d answers", l.bytes, len(l.answers))
		}
	}
	if err := l.give(t.Context(), "/a.B/C", request(5), &reply, down); err == nil {
		t.Error("what was not used for long is still there")
	}
	before := len(l.answers)
	l.keep(t.Context(), "/a.B/C", request(1), &testpb.SimpleResponse{Username: string(make([]byte, most))})
	if len(l.answers) != before {
		t.Error("one that is larger than all there is drives out others")
	}
}

// What is no protobuf message is left alone.
func TestLastGoodOfStrangers(t *testing.T) {
	l := newLastGood(t, time.Minute, 1<<20, nil)
	cause := status.Error(codes.Unavailable, "")
	l.keep(t.Context(), "/a.B/C", "request", "answer")
	l.keep(t.Context(), "/a.B/C", "request", &testpb.SimpleResponse{})
	if err := l.give(t.Context(), "/a.B/C", "request", &testpb.SimpleResponse{}, cause); err != cause || len(l.answers) != 0 {
		t.Errorf("%v, %d kept", err, len(l.answers))
	}
}
