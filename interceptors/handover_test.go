package interceptors

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// relay is a protected server whose handler calls another server, and that other one, whose answers take a quarter of a
// second and carry a trailer.
type relay struct {
	front   *pair
	trailer metadata.MD // of the next answers
	mark    float64     // that the other server meets in what it calls
	takes   time.Duration
}

func newRelay(t *testing.T, fronts []Option, dial ...grpc.DialOption) *relay {
	t.Helper()
	return relayTo(t, nil, fronts, dial...)
}

// relayTo is the same with options for the other server.
func relayTo(t *testing.T, behinds []grpc.ServerOption, fronts []Option, dial ...grpc.DialOption) *relay {
	t.Helper()
	r := &relay{takes: time.Second / 4}
	behind, _ := serve(t, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		_ = grpc.SetTrailer(ctx, r.trailer) // it fails where the caller has gone
		limiter.NoteMark(ctx, r.mark)
		time.Sleep(r.takes)
		return &testpb.SimpleResponse{}, nil
	}}, behinds, dial...)
	callee := testpb.NewTestServiceClient(behind)
	r.front = connect(t, &service{unary: func(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return callee.UnaryCall(ctx, req)
	}}, fronts)
	return r
}

// ask sends n requests at a time, and returns how many of them are in flight, and how many handed over, while they wait for
// the callee.
func (r *relay) ask(t *testing.T, n int) (inFlight, handedOver int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := r.front.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	synctest.Wait()
	s := r.front.server.Limiter().Stats()
	all.Wait()
	return s.InFlight, s.HandedOver
}

func (r *relay) want(t *testing.T, when string, inFlight, handedOver int) {
	t.Helper()
	const n = 3
	if a, b := r.ask(t, n); a != inFlight || b != handedOver {
		t.Errorf("%s: %d of %d in flight and %d handed over, want %d and %d", when, a, n, b, inFlight, handedOver)
	}
}

var marked = metadata.Pairs(MarkTrailer, "1;m=50")

// Requests hand over to a callee that was heard to hold its load, as long as it answers, and whatever it says then. The
// same with gRPC's own load balancing as with ours, which tells backends apart.
func TestRequestsAreHandedOverToWhoAccepts(t *testing.T) {
	client := newClient(t, WithHandover())
	for name, dial := range map[string][]grpc.DialOption{
		"backends apart":   DialOptions(WithHandover()),
		"interceptor only": {grpc.WithUnaryInterceptor(client.UnaryInterceptor())},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t, nil, dial...)
				r.want(t, "the callee was not heard to hold its load", 3, 0)
				r.trailer = marked
				r.want(t, "the same, before its answer", 3, 0)
				r.trailer = nil
				r.want(t, "it has marked", 0, 3)
				r.want(t, "it has nothing more to say", 0, 3)
				time.Sleep(silent)
				r.want(t, "it has been silent", 3, 0)
				r.want(t, "it has answered again", 0, 3)
				time.Sleep(time.Second)
				r.takes = 2 * silent
				r.ask(t, 1)
				r.want(t, "its answers take longer than it may be silent, and one is just there", 0, 3)
			})
		})
	}
}

// hears returns an option for a server that counts who asks whether it holds its load.
func hears(asked *atomic.Int64) grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		asked.Add(int64(len(metadata.ValueFromIncomingContext(ctx, HandoverHeader))))
		return handler(ctx, req)
	})
}

