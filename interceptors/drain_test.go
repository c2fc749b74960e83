package interceptors

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

const (
	roundRobin       = `"loadBalancingConfig": [{"round_robin": {}}]`
	retriesElsewhere = `"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]`
	healthConfig     = `"healthCheckConfig": {"serviceName": ""}`
)

// slowEcho answers calls after d, and messages too.
func slowEcho(d time.Duration) *service {
	return &service{unary: slow(d).unary, duplex: echo(d).duplex}
}

// wantDraining reports a refusal that is not that of a server that drains.
func wantDraining(t *testing.T, what string, err error) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != codes.Unavailable || len(st.Details()) != 1 {
		t.Errorf("%s of a server that drains: %v, want Unavailable with one detail", what, err)
		return
	}
	if info, _ := st.Details()[0].(*errdetails.ErrorInfo); info.GetDomain() != Domain || info.GetReason() != "DRAINING" {
		t.Errorf("%s of a server that drains: %v, want DRAINING of %s", what, info, Domain)
	}
}

// What is there before is finished, in the line too, and what comes later is refused, by the tap or the interceptor.
func TestDrainFinishesWhatWasBegun(t *testing.T) {
	for name, opts := range map[string][]Option{"tap": nil, "no tap": {WithoutTap()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := connectFleet(t, []*service{slowEcho(10 * time.Millisecond)}, "{"+roundRobin+"}", limit(1, opts...)...)
				s := f.servers[0]
				stream, err := f.FullDuplexCall(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // it waits for a message, and holds no permit
				answered := make(chan error, 3)
				for range 3 { // one is worked on, two wait
					go func() {
						_, err := f.UnaryCall(t.Context(), &testpb.SimpleRequest{})
						answered <- err
					}()
				}
				synctest.Wait()
				if st := s.Limiter().Stats(); st.InFlight != 1 || st.Line != 2 {
					t.Fatalf("%d in flight and %d in line, want 1 and 2", st.InFlight, st.Line)
				}
				start := time.Now()
				drained := make(chan error)
				go func() { drained <- s.Drain(t.Context()) }()
				synctest.Wait()
				_, err = f.UnaryCall(t.Context(), &testpb.SimpleRequest{})
				wantDraining(t, "a call", err)
				late, err := f.FullDuplexCall(t.Context())
				if err == nil {
					_, err = late.Recv()
				}
				wantDraining(t, "a stream", err)
				for range 3 {
					if err := <-answered; err != nil {
						t.Errorf("a call from before: %v", err)
					}
				}
				time.Sleep(time.Minute)
				if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err != nil {
					t.Errorf("a message of a stream from before: %v", err)
				}
				select {
				case err := <-drained:
					t.Fatalf("drained with a stream open: %v", err)
				default:
				}
				_ = stream.CloseSend()
				if err := <-drained; err != nil {
					t.Errorf("Drain: %v", err)
				}
				if got, want := time.Since(start), time.Minute+40*time.Millisecond; got != want {
					t.Errorf("drained after %v, want %v: when the last has ended", got, want)
				}
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					t.Errorf("the stream ended with %v", err)
				}
			})
		})
	}
}

// Drain gives up when its time is over, says what is left, and can be called again.
func TestDrainTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connectFleet(t, []*service{slowEcho(time.Hour)}, "{"+roundRobin+"}")
		s := f.servers[0]
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 {
			if _, err := f.FullDuplexCall(ctx); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, _ = f.UnaryCall(t.Context(), &testpb.SimpleRequest{}) }()
		synctest.Wait()
		start := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				brief, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				err := s.Drain(brief)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 calls and 2 streams left") {
					t.Errorf("Drain with 1 call and 2 streams: %v", err)
				}
			})
		}
		all.Wait()
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("gave up after %v, want 10s", got)
		}
		cancel()
		if err := s.Drain(t.Context()); err != nil {
			t.Errorf("Drain again: %v", err)
		}
		if got := time.Since(start); got != time.Hour {
			t.Errorf("drained after %v, want 1h: when the call was over", got)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Drain(ended); err != nil {
			t.Errorf("Drain with nothing left and no time: %v", err)
		}
	})
}

