package interceptors

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	wrapped "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// lists are options of all kinds that can be changed while serving.
func lists() map[string][]Option {
	return map[string][]Option{
		"none":  nil,
		"table": {WithMethodCriticality(methods{"/a.B/*": limiter.Sheddable, "/a.B/C": limiter.CriticalPlus})},
		"trust": {WithCriticalityCeiling(limiter.SheddablePlus), WithCriticalityBaggage()},
		"functions": {
			WithCriticality(func(context.Context, string) limiter.Criticality { return limiter.Critical }),
			WithTenant(TenantFromMethod()), WithOutcome(Outcome),
			WithWeight(func(context.Context, string, any) int { return 1 }),
		},
		"dry run": {WithDryRun()},
		"matchers": {
			WithDryRun(method("Six")), WithExempt(method("One")), WithExempt(method("Two")), WithBulkhead("b", .5, method("Three")),
			WithBulkhead("a", .25, method("Four")), WithBulkhead("b", .5, method("Five")),
		},
		"other matchers": {WithExempt(method("One")), WithBulkhead("b", .25, method("One")), WithBulkhead("c", .5, method("Two"))},
	}
}

// ofStart are the options that both servers of the tests below are made with.
func ofStart() Option {
	return WithLimiterOptions(limiter.WithFixedLimit(8), limiter.WithBulkheads(map[string]float64{"a": .125, "z": .125}))
}

// Whatever was in force before, after SetOptions it is what a new server would have.
func TestSetOptionsIsAsIfMadeSo(t *testing.T) {
	for was, before := range lists() {
		for is, opts := range lists() {
			s := newServer(t, append(before, ofStart())...)
			for range 2 { // nothing adds up
				if err := s.SetOptions(opts...); err != nil {
					t.Fatalf("%s after %s: %v", is, was, err)
				}
			}
			if got, want := s.Settings(), newServer(t, append(opts, ofStart())...).Settings(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s after %s:\n%+v, want\n%+v", is, was, got, want)
			}
		}
	}
}

