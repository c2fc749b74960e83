package limiter

import (
	"strings"
	"testing"

	"github.com/spillway-go/spillway/feedback"
)

func TestBadOptionsAreNamed(t *testing.T) {
	for want, opts := range map[string][]Option{
		"option 1 is nil":            {WithMinLimit(1), nil},
		"WithController(nil)":        {WithController(nil)},
		"want a controller, or":      {WithController((*feedback.Elasticity)(nil))},
		"WithFixedLimit(0)":          {WithFixedLimit(0)},
		"WithInitialLimit(-1)":       {WithInitialLimit(-1)},
		"WithMinLimit(0)":            {WithMinLimit(0)},
		"WithMaxLimit(2000000000)":   {WithMaxLimit(2_000_000_000)},
		"is above WithMaxLimit(4)":   {WithMinLimit(5), WithMaxLimit(4)},
		"want 1 to 1000000 requests": {WithMaxLimit(-7)},

		"WithFixedLimit(50) is not within WithMinLimit(1) and WithMaxLimit(10)":       {WithFixedLimit(50), WithMaxLimit(10)},
		"WithFixedLimit(5) is not within WithMinLimit(6) and WithMaxLimit(1000000)":   {WithMinLimit(6), WithFixedLimit(5)},
		"WithInitialLimit(50) is not within WithMinLimit(1) and WithMaxLimit(10)":     {WithMaxLimit(10), WithInitialLimit(50)},
		"WithInitialLimit(5) is not within WithMinLimit(6) and WithMaxLimit(1000000)": {WithInitialLimit(5), WithMinLimit(6)},
		"WithFixedLimit(5) and WithController exclude each other":                     {WithController(feedback.Fixed(5)), WithFixedLimit(5)},
	} {
		if _, err := New(opts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func TestInitialLimitKeepsToTheBounds(t *testing.T) {
	for _, c := range []struct {
		opts []Option
		want int
	}{
		{nil, defaultInitial},
		{[]Option{WithMaxLimit(5)}, 5},
		{[]Option{WithMinLimit(100)}, 100},
		{[]Option{WithInitialLimit(7)}, 7},
		{[]Option{WithController(feedback.Fixed(9)), WithInitialLimit(9)}, 9},
		{[]Option{WithFixedLimit(9), WithInitialLimit(7)}, 9},
	} {
		if got := mustNew(t, c.opts...).Stats().Limit; got != c.want {
			t.Errorf("initial limit %d, want %d", got, c.want)
		}
	}
}
