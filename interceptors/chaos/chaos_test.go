package chaos

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// everything is a fault that hits all calls for a minute.
func everything(f Fault) Fault {
	f.Share, f.Methods, f.AllCalls = 1, []string{AllMethods}, true
	if f.Until.IsZero() {
		f.For = time.Minute
	}
	return f
}

// everyWay runs a test in a bubble of its own for each side and each way of calling.
func everyWay(t *testing.T, test func(t *testing.T, p *pair, faults starter, call func(context.Context) error)) {
	for side, faults := range sides {
		for way, call := range ways {
			t.Run(side+" "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := connect(t)
					test(t, p, faults(p), func(ctx context.Context) error { return call(ctx, p) })
				})
			})
		}
	}
}

func start(t *testing.T, s starter, faults ...Fault) {
	t.Helper()
	if err := s.Start(faults...); err != nil {
		t.Fatal(err)
	}
}

// wantCall calls and compares the code and, in fake time, how long it took to the nanosecond.
func wantCall(t *testing.T, ctx context.Context, call func(context.Context) error, code codes.Code, took time.Duration) {
	t.Helper()
	began := time.Now()
	if err := call(ctx); status.Code(err) != code {
		t.Errorf("%v, want %v", err, code)
	}
	if got := time.Since(began); got != took {
		t.Errorf("took %v, want %v", got, took)
	}
}

func TestOffUntilStarted(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		wantCall(t, t.Context(), call, codes.OK, 0)
		if got := faults.Faults(); got != nil {
			t.Errorf("in force without a start: %+v", got)
		}
	})
}

func TestDelay(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		start(t, faults, everything(Fault{Kind: Delay, Delay: 2 * time.Second}))
		wantCall(t, t.Context(), call, codes.OK, 2*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantCall(t, ctx, call, codes.DeadlineExceeded, time.Second)
	})
}

func TestError(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		start(t, faults, everything(Fault{Kind: Error, Code: codes.DataLoss}))
		wantCall(t, t.Context(), call, codes.DataLoss, 0)
	})
}

func TestDrop(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		start(t, faults, everything(Fault{Kind: Drop, Hold: 2 * time.Second}))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		wantCall(t, ctx, call, codes.DeadlineExceeded, 5*time.Second)
		wantCall(t, t.Context(), call, codes.Unavailable, 2*time.Second)

		start(t, faults, everything(Fault{Kind: Drop, Until: time.Now().Add(time.Hour)}))
		wantCall(t, t.Context(), call, codes.Unavailable, DefaultHold)
	})
}

// Who gives up does not stay.
func TestDropEndsWithItsCaller(t *testing.T) {
	everyWay(t, func(t *testing.T, p *pair, faults starter, call func(context.Context) error) {
		start(t, faults, everything(Fault{Kind: Drop}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		wantCall(t, ctx, call, codes.Canceled, time.Second)
		synctest.Wait()
		if s, c := p.server.held.Load(), p.client.held.Load(); s+c != 0 {
			t.Errorf("%d held at the server and %d at the client after the caller left, want none", s, c)
		}
	})
}

func TestPanic(t *testing.T) {
	for way, call := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t)
				start(t, p.server, everything(Fault{Kind: Panic}))
				if err := call(t.Context(), p); status.Code(err) != codes.Unknown {
					t.Errorf("a panic, with recovery: %v, want its Unknown", err)
				}
				if got := p.server.held.Load(); got != 0 {
					t.Errorf("%d held after a panic", got)
				}
			})
		})
	}
}

// At Stop, at its end and where others take its place, a fault lets go of those that it holds, and hits nobody any more.
func TestHeldCallsGoOnWhenAFaultIsOver(t *testing.T) {
	for name, end := range map[string]func(*testing.T, starter){
		"Stop": func(_ *testing.T, s starter) { s.Stop() },
		"its end": func(*testing.T, starter) {
			time.Sleep(time.Nanosecond)
			synctest.Wait()
		},
		"another Start": func(t *testing.T, s starter) {
			f := everything(Fault{Kind: Error, Code: codes.Internal})
			f.From = time.Now().Add(time.Second)
			start(t, s, f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *pair, faults starter, call func(context.Context) error) {
				const before = 5 * time.Second
				for _, f := range []Fault{{Kind: Drop}, {Kind: Delay, Delay: time.Hour}} {
					f.Until = time.Now().Add(before + time.Nanosecond)
					start(t, faults, everything(f))
					done := make(chan error)
					go func() { done <- call(t.Context()) }()
					time.Sleep(before)
					select {
					case err := <-done:
						t.Errorf("%v: an answer while the fault is on: %v", f.Kind, err)
					default:
					}
					end(t, faults)
					wantCall(t, t.Context(), func(context.Context) error { return <-done }, codes.OK, 0)
					wantCall(t, t.Context(), call, codes.OK, 0)
					faults.Stop()
				}
			})
		})
	}
}