func TestSettingsSayWhatIsInForce(t *testing.T) {
	s := newServer(t, ofStart())
	var opts []Option
	for _, name := range []string{"table", "trust", "functions", "matchers"} {
		opts = append(opts, lists()[name]...)
	}
	if err := s.SetOptions(opts...); err != nil {
		t.Fatal(err)
	}
	got := s.Settings()
	if want := (Settings{
		Methods:         methods{"/a.B/*": limiter.Sheddable, "/a.B/C": limiter.CriticalPlus},
		Ceiling:         limiter.SheddablePlus,
		Baggage:         true,
		CriticalityFunc: true,
		TenantFunc:      true,
		WeightFunc:      true,
		OutcomeFunc:     true,
		Exemptions:      2,
		DryRuns:         1,
		BulkheadRules:   []string{"b", "a", "b"},
		Bulkheads: []limiter.Bulkhead{
			{Name: "a", Share: .25, Guarantee: 2}, {Name: "b", Share: .5, Guarantee: 4}, {Name: "z", Share: .125, Guarantee: 1},
		},
		Limit: 8,
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("in force:\n%+v, want\n%+v", got, want)
	}
	// The copy is the operator's own: its table can be changed, and put in force again.
	got.Methods["/a.B/C"] = limiter.Sheddable
	if c := s.Settings().Methods["/a.B/C"]; c != limiter.CriticalPlus {
		t.Errorf("%v in force after a change of the copy, want CRITICAL_PLUS", c)
	}
	if err := s.SetOptions(WithMethodCriticality(got.Methods)); err != nil {
		t.Errorf("what was read back is rejected: %v", err)
	}
	// Levels are shown by name.
	page, err := json.Marshal(s.Settings())
	if text := fmt.Sprintf("%s %+v", page, s.Settings()); err != nil || strings.Count(text, "SHEDDABLE") != 4 || strings.Count(text, "CRITICAL") != 2 {
		t.Errorf("shown as %s, %v", text, err)
	}
}

// A list with one wrong option changes nothing, whatever else is in it, the limiter's shares included.
func TestWrongSettingsChangeNothing(t *testing.T) {
	lim, err := limiter.New(limiter.WithBulkheads(map[string]float64{"a": .25}))
	if err != nil {
		t.Fatal(err)
	}
	one := method("One")
	servers := map[string]*Server{
		"its own": newServer(t, append(lists()["matchers"], WithTenant(TenantFromMethod()), ofStart())...),
		"given":   newServer(t, WithLimiter(lim), WithBulkhead("a", .25, one), WithCriticalityBaggage()),
	}
	many := make([]Option, 65)
	for i := range many {
		many[i] = WithBulkhead(fmt.Sprint("group ", i), .01, one)
	}
	for _, c := range []struct {
		limiters, want string
		opts           []Option
	}{
		{"any", "WithLimiter cannot be changed while serving; want it in NewServer", []Option{WithLimiter(lim)}},
		{"any", "WithLimiterOptions cannot be changed", []Option{WithLimiterOptions(limiter.WithMinLimit(2))}},
		{"any", "WithLimiterOptions cannot be changed", []Option{WithLimiterOptions()}},
		{"any", "WithMeterProvider cannot be changed", []Option{WithMeterProvider(noop.NewMeterProvider())}},
		{"any", "WithoutTap cannot be changed", []Option{WithoutTap()}},
		{"any", "option 1 is nil", []Option{nil}},
		{"any", "WithExempt(nil)", []Option{WithExempt(nil)}},
		{"any", "WithCriticality(nil)", []Option{WithCriticality(nil)}},
		{"any", "WithTenant(nil)", []Option{WithTenant(nil)}},
		{"any", "WithOutcome(nil)", []Option{WithOutcome(nil)}},
		{"any", "WithMethodCriticality(nil)", []Option{WithMethodCriticality(nil)}},
		{"any", `the key "pay"`, []Option{WithMethodCriticality(methods{"pay": limiter.Critical})}},
		{"any", "WithCriticalityCeiling(9)", []Option{WithCriticalityCeiling(9)}},
		{"any", `WithBulkhead(nil)`, []Option{WithBulkhead("a", .25, nil)}},
		{"any", `WithBulkhead("a", 2)`, []Option{WithBulkhead("a", 2, one)}},
		{"any", "shares of 1.5 in all", []Option{WithBulkhead("a", .75, one), WithBulkhead("b", .75, one)}},
		{"its own", "with those of WithLimiterOptions: limiter: SetBulkheads: shares of 1.025 in all", []Option{WithBulkhead("b", .775, one)}},
		{"its own", "want at most 64", many},
		{"given", `WithBulkhead("a", 0.5), but the limiter of WithLimiter guarantees it 0.25`, []Option{WithBulkhead("a", .5, one)}},
		{"given", `WithBulkhead("b", 0.25), but the limiter of WithLimiter guarantees it 0`, []Option{WithBulkhead("b", .25, one)}},
	} {
		for limiters, s := range servers {
			if c.limiters != "any" && c.limiters != limiters {
				continue
			}
			before, policy := s.Settings(), s.policy.Load()
			err := s.SetOptions(append([]Option{WithCriticalityCeiling(limiter.Sheddable)}, c.opts...)...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
			if after := s.Settings(); !reflect.DeepEqual(before, after) || s.policy.Load() != policy {
				t.Errorf("%s, limiter %s: in force\n%+v, want as before\n%+v", c.want, limiters, after, before)
			}
		}
	}
}

// Where the limiter was given, whoever gave it says first what it guarantees.
func TestSharesOfAGivenLimiter(t *testing.T) {
	lim, err := limiter.New()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, WithLimiter(lim))
	if err := lim.SetBulkheads(map[string]float64{"a": .25, "other server's": .5}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetOptions(WithBulkhead("a", .25, method("One"))); err != nil {
		t.Fatal(err)
	}
	if got := s.Settings(); len(got.Bulkheads) != 2 || len(got.BulkheadRules) != 1 {
		t.Errorf("in force: %+v", got)
	}
}

// What is set holds for the next request, in the tap and in the interceptor.
func TestSettingsHoldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan limiter.Criticality, 1)
		svc := &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			heard <- limiter.CriticalityFromContext(ctx)
			return &testpb.SimpleResponse{}, nil
		}}
		past := 0
		p := connect(t, svc, limit(1), reached(&past))
		defer fill(t, p.server.Limiter())()
		if err := askUnary(t.Context(), p); status.Code(err) != codes.ResourceExhausted || past != 0 {
			t.Fatalf("at a full server: %v after %d interceptors, want a refusal by the tap", err, past)
		}
		table := WithMethodCriticality(methods{"/grpc.testing.TestService/*": limiter.CriticalPlus})
		if err := p.server.SetOptions(table, WithExempt(method("UnaryCall"))); err != nil {
			t.Fatal(err)
		}
		if err := askUnary(t.Context(), p); err != nil {
			t.Fatalf("exempt: %v", err)
		}
		if got := <-heard; got != limiter.CriticalPlus {
			t.Errorf("%v in the handler, want CRITICAL_PLUS", got)
		}
		if err := p.server.SetOptions(); err != nil {
			t.Fatal(err)
		}
		if err := askUnary(t.Context(), p); status.Code(err) != codes.ResourceExhausted || past != 1 {
			t.Errorf("exempt no more: %v after %d interceptors, want a refusal by the tap", err, past)
		}
	})
}

