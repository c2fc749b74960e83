package interceptors

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// headers are values of the header, hostile ones too, and what is made of them.
var headers = []struct {
	values []string
	want   limiter.Criticality
	why    ignored
}{
	{nil, limiter.Unspecified, notIgnored},
	{[]string{"SHEDDABLE"}, limiter.Sheddable, notIgnored},
	{[]string{"SHEDDABLE_PLUS"}, limiter.SheddablePlus, notIgnored},
	{[]string{"CRITICAL"}, limiter.Critical, notIgnored},
	{[]string{"CRITICAL_PLUS"}, limiter.Critical, notIgnored}, // clamped
	{[]string{"critical"}, limiter.Unspecified, unknown},
	{[]string{"UNSPECIFIED"}, limiter.Unspecified, unknown},
	{[]string{"9999"}, limiter.Unspecified, unknown},
	{[]string{""}, limiter.Unspecified, malformed},
	{[]string{" SHEDDABLE"}, limiter.Unspecified, malformed},
	{[]string{"\xff\xfe"}, limiter.Unspecified, malformed},
	{[]string{"SHEDDABLE\x00"}, limiter.Unspecified, malformed},
	{[]string{"SHEDDABLE", "SHEDDABLE"}, limiter.Unspecified, doubled},
	{[]string{"SHEDDABLE, CRITICAL"}, limiter.Unspecified, doubled},
	{[]string{"SHEDDABLE", ""}, limiter.Unspecified, doubled},
	{make([]string, 10_000), limiter.Unspecified, doubled},
	{[]string{strings.Repeat("A", maxLevelName)}, limiter.Unspecified, unknown},
	{[]string{strings.Repeat("A", maxLevelName+1)}, limiter.Unspecified, oversized},
	{[]string{strings.Repeat("\xff,", 1<<20)}, limiter.Unspecified, oversized},
}

func TestCriticalityFromTheHeader(t *testing.T) {
	p := newServer(t).policy.Load()
	for _, c := range headers {
		md := metadata.MD{}
		if c.values != nil {
			md[CriticalityHeader] = c.values
		}
		if got, why := p.criticalityOf(metadata.NewIncomingContext(t.Context(), md), "/a.B/C"); got != c.want || why != c.why {
			t.Errorf("%.20q in the interceptor: %v, %v; want %v, %v", c.values, got, why, c.want, c.why)
		}
		if got, why := p.criticalityAtTap(t.Context(), &tap.Info{Header: md}); got != c.want || why != c.why {
			t.Errorf("%.20q in the tap: %v, %v; want %v, %v", c.values, got, why, c.want, c.why)
		}
	}
}

// Whatever a caller puts into the header, over a real connection, its request is served as any other, and counted
// once, with the tap and without.
func TestHostileHeaders(t *testing.T) {
	for _, opts := range [][]Option{nil, {WithoutTap()}} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, echo(0), limit(1, opts...))
			var want [ignoredReasons]int64
			for _, c := range headers {
				if len(c.values) > 0 && strings.IndexFunc(c.values[0], func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
					continue // gRPC's own client would not send it
				}
				ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{CriticalityHeader: c.values})
				if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
					t.Errorf("%d values like %.20q: %v", len(c.values), c.values, err)
				}
				if err := askStream(ctx, p, 3); err != nil {
					t.Errorf("a stream with %d values like %.20q: %v", len(c.values), c.values, err)
				}
				want[c.why] += 2
			}
			want[notIgnored] = 0
			for why := range want {
				if got := p.server.metrics.ignored[why].Load(); got != want[why] {
					t.Errorf("%d counted as %v, want %d", got, ignored(why), want[why])
				}
			}
			counters := p.server.metrics.known("/grpc.testing.TestService/UnaryCall")
			if n := counters.admissions[limiter.CriticalPlus].Load(); n > 0 {
				t.Errorf("%d requests served as CRITICAL_PLUS, want none", n)
			}
		})
	}
}

