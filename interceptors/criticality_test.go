package interceptors

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

func TestCriticalityFromTheHeader(t *testing.T) {
	s, err := NewServer()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		values []string
		want   limiter.Criticality
	}{
		{nil, limiter.Unspecified},
		{[]string{"SHEDDABLE"}, limiter.Sheddable},
		{[]string{"SHEDDABLE_PLUS"}, limiter.SheddablePlus},
		{[]string{"CRITICAL"}, limiter.Critical},
		{[]string{"CRITICAL_PLUS"}, limiter.Critical}, // clamped
		{[]string{"critical"}, limiter.Unspecified},
		{[]string{""}, limiter.Unspecified},
		{[]string{"SHEDDABLE", "SHEDDABLE"}, limiter.Unspecified},
		{[]string{"9999"}, limiter.Unspecified},
		{[]string{strings.Repeat("A", 1<<20)}, limiter.Unspecified},
	} {
		md := metadata.MD{}
		if c.values != nil {
			md[CriticalityHeader] = c.values
		}
		if got := s.criticalityOf(metadata.NewIncomingContext(t.Context(), md), "/a.B/C"); got != c.want {
			t.Errorf("%.20q in the interceptor: %v, want %v", c.values, got, c.want)
		}
		if got := s.criticalityAtTap(t.Context(), &tap.Info{Header: md}); got != c.want {
			t.Errorf("%.20q in the tap: %v, want %v", c.values, got, c.want)
		}
	}
}

// Whatever a caller puts into the header, over a real connection, its request is served as any other.
func TestHostileHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &service{}, limit(1))
		for _, values := range [][]string{
			{"CRITICAL_PLUS"}, {""}, {"9999"}, {"-1"}, {"SHEDDABLE", "CRITICAL_PLUS"}, {strings.Repeat("x", 100_000)},
			strings.Split(strings.Repeat("SHEDDABLE ", 1000), " "),
		} {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{CriticalityHeader: values})
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				t.Errorf("%d values like %.20q: %v", len(values), values[0], err)
			}
		}
		counters := p.server.metrics.known("/grpc.testing.TestService/UnaryCall")
		for c := range counters.admissions {
			if n := counters.admissions[c].Load(); n > 0 && limiter.Criticality(c) != limiter.Critical {
				t.Errorf("%d requests served as %v, want all as CRITICAL", n, limiter.Criticality(c))
			}
		}
	})
}

func TestCriticalityByTheUser(t *testing.T) {
	s, err := NewServer(WithCriticality(func(_ context.Context, method string) limiter.Criticality {
		if method == "/a.B/Pay" {
			return limiter.CriticalPlus
		}
		return limiter.Criticality(200) // absurd: served as the default
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.criticalityOf(t.Context(), "/a.B/Pay"); got != limiter.CriticalPlus {
		t.Errorf("%v, want CriticalPlus", got)
	}
	permit, err := s.admit(t.Context(), "/a.B/Other")
	if err != nil {
		t.Fatal(err)
	}
	permit.Release(limiter.OK)
}

// Whatever a header holds, it harms nobody, and never makes a request more critical than the default.
func FuzzCriticality(f *testing.F) {
	f.Add("CRITICAL", "", false)
	f.Add("SHEDDABLE", "SHEDDABLE", true)
	f.Add("\x00\xff", "CRITICAL_PLUS", true)
	f.Fuzz(func(t *testing.T, first, second string, two bool) {
		values := []string{first}
		if two {
			values = append(values, second)
		}
		got := parseCriticality(values)
		if got > limiter.Critical {
			t.Errorf("%q: %v", values, got)
		}
		if two && got != limiter.Unspecified {
			t.Errorf("two values %q: %v, want none", values, got)
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