// An open stream keeps its criticality, its group and its outcomes; the next one has the new ones.
func TestStreamsKeepTheirSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := func(c limiter.Criticality, group string, o limiter.Outcome) []Option {
			return []Option{
				WithMethodCriticality(methods{"/a.B/*": c}),
				WithBulkhead(group, .25, method("Stream")),
				WithOutcome(func(error) limiter.Outcome { return o }),
			}
		}
		both := WithLimiterOptions(limiter.WithFixedLimit(4), limiter.WithBulkheads(map[string]float64{"old": .25, "new": .25}))
		s := newServer(t, append(opts(limiter.Sheddable, "old", limiter.Failed), both)...)
		check := func(stream grpc.ServerStream, c limiter.Criticality, group string) {
			if err := stream.RecvMsg(nil); err != nil {
				t.Error(err)
			}
			if got := limiter.CriticalityFromContext(stream.Context()); got != c {
				t.Errorf("a stream of %q: %v, want %v", group, got, c)
			}
			for _, b := range s.Limiter().Bulkheads() {
				if want := map[bool]int{true: 1}[b.Name == group]; b.InFlight != want {
					t.Errorf("a stream of %q: %d of %q in flight, want %d", group, b.InFlight, b.Name, want)
				}
			}
		}
		open := func(handler func(stream grpc.ServerStream)) {
			if err := s.stream(nil, &fakeStream{ctx: t.Context()}, streamInfo, func(_ any, stream grpc.ServerStream) error {
				handler(stream)
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		open(func(stream grpc.ServerStream) {
			if err := s.SetOptions(opts(limiter.CriticalPlus, "new", limiter.Overload)...); err != nil {
				t.Error(err)
			}
			check(stream, limiter.Sheddable, "old")
		})
		if got := s.Limiter().Stats().Outcomes; got[limiter.Failed] != 1 || got[limiter.Overload] != 0 {
			t.Errorf("outcomes %v of the old stream, want 1 failed", got)
		}
		open(func(stream grpc.ServerStream) { check(stream, limiter.CriticalPlus, "new") })
		if got := s.Limiter().Stats().Outcomes; got[limiter.Failed] != 1 || got[limiter.Overload] != 1 {
			t.Errorf("outcomes %v of both, want 1 overload too", got)
		}
	})
}

// witness is a request that notes whose settings it meets. It is its handler's error too.
type witness struct {
	context.Context
	mu  sync.Mutex
	met []string
}

type witnessKey struct{}

func (w *witness) Value(key any) any {
	if key == (witnessKey{}) {
		return w
	}
	return w.Context.Value(key)
}

func (w *witness) Error() string { return "a witness" }

// meet also lets others run, so that changes come between any two settings that a request meets.
func (w *witness) meet(side string) {
	w.mu.Lock()
	w.met = append(w.met, side)
	w.mu.Unlock()
	runtime.Gosched()
}

func witnessOf(ctx context.Context) *witness {
	w, _ := ctx.Value(witnessKey{}).(*witness)
	return w
}

// check reports how often, and that it was one side whose settings were met.
func (w *witness) check(t *testing.T, what string, times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.met) != times {
		t.Errorf("%s met %v, want %d", what, w.met, times)
	}
	for _, side := range w.met {
		if side != w.met[0] {
			t.Errorf("%s met %v, want one side", what, w.met)
		}
	}
}