// Whoever asks how the server is gets an answer: not ready, but alive.
func TestDrainingServerTellsHowItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connectFleet(t, []*service{{}}, "{"+roundRobin+"}", limit(1)...)
		s, client := f.servers[0], healthpb.NewHealthClient(f.conn)
		s.Health().SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
		watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		check := func(want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			for _, name := range []string{"", "shop"} {
				if got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name}); err != nil || got.Status != want {
					t.Errorf("the health of %q: %v, %v, want %v", name, got, err, want)
				}
			}
			if got, err := watch.Recv(); err != nil || got.Status != want {
				t.Errorf("watched: %v, %v, want %v", got, err, want)
			}
			mirror, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
			if err := mirror.Send(list); err != nil {
				t.Fatal(err)
			}
			if got, err := mirror.Recv(); err != nil || len(got.GetListServicesResponse().GetService()) == 0 {
				t.Errorf("reflection: %v, %v", got, err)
			}
			_ = mirror.CloseSend()
		}
		check(healthpb.HealthCheckResponse_SERVING)
		defer fill(t, s.Limiter())()
		if err := s.Drain(t.Context()); err != nil { // fill is no request of this server
			t.Fatal(err)
		}
		check(healthpb.HealthCheckResponse_NOT_SERVING)
	})
}

// Handlers that wait for long, exempt from the limit or not, hear of it, and only they know how to end.
func TestHandlersHearOfTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Server
		ended := 0
		svc := &service{output: func(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
			<-s.Draining()
			ended++
			return stream.Send(&testpb.StreamingOutputCallResponse{})
		}}
		f := connectFleet(t, []*service{svc}, "{"+roundRobin+"}", WithExempt(method("StreamingOutputCall")))
		s = f.servers[0]
		watch, err := f.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ended > 0 {
			t.Fatal("heard of a drain before there was one")
		}
		if err := s.Drain(t.Context()); err != nil || ended != 1 {
			t.Errorf("Drain: %v, with %d handlers at their end, want 1", err, ended)
		}
		if _, err := watch.Recv(); err != nil {
			t.Errorf("the last word: %v", err)
		}
		again, err := f.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
		if err == nil {
			_, err = again.Recv()
		}
		wantDraining(t, "an exempt stream", err)
	})
}

// A handler that panics is no more there than one that returns.
func TestDrainAfterAPanic(t *testing.T) {
	s := newServer(t)
	handler := func(context.Context, any) (any, error) { panic("handler") }
	func() {
		defer func() { _ = recover() }()
		_, _ = s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, handler)
	}()
	func() {
		defer func() { _ = recover() }()
		_ = s.stream(nil, &fakeStream{ctx: t.Context()}, streamInfo, func(any, grpc.ServerStream) error { panic("handler") })
	}()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drain(ended); err != nil {
		t.Errorf("Drain: %v", err)
	}
}

// However calls, streams and drains meet, nobody works when Drain has returned, and all that were let in were answered.
func TestNobodyWorksAfterTheDrain(t *testing.T) {
	for range 200 {
		s := newServer(t)
		var working, served, refused atomic.Int64
		work := func() {
			working.Add(1)
			served.Add(1)
			working.Add(-1)
		}
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 20 {
					var err error
					if i%2 == 0 {
						_, err = s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"},
							func(context.Context, any) (any, error) { work(); return nil, nil })
					} else {
						err = s.stream(nil, &fakeStream{ctx: t.Context()}, streamInfo,
							func(any, grpc.ServerStream) error { work(); return nil })
					}
					if err != nil {
						if !errors.Is(err, ErrDraining) {
							t.Errorf("refused by %v", err)
						}
						refused.Add(1)
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				if err := s.Drain(t.Context()); err != nil {
					t.Errorf("Drain: %v", err)
				}
				before := served.Load()
				if n := working.Load(); n != 0 || served.Load() != before {
					t.Errorf("%d work when Drain has returned, and more came", n)
				}
			})
		}
		all.Wait()
		if calls, streams := s.work.left(); calls+streams != 0 || served.Load()+refused.Load() != 160 {
			t.Fatalf("%d and %d left, %d served and %d refused, want nothing left of 160", calls, streams, served.Load(), refused.Load())
		}
	}
}

func TestDrainRefusalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, opts := range map[string][]Option{"tap": nil, "no tap": {WithoutTap()}} {
			provider := &recorder{}
			f := connectFleet(t, []*service{{}}, "{"+roundRobin+"}", append(opts, WithMeterProvider(provider))...)
			if _, err := f.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil { // the tap knows the method then
				t.Fatal(err)
			}
			if err := f.servers[0].Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := f.UnaryCall(t.Context(), &testpb.SimpleRequest{})
			wantDraining(t, "a call", err)
			o := &observer{seen: map[string]int64{}, levels: map[string]float64{}}
			if err := provider.meter.callback(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			const metric = "spillway.refusals rpc.method=grpc.testing.TestService/UnaryCall rpc.system.name=grpc spillway.criticality=CRITICAL spillway.reason=draining"
			if got := o.seen[metric]; got != 1 {
				t.Errorf("%s: %s = %d, want 1 of %v", name, metric, got, o.seen)
			}
		}
	})
}

// What grpc-go's clients make of a server of two that drains, by what they have: this is why docs/operations.md says
// what it says.
func TestClientsOfAServerThatDrains(t *testing.T) {
	for _, c := range []struct {
		name, config string
		opts         []grpc.CallOption
		notice       time.Duration // from readiness off to the drain
		lost, there  bool          // calls fail, and still come to the server
	}{
		{"nothing", roundRobin, nil, 0, true, true},
		{"nothing, and time to notice", roundRobin, nil, time.Second, true, true},
		{"wait for ready", roundRobin, []grpc.CallOption{grpc.WaitForReady(true)}, 0, true, true},
		{"a retry policy", roundRobin + "," + retriesElsewhere, nil, 0, false, true},
		{"health checks, and time to notice", roundRobin + "," + healthConfig, nil, time.Second, false, false},
		{"both", roundRobin + "," + retriesElsewhere + "," + healthConfig, nil, 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				provider := &recorder{}
				f := connectFleet(t, []*service{slow(time.Millisecond), slow(time.Millisecond)}, "{"+c.config+"}", WithMeterProvider(provider))
				leaving := f.servers[0]
				call := func() error {
					_, err := f.UnaryCall(t.Context(), &testpb.SimpleRequest{}, c.opts...)
					return err
				}
				for range 10 {
					if err := call(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
				leaving.Health().Shutdown()
				time.Sleep(c.notice)
				if err := leaving.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				lost := 0
				for range 100 {
					if err := call(); err != nil {
						wantDraining(t, "a call", err)
						lost++
					}
				}
				if (lost > 0) != c.lost {
					t.Errorf("%d of 100 calls lost, want some: %v", lost, c.lost)
				}
				there := int64(0)
				for _, counters := range leaving.metrics.methods.all() {
					for i := range counters.turnedAway {
						there += counters.turnedAway[i].Load()
					}
				}
				if (there > 0) != c.there {
					t.Errorf("%d of 100 calls came to the server that drains, want some: %v", there, c.there)
				}
				// GOAWAY ends it for all: calls move on without being lost.
				f.grpc[0].GracefulStop()
				for range 100 {
					if err := call(); err != nil {
						t.Errorf("after GracefulStop: %v", err)
					}
				}
			})
		})
	}
}