// A server in which nobody waits says that it holds its load to who asks, and that is once: the first answer tells. One in a
// dry run does not hold its load, and one of before does not know the question.
func TestACalleeIsAskedWhetherItHoldsItsLoad(t *testing.T) {
	for name, dial := range map[string]func() []grpc.DialOption{
		"backends apart": func() []grpc.DialOption { return DialOptions(WithHandover()) },
		"interceptor only": func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithUnaryInterceptor(newClient(t, WithHandover()).UnaryInterceptor())}
		},
	} {
		for server, c := range map[string]struct {
			opts       []grpc.ServerOption
			handedOver int
		}{
			"protected": {newServer(t).ServerOptions(), 3},
			"dry run":   {newServer(t, WithDryRun()).ServerOptions(), 0},
			"bare":      {nil, 0},
		} {
			t.Run(name+"/"+server, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var asked atomic.Int64
					r := relayTo(t, append([]grpc.ServerOption{hears(&asked)}, c.opts...), nil, dial()...)
					r.ask(t, 1)
					if asked.Swap(0) == 0 {
						t.Error("the first call does not ask")
					}
					r.want(t, "after the first answer", 3-c.handedOver, c.handedOver)
					if n := asked.Load(); (n > 0) != (c.handedOver == 0) {
						t.Errorf("after the first answer %d more calls ask", n)
					}
					r.mark = .3
					r.ask(t, 1)
					r.want(t, "after a mark from further down", 3-c.handedOver, c.handedOver)
				})
			})
		}
	}
}

// A server that comes back without protection, at the same address, has what waits for it bounded here again.
func TestACalleeIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t, nil, DialOptions(WithHandover())...)
		r.trailer = marked
		r.ask(t, 1)
		r.trailer = nil
		for start := time.Now(); time.Since(start) < askAgain-time.Second; {
			r.want(t, "it has spoken lately", 0, 3)
		}
		for range 8 {
			r.ask(t, 1)
		}
		r.want(t, "it was asked again, and did not answer that", 3, 0)
	})
}

// Errors may be of something in front of a callee, and say nothing of it. But its word does not last for ever.
func TestWordOfACalleeIsBelievedForAWhile(t *testing.T) {
	var a acceptance
	start := time.Now()
	a.learn(start, nil, true, news{holds: true})
	for at := start; at.Before(start.Add(2 * believed)); at = at.Add(silent / 2) {
		a.learn(at, status.Error(codes.NotFound, "no such thing"), true, news{})
		if got, want := a.accepts(at), at.Before(start.Add(believed)); got != want {
			t.Fatalf("%v after it last spoke it accepts: %v, want %v", at.Sub(start), got, want)
		}
	}
}

// Who does not hand over does not ask.
func TestOnlyWhoHandsOverAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		r := relayTo(t, []grpc.ServerOption{hears(&asked)}, nil, DialOptions()...)
		r.ask(t, 1)
		if asked.Load() > 0 {
			t.Error("it asks")
		}
	})
}

// By default all are in flight.
func TestWithoutHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t, nil, DialOptions()...)
		r.trailer = marked
		r.ask(t, 1)
		r.want(t, "it has marked", 3, 0)
	})
}

// What hangs behind a callee that held its load is bounded by the limit of its caller again, when it has been silent.
func TestAFrozenCalleeIsBoundedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limited = 5
		r := newRelay(t, limit(limited), DialOptions(WithHandover())...)
		r.trailer = marked
		r.ask(t, 1)
		r.takes = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 100 {
			time.Sleep(50 * time.Millisecond)
			all.Go(func() { _, _ = r.front.UnaryCall(ctx, &testpb.SimpleRequest{}) })
		}
		synctest.Wait()
		s := r.front.server.Limiter().Stats()
		if in, within := s.InFlight+s.HandedOver, limited+int(silent/(50*time.Millisecond)); s.InFlight != limited || in > within {
			t.Errorf("%d in flight and %d handed over, want %d, and %d in all at most", s.InFlight, s.HandedOver, limited, within)
		}
		all.Wait()
	})
}

// Calls that wait here for one of the two streams that a callee allows at a time are not there: what runs into its deadline
// again and again is bounded here, though the callee answers, and says that it holds its load. Were all handed over, nearly
// all would come too late.
func TestWhatRunsIntoItsDeadlineIsBoundedHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relayTo(t, []grpc.ServerOption{grpc.MaxConcurrentStreams(2)}, limit(5), DialOptions(WithoutBreaker(), WithHandover())...)
		r.trailer, r.takes = marked, 40*time.Millisecond
		r.ask(t, 1)
		var all sync.WaitGroup
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				_, _ = r.front.UnaryCall(ctx, &testpb.SimpleRequest{})
			})
		}
		all.Wait()
		if good := r.front.server.Limiter().Stats().Outcomes[limiter.OK]; good < 250 {
			t.Errorf("%d requests of the 500 that the callee has time for were served, want 250", good)
		}
	})
}