func TestAFaultIsOnFromUntil(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		f := everything(Fault{Kind: Error, Code: codes.Internal})
		f.From = time.Now().Add(time.Second)
		start(t, faults, f)
		for range 2 { // all of a minute
			wantCall(t, t.Context(), call, codes.OK, 0)
			time.Sleep(time.Second)
			wantCall(t, t.Context(), call, codes.Internal, 0)
			time.Sleep(time.Minute - time.Nanosecond)
			wantCall(t, t.Context(), call, codes.Internal, 0)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			wantCall(t, t.Context(), call, codes.OK, 0)
			if got := faults.Faults(); got != nil {
				t.Errorf("in force after the end: %+v", got)
			}
			f.From, f.For, f.Until = time.Now().Add(time.Second), 0, time.Now().Add(time.Minute+time.Second)
			start(t, faults, f)
		}
	})
}

func TestOnlyTheMethodsNamed(t *testing.T) {
	for _, c := range []struct {
		methods       []string
		unary, stream codes.Code
	}{
		{[]string{unaryMethod}, codes.Internal, codes.OK},
		{[]string{"/a.B/C", streamMethod}, codes.OK, codes.Internal},
		{[]string{"/a.B/*", "/grpc.testing.TestService/*"}, codes.Internal, codes.Internal},
		{[]string{AllMethods}, codes.Internal, codes.Internal},
		{[]string{"/a.B/C", "/grpc.testing.TestServices/*", "/grpc.testing.TestService/Unary", "/grpc.testing/*"}, codes.OK, codes.OK},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t)
			for _, faults := range []starter{p.server, p.client} {
				f := Fault{Kind: Error, Code: codes.Internal, Share: 1, Methods: c.methods, For: time.Minute}
				f.AllCalls = c.methods[0] == AllMethods
				start(t, faults, f)
				if unary, stream := status.Code(ways["unary"](t.Context(), p)), status.Code(ways["stream"](t.Context(), p)); unary != c.unary || stream != c.stream {
					t.Errorf("%q: %v and %v, want %v and %v", c.methods, unary, stream, c.unary, c.stream)
				}
				faults.Stop()
			}
		})
	}
}

// A matcher is told all that go-grpc-middleware tells one.
func TestMatcher(t *testing.T) {
	everyWay(t, func(t *testing.T, p *pair, faults starter, call func(context.Context) error) {
		var seen middleware.CallMeta
		f := everything(Fault{Kind: Error, Code: codes.Internal})
		f.Methods = nil
		f.Matcher = selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool {
			seen = call
			return call.Service == "grpc.testing.TestService"
		})
		start(t, faults, f)
		wantCall(t, t.Context(), call, codes.Internal, 0)
		want := middleware.CallMeta{Service: "grpc.testing.TestService", Method: "FullDuplexCall", Typ: middleware.BidiStream}
		if seen.Typ == middleware.Unary {
			want.Method, want.Typ = "UnaryCall", middleware.Unary
			if _, ok := seen.ReqOrNil.(*testpb.SimpleRequest); !ok {
				t.Errorf("the request is a %T", seen.ReqOrNil)
			}
		}
		want.IsClient, seen.ReqOrNil = faults == starter(p.client), nil
		if seen != want {
			t.Errorf("the matcher saw %+v, want %+v", seen, want)
		}
	})
}

// A server that is in trouble is not dead, and who looks for its methods is nobody's game.
func TestHealthAndReflectionAreNeverHit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		any := everything(Fault{Kind: Error, Code: codes.Internal})
		any.Methods, any.Matcher = nil, selector.MatchFunc(func(context.Context, middleware.CallMeta) bool { return true })
		start(t, p.server, everything(Fault{Kind: Error, Code: codes.Internal}), any)
		start(t, p.client, everything(Fault{Kind: Error, Code: codes.Internal}), any)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		health := healthpb.NewHealthClient(p.conn)
		if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("health check: %v", err)
		}
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if err != nil {
			t.Errorf("health watch: %v", err)
		}
		list, err := reflectionpb.NewServerReflectionClient(p.conn).ServerReflectionInfo(ctx)
		if err == nil {
			err = list.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		}
		if err == nil {
			_, err = list.Recv()
		}
		if err != nil {
			t.Errorf("reflection: %v", err)
		}
		for _, f := range append(p.server.Faults(), p.client.Faults()...) {
			if f.Seen != 0 {
				t.Errorf("%d calls could have been hit, want none", f.Seen)
			}
		}
	})
}

