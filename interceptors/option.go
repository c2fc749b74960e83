package interceptors

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/spillway-go/spillway/limiter"
)

// Option changes a default of [NewServer] and [ServerOptions]. None is needed.
type Option interface{ apply(*config) error }

type optionFunc func(*config) error

func (f optionFunc) apply(c *config) error { return f(c) }

// defaultCeiling lets a caller say that it is less critical than others, not that it is more.
const defaultCeiling = limiter.Critical

// startOption is an option that holds from [NewServer] on.
type startOption struct {
	name string
	optionFunc
}

func (o startOption) lasts() string { return o.name }

// lasting is an option that cannot be changed any more, with its name.
type lasting interface{ lasts() string }

type config struct {
	*policy
	limiter        *limiter.Limiter
	limiterOptions []limiter.Option
	meterProvider  metric.MeterProvider
	withoutTap     bool
	reported       bool
}

func newConfig(opts []Option) (config, error) {
	c := config{policy: &policy{methods: methodTable{}, trust: trust{ceiling: defaultCeiling}}}
	for i, opt := range opts {
		if isNil(opt) {
			return config{}, fmt.Errorf("interceptors: option %d is nil; leave it out", i)
		}
		if err := opt.apply(&c); err != nil {
			return config{}, err
		}
	}
	if c.limiter != nil && c.limiterOptions != nil {
		return config{}, errors.New("interceptors: WithLimiter and WithLimiterOptions exclude each other; give the options to limiter.New")
	}
	if c.meterProvider == nil {
		c.meterProvider = otel.GetMeterProvider()
	}
	return c, nil
}

// WithLimiter uses the limiter given, so that several servers, or other work of the process, share its permits.
// The default is a limiter of the server's own. [Server.SetOptions] rejects it.
func WithLimiter(l *limiter.Limiter) Option {
	return startOption{"WithLimiter", func(c *config) error {
		c.limiter = l
		return notNil("WithLimiter", "a *limiter.Limiter from limiter.New", l)
	}}
}

// WithLimiterOptions configures the server's own limiter. [Server.SetOptions] rejects it.
func WithLimiterOptions(opts ...limiter.Option) Option {
	return startOption{"WithLimiterOptions", func(c *config) error {
		c.limiterOptions = append(c.limiterOptions, opts...)
		return nil
	}}
}

// WithMeterProvider reports metrics to the provider given. The default is OpenTelemetry's global one.
// [Server.SetOptions] and [Client.SetOptions] reject it. [NewServer] and [NewClient] reject nil.
func WithMeterProvider(p metric.MeterProvider) SharedOption { return meterOption{p} }

type meterOption struct{ provider metric.MeterProvider }

func (o meterOption) lasts() string { return "WithMeterProvider" }

func (o meterOption) apply(c *config) error {
	c.meterProvider = o.provider
	return o.check()
}

func (o meterOption) applyClient(c *clientConfig) error {
	c.meterProvider = o.provider
	return o.check()
}

func (o meterOption) check() error {
	return notNil("WithMeterProvider", "a metric.MeterProvider", o.provider)
}

// WithExempt lets requests that the matcher selects pass without a permit, besides gRPC's health, reflection
// and load report services, which always do. It can be given more than once. Exempt a method that mostly waits for
// something to tell and then ends, such as a long poll: it would count as in flight while it waits. What ends when its caller
// does, such as most Watches, counts for a second or so only; see [limiter.Limiter]. The matcher is asked in the tap too,
// where no message and no stream type is known yet; see [CriticalityFunc] for what it must not do there.
func WithExempt(m selector.Matcher) Option {
	return optionFunc(func(c *config) error {
		c.exempt = append(c.exempt, m)
		return notNil("WithExempt", "a selector.Matcher", m)
	})
}

// WithCriticality decides how critical each request is. It is asked first and is not clamped: a function that trusts
// its callers may return CriticalPlus. Where it returns Unspecified, and where it is not given, which is the default,
// [WithMethodCriticality] decides, and after that what the caller says in [CriticalityHeader].
func WithCriticality(f CriticalityFunc) Option {
	return optionFunc(func(c *config) error {
		c.criticality = f
		return notNil("WithCriticality", "a function", f)
	})
}

