package interceptors

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/spillway-go/spillway/limiter"
)

// brownout is a service whose answers take 10 ms, or 2 ms under pressure.
type brownout struct{ full, short atomic.Int64 }

func (b *brownout) service() *service {
	return &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		if limiter.Pressure(ctx) > .5 {
			b.short.Add(1)
			time.Sleep(2 * time.Millisecond)
		} else {
			b.full.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
		return &testpb.SimpleResponse{}, nil
	}}
}

// press calls every so often for a time, and returns how many calls got no answer.
func (p *pair) press(t *testing.T, every, during time.Duration) (unanswered int64) {
	var failed atomic.Int64
	for start := time.Now(); time.Since(start) < during; time.Sleep(every) {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				failed.Add(1)
			}
		}()
	}
	time.Sleep(time.Second)
	return failed.Load()
}

// A handler that answers with less under pressure gives everybody an answer where half would get none, and full
// answers again when the load has gone.
func TestHandlerAnswersWithLessUnderPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &brownout{}
		p := connect(t, b.service(), limit(1))
		p.press(t, 15*time.Millisecond, 5*time.Second)
		if n := b.short.Load(); n > 0 {
			t.Errorf("%d short answers of %d at two thirds of what can be served, want none", n, n+b.full.Load())
		}
		unanswered := p.press(t, 5*time.Millisecond, 10*time.Second)
		if unanswered > 20 {
			t.Errorf("%d of 2000 calls without an answer at twice what can be served in full, want 1%% at most", unanswered)
		}
		if n := b.short.Load(); n < 1000 {
			t.Errorf("%d short answers of 2000 at twice what can be served in full, want most", n)
		}
		time.Sleep(10 * time.Second)
		before := b.short.Load()
		p.press(t, 15*time.Millisecond, 5*time.Second)
		if n := b.short.Load() - before; n > 0 {
			t.Errorf("%d short answers long after the overload, want none", n)
		}
	})
}

// press leaves a limiter under pressure, as 2 s of twice what can be served do, of the criticality given.
func press(t *testing.T, l *limiter.Limiter, c limiter.Criticality) {
	t.Helper()
	for range 400 {
		go func() {
			ctx, cancel := context.WithTimeout(limiter.ContextWithCriticality(t.Context(), c), 500*time.Millisecond)
			defer cancel()
			if permit, err := l.Acquire(ctx); err == nil {
				time.Sleep(10 * time.Millisecond)
				permit.Release(limiter.OK)
			}
		}()
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // the line drains
	synctest.Wait()
	if got := l.Pressure(c); got <= .5 {
		t.Fatalf("pressure %v after 2s of twice what can be served", got)
	}
}

// Handlers of every kind see the pressure on requests like theirs; those that are never refused see none.
func TestPressureInHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limit(1)...)
		press(t, s.Limiter(), limiter.SheddablePlus)
		sheddable := metadata.NewIncomingContext(t.Context(), metadata.Pairs(CriticalityHeader, "SHEDDABLE"))
		for _, c := range []struct {
			name   string
			ctx    context.Context
			method string
			want   bool
		}{
			{"nobody said", t.Context(), "/a.B/C", false},
			{"below those who press", sheddable, "/a.B/C", true},
			{"as said outside", limiter.ContextWithCriticality(t.Context(), limiter.SheddablePlus), "/a.B/C", true},
			{"exempt", sheddable, "/grpc.health.v1.Health/Check", false},
		} {
			handlers := map[string]func(check func(context.Context)) error{
				"unary": func(check func(context.Context)) error {
					info := &grpc.UnaryServerInfo{FullMethod: c.method}
					_, err := s.unary(c.ctx, nil, info, func(ctx context.Context, _ any) (any, error) {
						check(ctx)
						return nil, nil
					})
					return err
				},
				"stream": func(check func(context.Context)) error {
					inner, info := &fakeStream{ctx: c.ctx}, &grpc.StreamServerInfo{FullMethod: c.method}
					return s.stream(nil, inner, info, func(_ any, stream grpc.ServerStream) error {
						if err := stream.RecvMsg(nil); err != nil {
							return err
						}
						check(stream.Context())
						return nil
					})
				},
			}
			for kind, handle := range handlers {
				err := handle(func(ctx context.Context) {
					if got := limiter.Pressure(ctx); got > .5 != c.want {
						t.Errorf("%s, %s: pressure %v, want above .5: %v", kind, c.name, got, c.want)
					}
				})
				if err != nil {
					t.Errorf("%s, %s: %v", kind, c.name, err)
				}
			}
		}
		if got := limiter.Pressure(t.Context()); got != 0 {
			t.Errorf("pressure %v outside of a request, want 0", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

// A stream that has been open for long sees the pressure of the moment.
func TestPressureInAnOpenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []float64
		svc := &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			for {
				if _, err := stream.Recv(); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				seen = append(seen, limiter.Pressure(stream.Context()))
				if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
					return err
				}
			}
		}}
		p := connect(t, svc, limit(1))
		stream, err := p.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if i == 1 {
				press(t, p.server.Limiter(), limiter.Critical)
			}
			if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if len(seen) != 2 || seen[0] != 0 || seen[1] <= .5 {
			t.Errorf("pressures %v, want 0 and then more than .5", seen)
		}
	})
}

func TestPressureIsAMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := &recorder{}
		s := newServer(t, limit(1, WithMeterProvider(provider))...)
		press(t, s.Limiter(), limiter.SheddablePlus)
		o := &observer{seen: map[string]int64{}, levels: map[string]float64{}}
		if err := provider.meter.callback(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		for c := limiter.Sheddable; c <= limiter.CriticalPlus; c++ {
			name := "spillway.pressure spillway.criticality=" + c.String()
			if got, want := o.levels[name], s.Limiter().Pressure(c); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
	})
}

// Limiter and criticality reach the handler in one small allocation, whoever said the criticality, and a refusal has
// none: whoever is refused needs neither.
func TestPressureCostsOneAllocation(t *testing.T) {
	s := newServer(t, limit(100)...)
	info := &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	said := metadata.NewIncomingContext(t.Context(), metadata.Pairs(CriticalityHeader, "SHEDDABLE"))
	for name, ctx := range map[string]context.Context{"nobody said": t.Context(), "the caller said": said} {
		if n := testing.AllocsPerRun(1000, func() { _, _ = s.unary(ctx, nil, info, handler) }); n != 1 {
			t.Errorf("%s: %v allocations, want 1", name, n)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limit(1)...)
		defer fill(t, s.Limiter())()
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(CriticalityHeader, "SHEDDABLE"))
		ctx = grpc.NewContextWithServerTransportStream(ctx, transport{})
		if n := testing.AllocsPerRun(1000, func() { _, _ = s.unary(ctx, nil, info, handler) }); n != 0 {
			t.Errorf("a refusal: %v allocations, want 0", n)
		}
	})
}