// Delays add up, and what ends a call ends it.
func TestFaultsInOrder(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		start(t, faults,
			everything(Fault{Kind: Delay, Delay: time.Second}),
			everything(Fault{Kind: Delay, Delay: 2 * time.Second}),
			everything(Fault{Kind: Error, Code: codes.Aborted}),
			everything(Fault{Kind: Error, Code: codes.Internal}))
		wantCall(t, t.Context(), call, codes.Aborted, 3*time.Second)
		for n, want := range []uint64{1, 1, 1, 0} {
			if got := faults.Faults()[n].Injected; got != want {
				t.Errorf("fault %d was injected %d times, want %d", n, got, want)
			}
		}
	})
}

// Starting, stopping and looking while calls are served is free of races, and who stops has the last word.
func TestSwitchingWhileServing(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *pair, faults starter, call func(context.Context) error) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 100 {
					if code := status.Code(call(t.Context())); code != codes.OK && code != codes.Aborted && code != codes.Unavailable {
						t.Errorf("%v", code)
					}
				}
			})
			all.Go(func() {
				for range 50 {
					err := faults.Start(
						everything(Fault{Kind: Delay, Delay: time.Millisecond}),
						Fault{Kind: Error, Code: codes.Aborted, Share: .5, Methods: []string{AllMethods}, For: time.Minute},
						everything(Fault{Kind: Drop, Hold: time.Millisecond}))
					if err != nil {
						t.Error(err)
					}
					faults.Faults()
					time.Sleep(time.Millisecond)
					faults.Stop()
				}
			})
		}
		all.Wait()
		wantCall(t, t.Context(), call, codes.OK, 0)
	})
}

// As many calls as come cannot make a fault hold more than it may.
func TestHeldCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room, more = 20, 10
		s := newServer(t)
		start(t, s, everything(Fault{Kind: Drop}))
		s.held.Store(maxHeld - room) // others
		passed := make(chan struct{}, room+more)
		for range room + more {
			go func() {
				_, _ = s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"},
					func(context.Context, any) (any, error) { passed <- struct{}{}; return nil, nil })
			}()
		}
		synctest.Wait()
		if got := len(passed); got != more {
			t.Errorf("%d of %d calls beyond the bound passed", got, more)
		}
		if got := s.Faults()[0].Injected; got != room {
			t.Errorf("%d calls counted as hit, want %d", got, room)
		}
		s.Stop()
		synctest.Wait()
		if got := len(passed); got != room+more {
			t.Errorf("%d of %d calls went on at Stop", got, room+more)
		}
	})
}

// Whom no fault hits pays no allocation, whether there is a game or not.
func TestWhoIsNotHitAllocatesNothing(t *testing.T) {
	some := Fault{Kind: Error, Code: codes.Internal, Share: 1e-12, Methods: []string{"/a.B/*"}, For: time.Minute}
	other := Fault{Kind: Drop, Share: 1, Methods: []string{"/a.B/D", "/x.Y/*"}, For: time.Minute}
	later := everything(Fault{Kind: Drop})
	later.From = time.Now().Add(time.Hour)
	none := everything(Fault{Kind: Drop})
	none.Methods, none.Matcher = nil, selector.MatchFunc(func(context.Context, middleware.CallMeta) bool { return false })
	server := newServer(t, WithSeed(1))
	client, err := NewClient(WithSeed(1))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	defer client.Stop()
	unary, stream := &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, &grpc.StreamServerInfo{FullMethod: "/a.B/C"}
	desc, inner := &grpc.StreamDesc{}, &fakeStream{ctx: t.Context()}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	streamHandler := func(any, grpc.ServerStream) error { return nil }
	invoker := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	streamer := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return nil, nil
	}
	for _, faults := range [][]Fault{nil, {some}, {other}, {later}, {none}, {some, other, later, none}} {
		if faults != nil {
			start(t, server, faults...)
			start(t, client, faults...)
		}
		for name, call := range map[string]func() error{
			"server unary":  func() error { _, err := server.unary(t.Context(), nil, unary, handler); return err },
			"server stream": func() error { return server.stream(nil, inner, stream, streamHandler) },
			"client unary":  func() error { return client.unary(t.Context(), "/a.B/C", nil, nil, nil, invoker) },
			"client stream": func() error {
				_, err := client.stream(t.Context(), desc, nil, "/a.B/C", streamer)
				return err
			},
		} {
			if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, call()) }); n != 0 || err != nil {
				t.Errorf("%s with %d faults: %v allocations and %v, want none", name, len(faults), n, err)
			}
		}
	}
}

// fakeStream is a stream outside of any server.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (f *fakeStream) Context() context.Context { return f.ctx }
