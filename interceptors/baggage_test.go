package interceptors

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

func TestCriticalityFromTheBaggage(t *testing.T) {
	const ours = CriticalityBaggageKey + "="
	for _, c := range []struct {
		values []string
		want   limiter.Criticality
		why    ignored
	}{
		{nil, limiter.Unspecified, notIgnored},
		{[]string{""}, limiter.Unspecified, notIgnored},
		{[]string{"tenant=7"}, limiter.Unspecified, notIgnored},
		{[]string{"note=" + ours + "SHEDDABLE"}, limiter.Unspecified, notIgnored},
		{[]string{"my." + ours + "SHEDDABLE"}, limiter.Unspecified, notIgnored},
		{[]string{ours + "SHEDDABLE"}, limiter.Sheddable, notIgnored},
		{[]string{ours + "CRITICAL_PLUS"}, limiter.CriticalPlus, notIgnored},
		{[]string{"tenant=7 , spillway.criticality = SHEDDABLE;ttl=1;x , plan=free"}, limiter.Sheddable, notIgnored},
		{[]string{ours + "%53HEDDABLE"}, limiter.Sheddable, notIgnored},
		{[]string{"tenant=7", ours + "SHEDDABLE"}, limiter.Sheddable, notIgnored},
		{[]string{"wrong wrong=\xff,," + ours + "SHEDDABLE,=,"}, limiter.Sheddable, notIgnored},
		{[]string{ours + "SHEDDABLE," + ours + "SHEDDABLE"}, limiter.Unspecified, doubled},
		{[]string{ours + "SHEDDABLE", ours + "SHEDDABLE"}, limiter.Unspecified, doubled},
		{[]string{ours + "HIGH"}, limiter.Unspecified, unknown},
		{[]string{ours}, limiter.Unspecified, malformed},
		{[]string{"spillway.criticality"}, limiter.Unspecified, malformed},
		{[]string{"spillway.criticality;x=SHEDDABLE"}, limiter.Unspecified, malformed},
		{[]string{ours + "SHEDDABLE;;=;"}, limiter.Unspecified, malformed},
		{[]string{ours + "%"}, limiter.Unspecified, malformed},
		{[]string{ours + "%ff"}, limiter.Unspecified, malformed},
		{[]string{ours + "\xff"}, limiter.Unspecified, malformed},
		{[]string{ours + "a b"}, limiter.Unspecified, malformed},
		{[]string{ours + strings.Repeat("A", maxLevelName+1)}, limiter.Unspecified, oversized},
		{[]string{ours + "SHEDDABLE;" + strings.Repeat("x", maxBaggageMember)}, limiter.Unspecified, oversized},
		{[]string{ours + "SHEDDABLE,x=" + strings.Repeat("x", maxBaggage)}, limiter.Unspecified, oversized},
		{make([]string, maxBaggage+2), limiter.Unspecified, oversized},
	} {
		if got, why := criticalityInBaggage(t.Context(), c.values); got != c.want || why != c.why {
			t.Errorf("%.80q: %v, %v; want %v, %v", c.values, got, why, c.want, c.why)
		}
	}
}