// A callee accepts that speaks of its load itself, answers, and in time.
func TestWhoAccepts(t *testing.T) {
	ours := func() error { // a refusal of this package, of whomever
		st, err := status.New(codes.ResourceExhausted, messageOverloaded).WithDetails(&errdetails.ErrorInfo{Domain: Domain})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}()
	speaks, late := news{mark: .1, holds: true}, status.Error(codes.DeadlineExceeded, "late")
	type end struct {
		err   error
		n     news
		times int
		asked bool
	}
	for name, c := range map[string]struct {
		ends  []end
		after time.Duration
		want  bool
	}{
		"one that nothing is known of":             {nil, 0, false},
		"one that says nothing of its load":        {[]end{{nil, news{}, 100, false}}, 0, false},
		"one that hands on a refusal of another":   {[]end{{ours, news{}, 100, false}}, 0, false},
		"one that has nothing in its line":         {[]end{{nil, news{holds: true}, 1, true}}, 0, true},
		"one that was asked again, and is silent":  {[]end{{nil, speaks, 1, false}, {nil, news{}, 1, true}}, 0, false},
		"one that was asked again, and refuses":    {[]end{{nil, speaks, 1, false}, {ours, news{}, 1, true}}, 0, true},
		"one that has spoken of its load":          {[]end{{nil, speaks, 1, false}, {nil, news{}, 100, false}}, 0, true},
		"one that refuses, and has spoken":         {[]end{{nil, speaks, 1, false}, {ours, news{}, 100, false}}, 0, true},
		"one that is late now and then":            {[]end{{nil, speaks, 10, false}, {late, news{}, 8, false}, {nil, speaks, 1, false}}, 0, true},
		"one that lets calls run into deadlines":   {[]end{{nil, speaks, 10, false}, {late, news{}, 30, false}, {nil, speaks, 1, false}}, 0, false},
		"the same, when it is in time again":       {[]end{{nil, speaks, 10, false}, {late, news{}, 30, false}, {nil, speaks, 50, false}}, 0, true},
		"one that was silent":                      {[]end{{nil, speaks, 10, false}}, silent, false},
		"one whose calls are cancelled":            {[]end{{nil, speaks, 1, false}, {status.Error(codes.Canceled, ""), news{}, 100, false}}, 0, true},
		"one that answered before a clock was set": {[]end{{nil, speaks, 10, false}}, -time.Hour, false},
	} {
		now := time.Now()
		var a acceptance
		for _, e := range c.ends {
			for range e.times {
				a.learn(now, e.err, e.asked, e.n)
			}
		}
		if got := a.accepts(now.Add(c.after)); got != c.want {
			t.Errorf("%s accepts: %v, want %v", name, got, c.want)
		}
	}
}

// atWork returns a limiter, and the context of work that has a permit of it for the time of the test.
func atWork(t *testing.T) (*limiter.Limiter, context.Context) {
	t.Helper()
	l, err := limiter.New()
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Release(limiter.OK) })
	return l, limiter.ContextWithPermit(t.Context(), l, limiter.Critical, p)
}