// A request that the tap refuses never comes to the interceptor that would have counted it.
func TestIgnoredIsCountedInTheTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := 0
		p := connect(t, &service{}, limit(1), reached(&past))
		defer fill(t, p.server.Limiter())()
		ctx := metadata.AppendToOutgoingContext(t.Context(), CriticalityHeader, "HIGH")
		if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); status.Code(err) != codes.ResourceExhausted || past != 0 {
			t.Fatalf("%v after %d interceptors; want a refusal by the tap", err, past)
		}
		if got := p.server.metrics.ignored[unknown].Load(); got != 1 {
			t.Errorf("counted %d times, want once", got)
		}
	})
}

// What a caller sends does not decide how much is allocated: no matter how much it is, it is looked at where it is.
func TestHostileHeadersAllocateLittle(t *testing.T) {
	s, c := newServer(t, WithCriticalityBaggage()), newClient(t, WithCriticalityBaggage())
	p := s.policy.Load()
	for name, values := range map[string][]string{
		"10,000 values":     strings.Split(strings.Repeat("SHEDDABLE ", 10_000), " "),
		"10,000 members":    {strings.Repeat(CriticalityBaggageKey+"=x,", 10_000)},
		"one of a megabyte": {CriticalityBaggageKey + "=" + strings.Repeat("A", 1<<20)},
		"no UTF-8":          {strings.Repeat("\xff", 1<<20)},
		"8 KiB of our own":  {CriticalityBaggageKey + "=" + strings.Repeat("%41", 8000/3)},
		"commas":            {strings.Repeat(",", 8000)},
	} {
		for _, header := range []string{CriticalityHeader, baggageHeader} {
			md := metadata.MD{header: values}
			ctx := metadata.NewIncomingContext(t.Context(), md)
			info := &tap.Info{FullMethodName: "/a.B/C", Header: md}
			const times, most = 100, 1 << 10
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range times {
				s.withCriticality(ctx, p, "/a.B/C")
				p.criticalityAtTap(t.Context(), info)
				c.carry(ctx)
			}
			runtime.ReadMemStats(&after)
			if each := (after.TotalAlloc - before.TotalAlloc) / times; each > most {
				t.Errorf("%s in %s: %d bytes allocated, want at most %d", name, header, each, most)
			}
		}
	}
}