// side returns options, each of which a request meets once, and which say who they are of.
func side(name string) []Option {
	meet := func(ctx context.Context) {
		if w := witnessOf(ctx); w != nil { // not in the tap of a connection
			w.meet(name)
		}
	}
	matches := func(answer bool) selector.Matcher {
		return selector.MatchFunc(func(ctx context.Context, _ middleware.CallMeta) bool { meet(ctx); return answer })
	}
	return []Option{
		WithExempt(matches(false)),
		WithCriticality(func(ctx context.Context, _ string) limiter.Criticality { meet(ctx); return limiter.Unspecified }),
		WithMethodCriticality(methods{"/" + name + "/*": limiter.Critical}),
		WithTenant(func(ctx context.Context, _ string) limiter.Tenant { meet(ctx); return limiter.TenantNamed(name) }),
		WithBulkhead(name, .5, matches(true)),
		WithOutcome(func(err error) limiter.Outcome {
			if w, ok := err.(*witness); ok {
				w.meet(name)
			}
			return limiter.OK
		}),
	}
}

// inTap and inAll are how many of the options of a side a request meets in the tap, and as a whole.
const inTap, inAll = 4, 5

// alternate puts one side in force and then the other, until what else runs is done.
func alternate(t *testing.T, s *Server, done func() bool) {
	for name, next := "right", "left"; !done(); name, next = next, name {
		if err := s.SetOptions(side(name)...); err != nil {
			t.Error(err)
		}
	}
}

// Over connections, in the middle of calls and of streams that last for many changes: each meets one side's settings,
// none is lost or refused, and nothing is left at the end.
func TestChangesUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := func(ctx context.Context) error { time.Sleep(5 * time.Millisecond); return witnessOf(ctx) }
		svc := &service{
			unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				return nil, answer(ctx)
			},
			duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
				if err := echo(time.Millisecond).duplex(stream); err != nil {
					return err
				}
				return answer(stream.Context())
			},
		}
		p := connect(t, svc, limit(20, side("left")...),
			grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				w := &witness{Context: ctx}
				if _, err := handler(w, req); err != error(w) {
					return nil, err
				}
				w.check(t, "a call", inAll)
				return &testpb.SimpleResponse{}, nil
			}),
			grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
				w := &witness{Context: stream.Context()}
				if err := handler(srv, &wrapped.WrappedServerStream{ServerStream: stream, WrappedContext: w}); err != error(w) {
					return err
				}
				w.check(t, "a stream", inAll)
				return nil
			}))
		var all sync.WaitGroup
		for range 10 {
			for _, ask := range []func(){
				func() {
					if err := askUnary(t.Context(), p); err != nil {
						t.Errorf("a call: %v", err)
					}
				},
				func() {
					if err := askStream(t.Context(), p, 20); err != nil {
						t.Errorf("a stream: %v", err)
					}
				},
			} {
				all.Go(func() {
					for start := time.Now(); time.Since(start) < time.Second; time.Sleep(time.Millisecond) { // in step with the changes
						ask()
					}
				})
			}
		}
		start := time.Now()
		alternate(t, p.server, func() bool { time.Sleep(time.Millisecond); return time.Since(start) > time.Second })
		all.Wait()
		if got := p.server.Limiter().Stats().Refused; got != [len(got)]uint64{} {
			t.Errorf("%v refused, want none", got)
		}
	})
}

// The same without time, on all processors: the tap and the interceptor each meet one side's settings.
func TestChangesAreAtomic(t *testing.T) {
	s := newServer(t, limit(100, side("left")...)...)
	var changers, callers sync.WaitGroup
	var over atomic.Bool
	for range 2 {
		changers.Go(func() { alternate(t, s, over.Load) })
	}
	for _, ask := range []func(){
		func() {
			w := &witness{Context: t.Context()}
			if _, err := s.tap(w, &tap.Info{FullMethodName: "/a.B/C"}); err != nil {
				t.Error(err)
			}
			w.check(t, "the tap", inTap)
		},
		func() {
			w := &witness{Context: t.Context()}
			_, err := s.unary(w, nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, func(context.Context, any) (any, error) { return nil, w })
			if err != error(w) {
				t.Error(err)
			}
			w.check(t, "a call", inAll)
		},
		func() {
			w := &witness{Context: t.Context()}
			if err := s.stream(nil, &fakeStream{ctx: w}, streamInfo, func(any, grpc.ServerStream) error { return w }); err != error(w) {
				t.Error(err)
			}
			w.check(t, "a stream", inAll)
		},
	} {
		callers.Go(func() {
			for range 3000 {
				ask()
			}
		})
	}
	callers.Wait()
	over.Store(true)
	changers.Wait()
	if got := s.Limiter().Stats(); got.InFlight != 0 || got.Line != 0 {
		t.Errorf("%d in flight and %d in line at the end, want none", got.InFlight, got.Line)
	}
}

