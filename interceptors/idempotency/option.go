package idempotency

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// Option changes a default of [NewServer]. None is needed.
type Option interface{ apply(*config) error }

type optionFunc func(*config) error

func (f optionFunc) apply(c *config) error { return f(c) }

type config struct {
	store         Store
	lease         time.Duration
	wait          time.Duration // negative: as long as the deadline allows
	final         func(error) bool
	meterProvider metric.MeterProvider
}

func newConfig(opts []Option) (config, error) {
	c := config{lease: time.Minute, wait: -1, final: Final, meterProvider: otel.GetMeterProvider()}
	for i, opt := range opts {
		if opt == nil {
			return config{}, fmt.Errorf("idempotency: option %d is nil; leave it out", i)
		}
		if err := opt.apply(&c); err != nil {
			return config{}, err
		}
	}
	return c, nil
}

// WithStore keeps claims and answers in a store of yours. The default is a [Memory] of the server's own, with the limits
// that it has by default.
func WithStore(s Store) Option {
	return optionFunc(func(c *config) error {
		if s == nil {
			return errors.New("idempotency: WithStore(nil); want a Store, or leave the option out")
		}
		c.store = s
		return nil
	})
}

// WithLease sets how long a claim is held whose holder has died. A handler has nine tenths of it: then its context ends,
// and the rest is for the answer to be stored. The default is 1 min. [NewServer] rejects less than 1 ms.
func WithLease(lease time.Duration) Option {
	return optionFunc(func(c *config) error {
		if lease < time.Millisecond {
			return fmt.Errorf("idempotency: WithLease(%v); want at least %v", lease, time.Millisecond)
		}
		c.lease = lease
		return nil
	})
}

// WithWait bounds how long a repeat waits while the first is worked on. Then it is told UNAVAILABLE, as a call that only
// has to be repeated. With 0 it does not wait. The default is as long as its deadline allows. [NewServer] rejects less
// than 0.
func WithWait(wait time.Duration) Option {
	return optionFunc(func(c *config) error {
		if wait < 0 {
			return fmt.Errorf("idempotency: WithWait(%v); want at least 0, or leave the option out", wait)
		}
		c.wait = wait
		return nil
	})
}

// WithFinal decides which errors of handlers are answers to be stored. What it leaves out is worked on again when it is
// repeated. The default is [Final].
func WithFinal(final func(error) bool) Option {
	return optionFunc(func(c *config) error {
		if final == nil {
			return errors.New("idempotency: WithFinal(nil); want a function, or leave the option out")
		}
		c.final = final
		return nil
	})
}

// WithMeterProvider reports calls with keys to the provider given, as the counter spillway.idempotency.calls. The default
// is OpenTelemetry's global one.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) error {
		if p == nil {
			return errors.New("idempotency: WithMeterProvider(nil); want a metric.MeterProvider, or leave the option out")
		}
		c.meterProvider = p
		return nil
	})
}
