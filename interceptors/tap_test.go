package interceptors

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// fill takes all permits and all places in the line, until a newcomer is refused, and returns what undoes it. It
// is for use in a bubble.
func fill(t *testing.T, lim *limiter.Limiter) (empty func()) {
	t.Helper()
	held, err := lim.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for i := 0; lim.Preview(ctx, limiter.Request{}) == nil; i++ {
		if i == 1000 {
			t.Fatal("1000 wait and the line has no end")
		}
		go func() {
			if permit, err := lim.Acquire(ctx); err == nil {
				permit.Cancel()
			}
		}()
		synctest.Wait()
	}
	return func() {
		cancel()
		held.Release(limiter.OK)
		synctest.Wait()
	}
}

// reached counts the calls that get past the tap, to the outermost interceptor.
func reached(n *int) grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		*n++
		return handler(ctx, req)
	})
}

func TestTapRefusesBeforeTheMessageIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := 0
		p := connect(t, &service{}, limit(1), reached(&past))
		empty := fill(t, p.server.Limiter())
		var trailer metadata.MD
		_, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Trailer(&trailer))
		st := status.Convert(err)
		if st.Code() != codes.ResourceExhausted || len(st.Details()) != 2 {
			t.Fatalf("refused by the tap: %v with %d details, want ResourceExhausted with 2", st, len(st.Details()))
		}
		if info := st.Details()[0].(*errdetails.ErrorInfo); info.Domain != Domain || info.Reason != "LIMIT" {
			t.Errorf("ErrorInfo %v", info)
		}
		if strings.Contains(st.Message(), "limiter") {
			t.Errorf("the message shows the inside: %q", st.Message())
		}
		stream, err := p.FullDuplexCall(t.Context())
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("stream refused by the tap: %v, want ResourceExhausted", err)
		}
		if err := p.conn.Invoke(t.Context(), "/no.such/Method", &testpb.Empty{}, &testpb.Empty{}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("unknown method at a full server: %v, want ResourceExhausted", err)
		}
		if past != 0 {
			t.Errorf("%d calls got past the tap, want none", past)
		}
		if _, err := healthpb.NewHealthClient(p.conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("health check of a server that refuses everything: %v", err)
		}
		if got := p.server.Limiter().Stats().Refused[limiter.ReasonLimit]; got != 3 {
			t.Errorf("%d refusals counted by the limiter, want 3", got)
		}
		empty()
		if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Errorf("after the load: %v", err)
		}
	})
}

func TestWithoutTapTheInterceptorRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := 0
		p := connect(t, &service{}, limit(1, WithoutTap()), reached(&past))
		defer fill(t, p.server.Limiter())()
		var trailer metadata.MD
		_, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Trailer(&trailer))
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("refused by the interceptor: %v, want ResourceExhausted", err)
		}
		if past != 1 || len(trailer.Get(pushbackTrailer)) != 1 {
			t.Errorf("%d calls reached the interceptors, with trailer %v; want 1, with a pushback", past, trailer)
		}
	})
}

// A reading of the clock and some atomics: the tap runs on the goroutine that reads the connection.
func TestTapAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(limit(1)...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(fromAnother(t.Context()), time.Minute)
		defer cancel()
		info := &tap.Info{FullMethodName: "/a.B/C", Header: metadata.Pairs(CriticalityHeader, "SHEDDABLE")}
		handle := s.TapHandle()
		if n := testing.AllocsPerRun(100, func() { _, _ = handle(ctx, info) }); n != 0 {
			t.Errorf("%v allocations on a pass, want 0", n)
		}
		defer fill(t, s.Limiter())()
		if _, err := handle(ctx, info); err == nil {
			t.Fatal("a full server refuses nothing")
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = handle(ctx, info) }); n != 0 { // the first with details
			t.Errorf("%v allocations on a refusal, want 0", n)
		}
	})
}