// Of two changes at the same time one is in force at the end, and what is read back meanwhile is one of them as a whole.
func TestOneOfTwoChangesHolds(t *testing.T) {
	left, right := side("left"), side("right")
	s := newServer(t, left...)
	check := func() {
		got := s.Settings()
		name := got.BulkheadRules[0]
		if got.Methods["/"+name+"/*"] != limiter.Critical || len(got.Bulkheads) != 1 || got.Bulkheads[0].Name != name {
			t.Errorf("some of one and some of the other: %+v", got)
		}
	}
	var over atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		for !over.Load() {
			check()
		}
	})
	for range 3000 {
		var changers sync.WaitGroup
		for _, opts := range [][]Option{left, right} {
			changers.Go(func() {
				if err := s.SetOptions(opts...); err != nil {
					t.Error(err)
				}
			})
		}
		changers.Wait()
		check()
	}
	over.Store(true)
	reader.Wait()
}

// A group that stays keeps its guarantee in a flood, however often what is around it changes.
func TestBulkheadHoldsThroughChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := []Option{WithBulkhead("shop", .3, fromShop), WithCriticalityCeiling(limiter.CriticalPlus)}
		around := append(shop[:2:2], WithBulkhead("others", .5, method("UnaryCall")), WithTenant(TenantFromMethod()))
		p := connect(t, slow(40*time.Millisecond), limit(10, shop...))
		var all sync.WaitGroup
		answered := 0
		all.Go(func() {
			for i := range 300 {
				if err := p.server.SetOptions([][]Option{around, shop}[i%2]...); err != nil {
					t.Error(err)
				}
				time.Sleep(5*time.Millisecond + 3*time.Microsecond)
			}
		})
		all.Go(func() {
			time.Sleep(500*time.Millisecond + 7*time.Microsecond)
			var calls sync.WaitGroup
			results := make(chan error, 75)
			for n := range 3 + 75 { // the first three wait for a permit to come back
				calls.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					ctx = metadata.AppendToOutgoingContext(ctx, "from", "shop", CriticalityHeader, "SHEDDABLE")
					if err := askUnary(ctx, p); n >= 3 {
						results <- err
					}
				})
				time.Sleep(time.Second / 75)
			}
			calls.Wait()
			close(results)
			for err := range results {
				if err == nil {
					answered++
				}
			}
		})
		p.flood(t, 1500*time.Millisecond)
		all.Wait()
		if answered < 74 {
			t.Errorf("%d of 75 calls of the group answered, want .98 of them", answered)
		}
	})
}

// What a client believes and carries can be changed too.
func TestClientSettings(t *testing.T) {
	c := newClient(t)
	incoming := metadata.NewIncomingContext(t.Context(), metadata.Pairs(CriticalityHeader, "CRITICAL_PLUS"))
	with := func(ceiling limiter.Criticality, baggage bool) ClientSettings {
		return ClientSettings{Ceiling: ceiling, Baggage: baggage, LeastDeadline: time.Second, MostDeadline: 5 * time.Minute, Breaker: true}
	}
	for _, step := range []struct {
		opts []ClientOption
		err  string
		want ClientSettings
	}{
		{nil, "", with(limiter.Critical, false)},
		{[]ClientOption{WithCriticalityBaggage(), WithCriticalityCeiling(limiter.CriticalPlus)}, "", with(limiter.CriticalPlus, true)},
		{[]ClientOption{WithCriticalityCeiling(7)}, "WithCriticalityCeiling(7)", with(limiter.CriticalPlus, true)},
		{[]ClientOption{WithCriticalityCeiling(limiter.Sheddable), nil}, "option 1 is nil", with(limiter.CriticalPlus, true)},
		{[]ClientOption{WithCriticalityCeiling(limiter.Sheddable)}, "", with(limiter.Sheddable, false)},
		{nil, "", with(limiter.Critical, false)},
	} {
		if err := c.SetOptions(step.opts...); (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("error %v, want one that says %q", err, step.err)
		}
		if got := c.Settings(); got != step.want {
			t.Errorf("in force: %+v, want %+v", got, step.want)
		}
		ctx, _ := c.carry(incoming)
		header, baggage := metadata.ValueFromOutgoingContext(ctx, CriticalityHeader), metadata.ValueFromOutgoingContext(ctx, baggageHeader)
		if len(header) != 1 || header[0] != step.want.Ceiling.String() || (len(baggage) == 1) != step.want.Baggage {
			t.Errorf("%+v: carried on as %q, %q", step.want, header, baggage)
		}
	}
}