// The tap reads the baggage too, on the goroutine that reads the connection.
func TestReadingBaggageAllocatesNothing(t *testing.T) {
	s := newServer(t, WithCriticalityBaggage())
	info := &tap.Info{FullMethodName: "/a.B/C", Header: metadata.Pairs(baggageHeader, "tenant=7,spillway.criticality=SHEDDABLE")}
	if n := testing.AllocsPerRun(100, func() {
		if got, _ := s.policy.Load().criticalityAtTap(t.Context(), info); got != limiter.Sheddable {
			t.Fatal(got)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// What a propagator, or the application after it, put into the context is what counts, unless what was sent is not
// in order: the propagator has then kept some of it.
func TestBaggageOfTheContext(t *testing.T) {
	for _, c := range []struct {
		inContext string
		sent      []string
		want      limiter.Criticality
		why       ignored
	}{
		{"spillway.criticality=SHEDDABLE", nil, limiter.Sheddable, notIgnored},
		{"spillway.criticality=SHEDDABLE", []string{"spillway.criticality=CRITICAL"}, limiter.Sheddable, notIgnored},
		{"spillway.criticality=HIGH", nil, limiter.Unspecified, unknown},
		{"tenant=7", []string{"spillway.criticality=CRITICAL"}, limiter.Critical, notIgnored},
		{"spillway.criticality=SHEDDABLE", []string{"spillway.criticality=CRITICAL,spillway.criticality=SHEDDABLE"}, limiter.Unspecified, doubled},
	} {
		inContext, err := baggage.Parse(c.inContext)
		if err != nil {
			t.Fatal(err)
		}
		ctx := baggage.ContextWithBaggage(t.Context(), inContext)
		if got, why := criticalityInBaggage(ctx, c.sent); got != c.want || why != c.why {
			t.Errorf("%q in the context, %q sent: %v, %v; want %v, %v", c.inContext, c.sent, got, why, c.want, c.why)
		}
	}
}

func TestBaggageThatIsSent(t *testing.T) {
	long := "x=" + strings.Repeat("x", maxBaggage-2)
	for _, c := range []struct {
		inContext string
		explicit  []string // in the outgoing metadata
		want      string   // there, after
	}{
		{"", nil, "spillway.criticality=SHEDDABLE"},
		{"tenant=7", nil, "spillway.criticality=SHEDDABLE"}, // of the context, a propagator decides what is sent
		{"spillway.criticality=CRITICAL_PLUS,tenant=7", nil, "spillway.criticality=SHEDDABLE"},
		{"", []string{"tenant=7;p"}, "spillway.criticality=SHEDDABLE,tenant=7;p"},
		{"", []string{"a=1, spillway.criticality=CRITICAL", "b=2"}, "spillway.criticality=SHEDDABLE,a=1,b=2"},
		{"", []string{long}, long}, // with ours, the receiver would throw all away
	} {
		inContext, err := baggage.Parse(c.inContext)
		if err != nil {
			t.Fatal(err)
		}
		ctx := baggage.ContextWithBaggage(t.Context(), inContext)
		for _, value := range c.explicit {
			ctx = metadata.AppendToOutgoingContext(ctx, "Baggage", value)
		}
		ctx = withBaggage(withBaggage(ctx, limiter.Sheddable), limiter.Sheddable)
		if got := metadata.ValueFromOutgoingContext(ctx, baggageHeader); len(got) != 1 || got[0] != c.want {
			t.Errorf("%q sent over %.80q, want once %.80q", got, c.explicit, c.want)
		}
		after := baggage.FromContext(ctx)
		if got := after.Member(CriticalityBaggageKey).Value(); got != "SHEDDABLE" {
			t.Errorf("the context says %q, want SHEDDABLE", got)
		}
		if got, want := after.Member("tenant").Value(), inContext.Member("tenant").Value(); got != want {
			t.Errorf("the tenant in the context became %q, want %q", got, want)
		}
	}
}

// OpenTelemetry's own propagator is the naive twin: of a baggage that it reads without loss, we read the same.
func FuzzBaggage(f *testing.F) {
	f.Add("spillway.criticality=SHEDDABLE", "tenant=7")
	f.Add("a=b;c=d, spillway.criticality = %53HEDDABLE ;x=1", "")
	f.Add("spillway.criticality=\xff", "spillway.criticality=CRITICAL")
	f.Add("spillway.criticality;=CRITICAL", ",,=")
	f.Fuzz(func(t *testing.T, first, second string) {
		values := []string{first, second}
		got, why := criticalityInBaggage(t.Context(), values)
		if (why == doubled) != (count(values) > 1) && why != oversized {
			t.Errorf("%q: %v, but it is there %d times", values, why, count(values))
		}
		if got != limiter.Unspecified && why != notIgnored {
			t.Errorf("%q: both %v and %v", values, got, why)
		}
		if why == doubled || why == oversized {
			return
		}
		carrier := propagation.HeaderCarrier{"Baggage": values}
		member := baggage.FromContext(propagation.Baggage{}.Extract(t.Context(), carrier)).Member(CriticalityBaggageKey)
		if member.Key() == "" {
			return // not there, not in order, or cut off
		}
		if want, whyNot := parseLevel(member.Value()); got != want || why != whyNot {
			t.Errorf("%q: %v, %v; OpenTelemetry reads %q", values, got, why, member.Value())
		}
	})
}

func count(values []string) (n int) {
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if isOurMember(member) {
			n++
		}
	}
	return n
}
