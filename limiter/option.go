package limiter

import (
	"fmt"
	"reflect"

	"github.com/spillway-go/spillway/feedback"
)

// Option changes a default of [New]. None is needed.
type Option interface{ apply(*config) error }

type optionFunc func(*config) error

func (f optionFunc) apply(c *config) error { return f(c) }

type config struct {
	controller                       feedback.Controller // nil: none was given
	fixedLimit                       int                 // 0: the limit is not fixed
	initialLimit, minLimit, maxLimit int                 // initialLimit 0: none was given
	bulkheads                        map[string]float64
	memory                           func() Memory // nil: not watched
	withoutSignals                   bool
}

// The default bounds of the limit: no service works with none in flight, and a million is beyond any.
const (
	defaultInitial = 20
	defaultMax     = 1_000_000
)

func newConfig(opts []Option) (config, error) {
	c := config{minLimit: 1, maxLimit: defaultMax}
	for i, opt := range opts {
		if opt == nil {
			return config{}, fmt.Errorf("limiter: option %d is nil; leave it out", i)
		}
		if err := opt.apply(&c); err != nil {
			return config{}, err
		}
	}
	if err := c.checkLimits(); err != nil {
		return config{}, err
	}
	if err := checkShares("WithBulkheads", c.bulkheads); err != nil {
		return config{}, err
	}
	switch {
	case c.fixedLimit > 0:
		c.controller, c.initialLimit = feedback.Fixed(c.fixedLimit), c.fixedLimit
	case c.controller == nil:
		c.controller = &feedback.Elasticity{}
	}
	if c.initialLimit == 0 {
		c.initialLimit = min(max(defaultInitial, c.minLimit), c.maxLimit)
	}
	return c, c.checkSignals()
}

// checkLimits returns an error that names options that contradict each other.
func (c *config) checkLimits() error {
	if c.minLimit > c.maxLimit {
		return fmt.Errorf("limiter: WithMinLimit(%d) is above WithMaxLimit(%d); want min <= max", c.minLimit, c.maxLimit)
	}
	if c.fixedLimit > 0 && c.controller != nil {
		return fmt.Errorf("limiter: WithFixedLimit(%d) and WithController exclude each other; leave one out", c.fixedLimit)
	}
	for option, limit := range map[string]int{"WithFixedLimit": c.fixedLimit, "WithInitialLimit": c.initialLimit} {
		if limit > 0 && (limit < c.minLimit || limit > c.maxLimit) {
			return fmt.Errorf("limiter: %s(%d) is not within WithMinLimit(%d) and WithMaxLimit(%d); want min <= limit <= max",
				option, limit, c.minLimit, c.maxLimit)
		}
	}
	return nil
}

// WithController sets the law that chooses the limit, in place of [feedback.Elasticity]. A controller belongs to
// one limiter. [New] rejects nil, and [WithFixedLimit] beside it.
func WithController(ctl feedback.Controller) Option {
	return optionFunc(func(c *config) error {
		if v := reflect.ValueOf(ctl); ctl == nil || v.Kind() == reflect.Pointer && v.IsNil() {
			return fmt.Errorf("limiter: WithController(nil); want a controller, or leave the option out")
		}
		c.controller = ctl
		return nil
	})
}

// WithFixedLimit holds the limit at n requests in flight, from the start on and whatever happens but for [WithMemory]. [New]
// rejects n < 1, n outside of the bounds, and [WithController] beside it.
func WithFixedLimit(n int) Option {
	return optionFunc(func(c *config) error {
		if err := atLeastOne("WithFixedLimit", n); err != nil {
			return err
		}
		c.fixedLimit = n
		return nil
	})
}

// WithInitialLimit sets the limit to start from. The default is 20; the law finds the right one from any.
// [New] rejects n < 1, and n outside of the bounds.
func WithInitialLimit(n int) Option {
	return optionFunc(func(c *config) error {
		c.initialLimit = n
		return atLeastOne("WithInitialLimit", n)
	})
}

// WithMinLimit stops the limit from falling below n requests in flight. The default is 1. [New] rejects n < 1.
func WithMinLimit(n int) Option {
	return optionFunc(func(c *config) error {
		c.minLimit = n
		return atLeastOne("WithMinLimit", n)
	})
}

// WithMaxLimit stops the limit from rising above n requests in flight. The default is 1,000,000. [New] rejects
// n < 1.
func WithMaxLimit(n int) Option {
	return optionFunc(func(c *config) error {
		c.maxLimit = n
		return atLeastOne("WithMaxLimit", n)
	})
}

func atLeastOne(option string, n int) error {
	if n < 1 || n > defaultMax {
		return fmt.Errorf("limiter: %s(%d); want 1 to %d requests", option, n, defaultMax)
	}
	return nil
}
