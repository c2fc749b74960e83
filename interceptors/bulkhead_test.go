package interceptors

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// fromShop selects what says in its metadata that it is from the shop.
var fromShop = selector.MatchFunc(func(ctx context.Context, _ middleware.CallMeta) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md["from"]) == 1 && md["from"][0] == "shop"
})

// method selects a method by its name, without its service.
func method(name string) selector.Matcher {
	return selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool { return call.Method == name })
}

// flood sends calls at ten times what a limit of 10 can do in 40 ms each, all as critical as can be, and returns
// how many were answered when the time is over.
func (p *pair) flood(t *testing.T, during time.Duration) (answered int64) {
	var all sync.WaitGroup
	var ok atomic.Int64
	ctx := metadata.AppendToOutgoingContext(t.Context(), CriticalityHeader, "CRITICAL_PLUS")
	for start := time.Now(); time.Since(start) < during; time.Sleep(400 * time.Microsecond) {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err == nil {
				ok.Add(1)
			}
		})
	}
	all.Wait()
	return ok.Load()
}

// Three tenths of ten workers stay three tenths in a flood of ten times the capacity that calls itself more critical.
func TestBulkheadHoldsInAFlood(t *testing.T) {
	for name, opts := range map[string][]Option{"with tap": nil, "without tap": {WithoutTap()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, slow(40*time.Millisecond), limit(10, append(opts,
					WithBulkhead("shop", .3, fromShop), WithCriticalityCeiling(limiter.CriticalPlus))...))
				var all sync.WaitGroup
				var ok atomic.Int64
				all.Go(func() {
					time.Sleep(500*time.Millisecond + 7*time.Microsecond)
					for n := range 3 + 75 { // the first three wait for a permit to come back
						all.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), time.Second)
							defer cancel()
							ctx = metadata.AppendToOutgoingContext(ctx, "from", "shop", CriticalityHeader, "SHEDDABLE")
							if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err == nil && n >= 3 {
								ok.Add(1)
							}
						})
						time.Sleep(time.Second / 75)
					}
				})
				others := p.flood(t, 1500*time.Millisecond)
				all.Wait()
				if n := ok.Load(); n < 74 {
					t.Errorf("%d of 75 calls of the group answered, want .98 of them", n)
				}
				if others < 280 {
					t.Errorf("%d others answered in 1.5 s, want 300: all that is left", others)
				}
			})
		})
	}
}

// The messages of streams have their share too, however many unary calls there are.
func TestBulkheadOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := echo(40 * time.Millisecond)
		svc.unary = slow(40 * time.Millisecond).unary
		p := connect(t, svc, limit(10, WithBulkhead("streams", .3, method("FullDuplexCall")), WithCriticalityCeiling(limiter.CriticalPlus)))
		var all sync.WaitGroup
		var answers atomic.Int64
		for range 3 {
			all.Go(func() {
				time.Sleep(500 * time.Millisecond)
				stream, err := p.FullDuplexCall(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for start := time.Now(); time.Since(start) < time.Second; {
					if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
						t.Error(err)
					}
					if _, err := stream.Recv(); err != nil {
						t.Error(err)
						return
					}
					answers.Add(1)
				}
				_ = stream.CloseSend()
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			})
		}
		p.flood(t, 1600*time.Millisecond)
		all.Wait()
		if n := answers.Load(); n < 60 {
			t.Errorf("%d messages answered in a second, one after the other on three streams: want 44 ms each", n)
		}
	})
}

