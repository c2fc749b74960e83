package interceptors

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// slow answers after d, also when the caller has gone.
func slow(d time.Duration) *service {
	return &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		time.Sleep(d)
		return &testpb.SimpleResponse{}, nil
	}}
}

// overload fills a server with a limit of 1 and work of 10 ms with as many callers as given, for a second, and
// returns when all are answered: how many of them OK, and a refusal's status and trailer.
func overload(t *testing.T, p *pair, callers int) (ok int, refusal *status.Status, trailer metadata.MD) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	for i := range callers {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 1001 * time.Microsecond)
			var md metadata.MD
			call, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			_, err := p.UnaryCall(call, &testpb.SimpleRequest{}, grpc.Trailer(&md))
			mu.Lock()
			defer mu.Unlock()
			switch status.Code(err) {
			case codes.OK:
				ok++
			case codes.ResourceExhausted:
				if refusal == nil { // one of the first, for those have details in any case
					refusal, trailer = status.Convert(err), md
				}
			default:
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	all.Wait()
	return ok, refusal, trailer
}

func TestRefusalsAreOneStatus(t *testing.T) {
	for _, tap := range []bool{true, false} {
		name := "without tap"
		var opts []Option
		if tap {
			name = "with tap"
		} else {
			opts = append(opts, WithoutTap())
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, slow(10*time.Millisecond), limit(1, opts...))
				ok, refusal, trailer := overload(t, p, 900)
				if refusal == nil {
					t.Fatal("900 calls in 0.9s at 100/s: none refused")
				}
				if ok < 80 {
					t.Errorf("%d answered in time, want nearly all that can be: 90", ok)
				}
				var info *errdetails.ErrorInfo
				var retry *errdetails.RetryInfo
				for _, detail := range refusal.Details() {
					switch d := detail.(type) {
					case *errdetails.ErrorInfo:
						info = d
					case *errdetails.RetryInfo:
						retry = d
					}
				}
				if info.GetDomain() != Domain || info.GetReason() == "" {
					t.Errorf("ErrorInfo = %v, want one of domain %q with a reason", info, Domain)
				}
				if info.GetReason() == "LIMIT" && retry.GetRetryDelay().AsDuration() <= 0 {
					t.Errorf("RetryInfo = %v, want a delay", retry)
				}
				if pushback := trailer.Get(pushbackTrailer); !tap && len(pushback) != 1 {
					t.Errorf("trailer %s = %v, want one value", pushbackTrailer, pushback)
				}
				p.wantEmpty(t)
			})
		})
	}
}

func TestContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, slow(10*time.Millisecond), limit(1, WithoutTap()))
		for range 20 { // without a deadline
			if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		expired, cancel := context.WithTimeout(t.Context(), -time.Second)
		defer cancel()
		if _, err := p.UnaryCall(expired, &testpb.SimpleRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("expired before: %v, want DeadlineExceeded", err)
		}
		// The same inside a server, where gRPC would not let it come so far.
		handler := func(context.Context, any) (any, error) { t.Error("the handler ran"); return nil, nil }
		if _, err := p.server.unary(expired, nil, &grpc.UnaryServerInfo{FullMethod: "/a/b"}, handler); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("expired before, inside: %v, want DeadlineExceeded", err)
		}

		held, err := p.server.Limiter().Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		waiting, leave := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := p.UnaryCall(waiting, &testpb.SimpleRequest{})
			done <- err
		}()
		synctest.Wait()
		if got := p.server.Limiter().Stats().Line; got != 1 {
			t.Fatalf("%d in line, want 1", got)
		}
		leave()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Errorf("cancelled while it waited: %v, want Canceled", err)
		}
		synctest.Wait()
		if got := p.server.Limiter().Stats().Line; got != 0 {
			t.Errorf("%d in line after the caller left, want 0", got)
		}
		held.Release(limiter.OK)
	})
}

func TestPanicReleasesThePermit(t *testing.T) {
	recovers := grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor())
	svc := &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) { panic("handler") }}
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, svc, limit(1), recovers)
		for range 5 {
			if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unknown {
				t.Errorf("a panic with recovery outside: %v, want the Unknown that it makes of panics", status.Code(err))
			}
		}
		if got := p.server.Limiter().Stats().Outcomes[limiter.Panicked]; got != 5 {
			t.Errorf("%d panics counted, want 5", got)
		}
	})
	synctest.Test(t, func(t *testing.T) { // recovery inside
		s, err := NewServer(limit(1)...)
		if err != nil {
			t.Fatal(err)
		}
		inner := recovery.UnaryServerInterceptor()
		info := &grpc.UnaryServerInfo{FullMethod: "/a/b"}
		_, err = s.unary(t.Context(), nil, info, func(ctx context.Context, req any) (any, error) {
			return inner(ctx, req, info, func(context.Context, any) (any, error) { panic("handler") })
		})
		if err == nil {
			t.Error("recovery inside: no error")
		}
		if got := s.Limiter().Stats(); got.InFlight != 0 || got.Outcomes[limiter.Failed] != 1 {
			t.Errorf("stats %+v, want one failure and nothing in flight", got)
		}
	})
}

func TestExemptMethodsPassAFullServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &service{}, limit(1))
		held, err := p.server.Limiter().Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("health check of a full server: %v", err)
		}
		watch, err := healthpb.NewHealthClient(p.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if err != nil {
			t.Errorf("health watch of a full server: %v", err)
		}
		held.Release(limiter.OK)
	})
}

func TestUnknownMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &service{}, limit(1))
		for range 10 {
			err := p.conn.Invoke(t.Context(), "/no.such.Service/Method", &testpb.Empty{}, &testpb.Empty{})
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("unknown method: %v, want Unimplemented", err)
			}
		}
		if known := len(p.server.metrics.methods.all()); known != 0 {
			t.Errorf("%d methods learned from names off the wire, want none", known)
		}
	})
}

func TestMisuseIsAnErrorNotAPanic(t *testing.T) {
	s, err := NewServer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.UnaryInterceptor()(t.Context(), nil, nil, nil); status.Code(err) != codes.Internal {
		t.Errorf("unary without handler: %v, want Internal", err)
	}
	if err := s.StreamInterceptor()(nil, nil, nil, nil); status.Code(err) != codes.Internal {
		t.Errorf("stream without handler: %v, want Internal", err)
	}
}

// The way of an admitted call through the interceptor allocates nothing of its own but the handler's context.
func TestAdmissionAllocatesTheContext(t *testing.T) {
	s, err := NewServer(limit(100)...)
	if err != nil {
		t.Fatal(err)
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	handler := func(context.Context, any) (any, error) { return nil, nil }
	if n := testing.AllocsPerRun(1000, func() { _, _ = s.unary(ctx, nil, info, handler) }); n != 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

// transport is a server's side of a call that takes trailers for nothing.
type transport struct{ grpc.ServerTransportStream }

func (transport) SetTrailer(metadata.MD) error { return nil }

// A refusal allocates nothing: status and trailer are prepared.
func TestRefusalAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(limit(1)...)
		if err != nil {
			t.Fatal(err)
		}
		defer fill(t, s.Limiter())()
		ctx := grpc.NewContextWithServerTransportStream(t.Context(), transport{})
		info := &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}
		handler := func(context.Context, any) (any, error) { t.Error("the handler ran"); return nil, nil }
		if n := testing.AllocsPerRun(1000, func() { _, _ = s.unary(ctx, nil, info, handler) }); n != 0 {
			t.Errorf("%v allocations, want 0", n)
		}
	})
}