// What is handed over to one backend is in flight again when the attempt there ends, and while the next has not begun.
func TestAnAttemptTakesBack(t *testing.T) {
	l, ctx := atWork(t)
	want := func(when string, handedOver int) {
		t.Helper()
		if s := l.Stats(); s.HandedOver != handedOver || s.InFlight != 1-handedOver {
			t.Errorf("%s: %d in flight and %d handed over, want %d handed over", when, s.InFlight, s.HandedOver, handedOver)
		}
	}
	client := newClient(t, WithHandover())
	c, err := client.begin(ctx, client.policy.Load(), client.callees.of("", "/a.B/C"), "", "/a.B/C", true)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var accepts, other standing
	accepts.acceptance.learn(now, nil, true, news{holds: true})
	c.dispatch.handOver(&accepts, now)
	want("at one that accepts", 1)
	c.dispatch.ends(sending{to: &accepts, began: now}, balancer.DoneInfo{})
	want("between two attempts", 0)
	c.dispatch.handOver(&other, now)
	want("at one that does not", 0)
	c.dispatch.handOver(&accepts, now)
	want("at one that accepts again", 1)
	c.close()
	want("after the call", 0)
	c.dispatch.handOver(&accepts, now)
	want("when nobody is left to take back", 0)
}

// chance draws times of a given mean, exponentially distributed.
type chance struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (c *chance) time(mean time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.rng.ExpFloat64() * float64(mean))
}

// workers returns work for so many at a time, of 10 ms on average.
func (c *chance) workers(n int) func() {
	free := make(chan struct{}, n)
	return func() {
		free <- struct{}{}
		time.Sleep(c.time(10 * time.Millisecond))
		<-free
	}
}

// One method of a server calls another server, which is asked for twice what it can do; a second method has all that it
// needs here. The one does as much as the other server can, and the second loses nothing: the limit of the first server is
// for what there is to be done at the first server. Were what waits behind it in flight, its limit would come down to 10,
// and the second method would lose half of its requests.
func TestAnOverloadedCalleeCostsItsOwnMethodOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dice := chance{rng: rand.New(rand.NewPCG(1, 2))}
		there, here := dice.workers(2), dice.workers(8)
		conn, _ := serve(t, &service{empty: func(context.Context) error { there(); return nil }},
			newServer(t).ServerOptions(), DialOptions(WithHandover())...)
		behind := testpb.NewTestServiceClient(conn)
		front := connect(t, &service{
			unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				here()
				_, err := behind.EmptyCall(ctx, &testpb.Empty{})
				return &testpb.SimpleResponse{}, err
			},
			empty: func(context.Context) error { here(); return nil },
		}, nil)
		var all sync.WaitGroup
		var calling, alone tallied
		ask := func(per time.Duration, to *tallied, call func(context.Context) error) {
			for n := range int(8 * time.Second / per) {
				time.Sleep(dice.time(per))
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
					defer cancel()
					if err := call(ctx); n > int(3*time.Second/per) {
						to.count(err)
					}
				})
			}
		}
		all.Go(func() {
			ask(time.Second/400, &calling, func(ctx context.Context) error {
				_, err := front.UnaryCall(ctx, &testpb.SimpleRequest{})
				return err
			})
		})
		all.Go(func() {
			ask(time.Second/300, &alone, func(ctx context.Context) error {
				_, err := front.EmptyCall(ctx, &testpb.Empty{})
				return err
			})
		})
		all.Wait()
		t.Logf("%.3f of the requests with a callee were served, %.3f of the others; the limit is %d",
			calling.part(), alone.part(), front.server.Limiter().Stats().Limit)
		if good := calling.part(); good < .42 {
			t.Errorf("%.3f of the requests whose callee can serve half of them were served, want .42", good)
		}
		if good := alone.part(); good < .999 {
			t.Errorf("%.3f of the requests that need no callee were served, want .999", good)
		}
	})
}

// tallied counts calls that ended well, and all.
type tallied struct{ good, all atomic.Int64 }

func (n *tallied) count(err error) {
	n.all.Add(1)
	if err == nil {
		n.good.Add(1)
	}
}

func (n *tallied) part() float64 { return float64(n.good.Load()) / float64(n.all.Load()) }

// The way through a handover costs a call nothing where there is none to hand over for.
func TestHandingOverAllocatesNothing(t *testing.T) {
	_, ctx := atWork(t)
	if n := testing.AllocsPerRun(100, func() { limiter.HandOver(ctx).TakeBack() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