// Two matchers may select for one name, and the first that matches decides.
func TestFirstBulkheadThatMatchesDecides(t *testing.T) {
	s := newServer(t, WithBulkhead("a", .25, method("One")), WithBulkhead("b", .5, method("Two")),
		WithBulkhead("a", .25, method("Three")), WithBulkhead("c", .125, method("Two")))
	for name, want := range map[string]string{"One": "a", "Two": "b", "Three": "a", "Four": ""} {
		if got := s.policy.Load().bulkheads.match(t.Context(), "/a.B/"+name, nil, nil); got != want {
			t.Errorf("%s belongs to %q, want %q", name, got, want)
		}
	}
	if got := s.Limiter().Bulkheads(); len(got) != 3 || got[0].Share != .25 || got[1].Share != .5 || got[2].Share != .125 {
		t.Errorf("in force: %+v", got)
	}
	// Each is asked with all that is known of the call.
	var asked []middleware.CallMeta
	spy := selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool {
		asked = append(asked, call)
		return false
	})
	s = newServer(t, WithBulkhead("a", .25, spy))
	_, err := s.unary(t.Context(), "question", &grpc.UnaryServerInfo{FullMethod: "/a.B/One"}, func(context.Context, any) (any, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.stream(nil, &fakeStream{ctx: t.Context()}, streamInfo, func(any, grpc.ServerStream) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 || asked[0].ReqOrNil != "question" || asked[0].Typ != middleware.Unary || asked[1].Typ != middleware.BidiStream || asked[1].Method != "Stream" {
		t.Errorf("asked about %+v", asked)
	}
}

// The tap lets pass who is owed a permit, allocates nothing for it, and survives a matcher that panics.
func TestBulkheadInTheTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool {
			if call.Method == "Bad" {
				panic("matcher")
			}
			return false
		})
		s := newServer(t, limit(1, WithBulkhead("a", .5, method("One")), WithBulkhead("b", .25, panics))...)
		defer fill(t, s.Limiter())()
		handle := s.TapHandle()
		for name, want := range map[string]codes.Code{"One": codes.OK, "Two": codes.ResourceExhausted, "Bad": codes.OK} {
			info := &tap.Info{FullMethodName: "/a.B/" + name}
			if _, err := handle(t.Context(), info); status.Code(err) != want {
				t.Errorf("%s at a full server: %v, want %v", name, err, want)
			}
			if n := testing.AllocsPerRun(100, func() { _, _ = handle(t.Context(), info) }); n != 0 && name != "Bad" {
				t.Errorf("%s: %v allocations, want 0", name, n)
			}
		}
	})
}

func TestBadBulkheadsAreNamed(t *testing.T) {
	lim, err := limiter.New(limiter.WithBulkheads(map[string]float64{"a": .25}))
	if err != nil {
		t.Fatal(err)
	}
	one := method("One")
	for want, opts := range map[string][]Option{
		`WithBulkhead(nil); want a selector.Matcher`:                {WithBulkhead("a", .5, nil)},
		`WithBulkhead("", 0.5); want a name`:                        {WithBulkhead("", .5, one)},
		`WithBulkhead("a", 0); want a share above 0 and at most 1`:  {WithBulkhead("a", 0, one)},
		`WithBulkhead("a", 1.5); want a share`:                      {WithBulkhead("a", 1.5, one)},
		`WithBulkhead("a", NaN); want a share`:                      {WithBulkhead("a", math.NaN(), one)},
		`WithBulkhead("a", 0.5); want 0.25, which it has already`:   {WithBulkhead("a", .25, one), WithBulkhead("a", .5, one)},
		`WithBulkhead("b", 0.6): shares of 1.1 in all; want at mos`: {WithBulkhead("a", .5, one), WithBulkhead("b", .6, one)},
		`WithBulkhead("a", 0.5), but the limiter of WithLimiter gu`: {WithBulkhead("a", .5, one), WithLimiter(lim)},
		`WithBulkhead("b", 0.25), but the limiter of WithLimiter g`: {WithLimiter(lim), WithBulkhead("b", .25, one)},
		`those of WithLimiterOptions: limiter: SetBulkheads: share`: {WithBulkhead("a", .5, one), WithLimiterOptions(limiter.WithBulkheads(map[string]float64{"b": .9}))},
	} {
		_, err := NewServer(opts...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	if _, err := NewServer(WithLimiter(lim), WithBulkhead("a", .25, one)); err != nil {
		t.Errorf("a limiter that has it: %v", err)
	}
	if s := newServer(t, WithBulkhead("a", .5, one), WithLimiterOptions(limiter.WithBulkheads(map[string]float64{"b": .5}))); len(s.Limiter().Bulkheads()) != 2 {
		t.Errorf("in force: %+v, want both", s.Limiter().Bulkheads())
	}
}