// The plain path, where nobody says anything, allocates nothing for the sake of criticality.
func TestSilenceAllocatesNothing(t *testing.T) {
	s := newServer(t, WithCriticalityBaggage(), WithMethodCriticality(methods{"/a.B/*": limiter.Critical}))
	c := newClient(t, WithCriticalityBaggage())
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("user-agent", "test", "baggage", "tenant=7,plan=free"))
	if n := testing.AllocsPerRun(1000, func() {
		carried, _ := c.carry(ctx)
		if s.withCriticality(ctx, s.policy.Load(), "/c.D/E") != ctx || carried != ctx {
			t.Fatal("another context")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// The first who says something wins: the function, the table, the header, the baggage. Only callers are clamped.
func TestWhoSpeaksFirst(t *testing.T) {
	table := WithMethodCriticality(methods{
		"/a.B/*":   limiter.CriticalPlus,
		"/a.B/Low": limiter.Sheddable,
		"/a/Top":   limiter.Critical,
	})
	f := func(_ context.Context, method string) limiter.Criticality {
		switch method {
		case "/a.B/Pay":
			return limiter.SheddablePlus
		case "/a.B/Absurd":
			return limiter.Criticality(200) // served as the default
		}
		return limiter.Unspecified
	}
	all := []Option{WithCriticality(f), table, WithCriticalityBaggage()}
	both := metadata.MD{CriticalityHeader: {"SHEDDABLE"}, baggageHeader: {"spillway.criticality=SHEDDABLE_PLUS"}}
	baggageOnly := metadata.MD{baggageHeader: {"spillway.criticality=SHEDDABLE_PLUS"}}
	wrongHeader := metadata.MD{CriticalityHeader: {"?"}, baggageHeader: {"spillway.criticality=SHEDDABLE_PLUS"}}
	for _, c := range []struct {
		what   string
		opts   []Option
		method string
		md     metadata.MD
		want   limiter.Criticality
		why    ignored
	}{
		{"the function", all, "/a.B/Pay", both, limiter.SheddablePlus, notIgnored},
		{"the function, out of range", all, "/a.B/Absurd", both, limiter.Critical, notIgnored},
		{"a method in the table", all, "/a.B/Low", both, limiter.Sheddable, notIgnored},
		{"a service in the table", all, "/a.B/Other", both, limiter.CriticalPlus, notIgnored},
		{"a service with no entry for all", all, "/a/Other", both, limiter.Sheddable, notIgnored},
		{"another method of the same name", all, "/c.D/Low", both, limiter.Sheddable, notIgnored},
		{"the header", all, "/c.D/E", both, limiter.Sheddable, notIgnored},
		{"the baggage", all, "/c.D/E", baggageOnly, limiter.SheddablePlus, notIgnored},
		{"the baggage, after a header that says nothing", all, "/c.D/E", wrongHeader, limiter.SheddablePlus, malformed},
		{"the baggage, not asked", []Option{table}, "/c.D/E", baggageOnly, limiter.Unspecified, notIgnored},
		{"nobody", all, "/c.D/E", nil, limiter.Unspecified, notIgnored},
		{"no method", all, "", nil, limiter.Unspecified, notIgnored},
	} {
		s := newServer(t, c.opts...)
		p := s.policy.Load()
		ctx := metadata.NewIncomingContext(t.Context(), c.md)
		if got, why := p.criticalityOf(ctx, c.method); got != c.want || why != c.why {
			t.Errorf("%s: %v, %v in the interceptor; want %v, %v", c.what, got, why, c.want, c.why)
		}
		if got, why := p.criticalityAtTap(t.Context(), &tap.Info{FullMethodName: c.method, Header: c.md}); got != c.want || why != c.why {
			t.Errorf("%s: %v, %v in the tap; want %v, %v", c.what, got, why, c.want, c.why)
		}
		if got := limiter.CriticalityFromContext(s.withCriticality(ctx, p, c.method)); got != c.want {
			t.Errorf("%s: %v in the context, want %v", c.what, got, c.want)
		}
	}
}

func TestTablesAddUp(t *testing.T) {
	first := methods{"/a.B/C": limiter.Sheddable, "/a.B/D": limiter.Sheddable}
	p := newServer(t, WithMethodCriticality(first), WithMethodCriticality(methods{"/a.B/D": limiter.CriticalPlus})).policy.Load()
	first["/a.B/C"] = limiter.CriticalPlus // too late
	want := methods{"/a.B/C": limiter.Sheddable, "/a.B/D": limiter.CriticalPlus}
	for method, want := range want {
		if got, _ := p.criticalityOf(t.Context(), method); got != want {
			t.Errorf("%s: %v, want %v", method, got, want)
		}
	}
}

func TestCeiling(t *testing.T) {
	for _, c := range []struct {
		ceiling limiter.Criticality
		said    []string
		want    limiter.Criticality
	}{
		{limiter.CriticalPlus, []string{"CRITICAL_PLUS"}, limiter.CriticalPlus},
		{limiter.CriticalPlus, nil, limiter.Unspecified},
		{limiter.Critical, []string{"CRITICAL_PLUS"}, limiter.Critical},
		{limiter.Critical, nil, limiter.Unspecified},
		{limiter.SheddablePlus, []string{"CRITICAL"}, limiter.SheddablePlus},
		{limiter.SheddablePlus, []string{"SHEDDABLE"}, limiter.Sheddable},
		{limiter.SheddablePlus, nil, limiter.SheddablePlus}, // silence is worth no more than the truth
		{limiter.SheddablePlus, []string{"?"}, limiter.SheddablePlus},
	} {
		p := newServer(t, WithCriticalityCeiling(c.ceiling), WithMethodCriticality(methods{"/a.B/Pay": limiter.CriticalPlus})).policy.Load()
		md := metadata.MD{}
		if c.said != nil {
			md[CriticalityHeader] = c.said
		}
		ctx := metadata.NewIncomingContext(t.Context(), md)
		if got, _ := p.criticalityOf(ctx, "/a.B/C"); got != c.want {
			t.Errorf("%q below %v: %v, want %v", c.said, c.ceiling, got, c.want)
		}
		if got, _ := p.criticalityAtTap(t.Context(), &tap.Info{FullMethodName: "/a.B/C", Header: md}); got != c.want {
			t.Errorf("%q below %v in the tap: %v, want %v", c.said, c.ceiling, got, c.want)
		}
		if got, _ := p.criticalityOf(ctx, "/a.B/Pay"); got != limiter.CriticalPlus {
			t.Errorf("the table below %v: %v, want CRITICAL_PLUS", c.ceiling, got)
		}
	}
}

// The criticality that an interceptor outside of ours decided on holds where nobody else says anything.
func TestCriticalityFromAnOuterInterceptor(t *testing.T) {
	s := newServer(t)
	ctx := limiter.ContextWithCriticality(t.Context(), limiter.Sheddable)
	_, err := s.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, func(ctx context.Context, _ any) (any, error) {
		if got := limiter.CriticalityFromContext(ctx); got != limiter.Sheddable {
			t.Errorf("%v in the handler, want SHEDDABLE", got)
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.metrics.known("/a.B/C").admissions[limiter.Sheddable].Load(); got != 1 {
		t.Errorf("%d admitted as SHEDDABLE, want 1", got)
	}
}

// A stream is of one criticality, and whoever decides on it is asked at the opening, not for every message.
func TestStreamIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := connect(t, echo(0), limit(1, WithoutTap(), WithCriticality(func(context.Context, string) limiter.Criticality {
			asked++
			return limiter.SheddablePlus
		})))
		if err := askStream(t.Context(), p, 5); err != nil {
			t.Fatal(err)
		}
		if asked != 1 {
			t.Errorf("asked %d times, want once", asked)
		}
	})
}

// Whatever a header holds, it harms nobody, never makes a request more critical than the ceiling, and is either
// understood or has a reason why not. Client and server read it alike.
func FuzzCriticality(f *testing.F) {
	f.Add("CRITICAL", "", uint8(0), uint8(3))
	f.Add("SHEDDABLE", "SHEDDABLE", uint8(1), uint8(4))
	f.Add("\x00\xff", "CRITICAL_PLUS", uint8(1), uint8(2))
	f.Add("SHEDDABLE,CRITICAL", "", uint8(0), uint8(1))
	f.Add(strings.Repeat("A", 100), "", uint8(200), uint8(1))
	var servers [criticalities]*Server
	var clients [criticalities]*Client
	for level := limiter.Sheddable; level <= limiter.CriticalPlus; level++ {
		servers[level], _ = NewServer(WithCriticalityCeiling(level))
		clients[level], _ = NewClient(WithCriticalityCeiling(level))
	}
	f.Fuzz(func(t *testing.T, first, second string, more, ceiling uint8) {
		values := []string{first}
		for range more {
			values = append(values, second)
		}
		level := min(max(limiter.Criticality(ceiling), limiter.Sheddable), limiter.CriticalPlus)
		s, c := servers[level], clients[level]
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{CriticalityHeader: values})
		got, why := s.policy.Load().criticalityOf(ctx, "/a.B/C")
		if got > level {
			t.Errorf("%q: %v, above the ceiling %v", values, got, level)
		}
		if more > 0 && why != doubled {
			t.Errorf("%d values like %q: %v, want doubled", len(values), values[0], why)
		}
		if name := limiter.Criticality.String; why == notIgnored && name(got) != first && name(got) != name(level) {
			t.Errorf("%q understood as %v", first, got)
		}
		var want []string
		if why == notIgnored {
			want = []string{got.String()}
		}
		carried, _ := c.carry(ctx)
		if sent := metadata.ValueFromOutgoingContext(carried, CriticalityHeader); strings.Join(sent, "|") != strings.Join(want, "|") {
			t.Errorf("%q is carried on as %q, want %q", values, sent, want)
		}
	})
}

func TestTapSurvivesAPanickingCallback(t *testing.T) {
	s, err := NewServer(WithCriticality(func(context.Context, string) limiter.Criticality { panic("callback") }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := s.TapHandle()(t.Context(), &tap.Info{FullMethodName: "/a.B/C"})
	if ctx == nil || err != nil {
		t.Errorf("tap = %v, %v; want the context and no error", ctx, err)
	}
}
