package interceptors

import (
	"context"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/spillway-go/spillway/limiter"
)

func TestBadOptionsAreNamed(t *testing.T) {
	lim, err := limiter.New()
	if err != nil {
		t.Fatal(err)
	}
	for want, opts := range map[string][]Option{
		"option 1 is nil":                        {WithoutTap(), nil},
		"WithLimiter(nil)":                       {WithLimiter(nil)},
		"WithMeterProvider":                      {WithMeterProvider(nil)},
		"WithExempt":                             {WithExempt(nil)},
		"WithCriticality":                        {WithCriticality(nil)},
		"WithOutcome":                            {WithOutcome(nil)},
		"WithWeight(nil)":                        {WithWeight(nil)},
		"WithMethodCriticality(nil)":             {WithMethodCriticality(nil)},
		`"pay"; want a full method like`:         {WithMethodCriticality(methods{"/a.B/C": limiter.Critical, "pay": limiter.Critical})},
		`value 9 of "/a.B/*"; want one of`:       {WithMethodCriticality(methods{"/a.B/*": 9})},
		`value 0 of "/a.B/C"`:                    {WithMethodCriticality(methods{"/a.B/C": limiter.Unspecified})},
		"WithCriticalityCeiling(0); want one of": {WithCriticalityCeiling(limiter.Unspecified)},
		"WithCriticalityCeiling(5)":              {WithCriticalityCeiling(5)},
		"WithFixedLimit(-3)":                     {WithLimiterOptions(limiter.WithFixedLimit(-3))},
		"exclude each other":                     {WithLimiter(lim), WithLimiterOptions(limiter.WithMinLimit(2))},
		"WithController(nil)":                    {WithLimiterOptions(limiter.WithController(nil))},
	} {
		_, err := NewServer(opts...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

type methods = map[string]limiter.Criticality

func TestBadClientOptionsAreNamed(t *testing.T) {
	for want, opts := range map[string][]ClientOption{
		"option 1 is nil":           {WithCriticalityBaggage(), nil},
		"WithCriticalityCeiling(7)": {WithCriticalityCeiling(7)},
	} {
		_, err := NewClient(opts...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func TestDialOptionsPanicsOnABadOption(t *testing.T) {
	defer func() {
		if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), "option 0 is nil") {
			t.Errorf("panic with %v, want the error of the option", err)
		}
	}()
	DialOptions(nil)
}

func TestServerOptionsPanicsOnABadOption(t *testing.T) {
	defer func() {
		if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), "WithLimiter") {
			t.Errorf("panic with %v, want the error of the option", err)
		}
	}()
	ServerOptions(WithLimiter(nil))
}

func TestGoodOptions(t *testing.T) {
	lim, err := limiter.New()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(WithLimiter(lim), WithMeterProvider(noop.NewMeterProvider()), WithoutTap(),
		WithExempt(selector.MatchFunc(nil)), WithOutcome(Outcome),
		WithWeight(func(context.Context, string, any) int { return 2 }),
		WithCriticality(func(context.Context, string) limiter.Criticality { return limiter.CriticalPlus }))
	if err != nil {
		t.Fatal(err)
	}
	if s.Limiter() != lim {
		t.Error("another limiter is in force than the one given")
	}
	if got := len(s.ServerOptions()); got != 2 {
		t.Errorf("%d server options without the tap, want 2", got)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