// WithMethodCriticality says how critical the requests for a method are, whatever their callers say. A key is a full
// method, "/pkg.Service/Method", or "/pkg.Service/*" for those methods of a service that have no key of their own.
// [NewServer] copies the table, and so does [Server.SetOptions]. The default is an empty one; given more than once, the
// tables add up, and the last value of a key holds. NewServer rejects nil, a key of another form, and a value that is
// none of the four levels.
func WithMethodCriticality(table map[string]limiter.Criticality) Option {
	return optionFunc(func(c *config) error {
		if err := notNil("WithMethodCriticality", "a table", table); err != nil {
			return err
		}
		return c.methods.add(table)
	})
}

// WithCriticalityCeiling bounds what a caller may claim, in its metadata or its baggage: whoever says more is served,
// and carried on, as c. The default is Critical; CriticalPlus is for those whose callers can all be trusted. Below
// Critical it also bounds requests that say nothing and would be served as Critical. It does not bound
// [WithCriticality] and [WithMethodCriticality]. A client needs it only where no server of this package has seen the
// request that it carries on. [NewServer] and [NewClient] reject what is none of the four levels.
func WithCriticalityCeiling(c limiter.Criticality) SharedOption {
	return trustOption(func(t *trust) error {
		t.ceiling = c
		if !isLevel(c) {
			return fmt.Errorf("interceptors: WithCriticalityCeiling(%d); want %s", c, levels)
		}
		return nil
	})
}

// WithCriticalityBaggage makes use of OpenTelemetry's baggage, so that criticality also passes through processes
// that know nothing of spillway and hand baggage on. A server that finds no criticality in [CriticalityHeader] looks
// for [CriticalityBaggageKey], in the baggage of the context and in the metadata "baggage". A client puts it into
// both, in place of what its callers may have claimed there: a server with this option wants clients with it. The
// default is the header alone.
func WithCriticalityBaggage() SharedOption {
	return trustOption(func(t *trust) error {
		t.baggage = true
		return nil
	})
}

// WithTenant lets tenants share the service inside each criticality: whoever had the most lately is refused first.
// The default is that all requests are alike.
func WithTenant(f TenantFunc) Option {
	return optionFunc(func(c *config) error {
		c.tenant = f
		return notNil("WithTenant", "a function", f)
	})
}

// WithWeight says how much of the limit requests take: for methods that use more at a time than others, such as a query
// that runs on several workers, or that grow with the message. How long the requests of a method take needs no weight:
// it is learned, see [limiter.Limiter.Methods]. The default is 1 for all.
func WithWeight(f WeightFunc) Option {
	return optionFunc(func(c *config) error {
		c.weight = f
		return notNil("WithWeight", "a function", f)
	})
}

// WithBulkhead guarantees the requests that the matcher selects a share of the limit: what they do not use is lent to
// others, and comes back within a service time; see [limiter.WithBulkheads]. It can be given more than once: the first
// that matches decides, and several matchers can select for one name, with one share. The matcher is asked in the tap
// too, where no message and no stream type is known yet; see [CriticalityFunc] for what it must not do there. The
// default is that nothing is guaranteed.
//
// A limiter of the server's own has these shares besides those of [WithLimiterOptions], and new ones with each
// [Server.SetOptions]. A limiter that is given by [WithLimiter] must guarantee the same already, by
// limiter.WithBulkheads or SetBulkheads. [NewServer] rejects nil, an empty name, a share out of range, shares of more
// than 1 in all, and more names than the limiter takes.
func WithBulkhead(name string, share float64, m selector.Matcher) Option {
	return optionFunc(func(c *config) error { return c.bulkheads.add(name, share, m) })
}

// WithOutcome decides how the error of a handler (nil too) counts. The default is [Outcome]. What it calls OK or
// Ignored counts as Late all the same once the request's deadline has passed, and Ignored shortly before it too; see
// [limiter.Late].
func WithOutcome(f func(error) limiter.Outcome) Option {
	return optionFunc(func(c *config) error {
		c.outcome = f
		return notNil("WithOutcome", "a function", f)
	})
}

// WithoutTap leaves grpc.InTapHandle out of [ServerOptions]: for a server that has a tap of its own, or to keep
// clear of what gRPC calls experimental. Refusals then cost as much as a trivial call, for the message is read
// before. [Server.SetOptions] rejects it.
func WithoutTap() Option {
	return startOption{"WithoutTap", func(c *config) error {
		c.withoutTap = true
		return nil
	}}
}

func notNil(option, want string, value any) error {
	if isNil(value) {
		return fmt.Errorf("interceptors: %s(nil); want %s, or leave the option out", option, want)
	}
	return nil
}

// isNil also sees a nil pointer or function inside an interface.
func isNil(value any) bool {
	if value == nil {
		return true
	}
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return v.IsNil()
	default:
		return false
	}
}
