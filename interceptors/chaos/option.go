package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// Option changes a default of [NewServer] and [NewClient]. None is needed.
type Option interface{ apply(*config) error }

type optionFunc func(*config) error

func (f optionFunc) apply(c *config) error { return f(c) }

type config struct {
	seed          uint64
	meterProvider metric.MeterProvider
}

func newConfig(opts []Option) (config, error) {
	c := config{seed: rand.Uint64(), meterProvider: otel.GetMeterProvider()}
	for i, opt := range opts {
		if opt == nil {
			return config{}, fmt.Errorf("chaos: option %d is nil; leave it out", i)
		}
		if err := opt.apply(&c); err != nil {
			return config{}, err
		}
	}
	return c, nil
}

// WithSeed makes a game repeatable: with the same seed and the same faults, from each Start on, a fault hits the same of
// the calls that it could hit, by the number in which they come. The default is a seed that nobody has had before, to be
// read back by Seed.
func WithSeed(seed uint64) Option {
	return optionFunc(func(c *config) error {
		c.seed = seed
		return nil
	})
}

// WithMeterProvider reports what is injected to the provider given, as the counter spillway.chaos.injected. The default
// is OpenTelemetry's global one.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) error {
		if p == nil {
			return errors.New("chaos: WithMeterProvider(nil); want a metric.MeterProvider, or leave the option out")
		}
		c.meterProvider = p
		return nil
	})
}
