package interceptors

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/spillway-go/spillway/limiter"
)

// targetKey is what a connection was dialed with.
const targetKey = attribute.Key("spillway.target")

// report reports what became of the client's calls to OpenTelemetry, until it is closed or nobody has the client any
// more: a program may dial as often as it likes.
func (c *Client) report(provider metric.MeterProvider) error {
	registration, err := c.callees.register(provider.Meter(scope))
	if err != nil {
		return fmt.Errorf("interceptors: the meter provider rejects the metrics: %w", err)
	}
	c.registration = registration
	runtime.AddCleanup(c, func(r metric.Registration) { _ = r.Unregister() }, registration)
	return nil
}

// Close stops reporting metrics. Calls are still made as before. It is safe to call twice. A client that is not used any
// more need not be closed.
func (c *Client) Close() (err error) {
	c.closed.Do(func() { err = c.registration.Unregister() })
	return err
}

// instruments are what a client reports.
type instruments struct {
	sent, notSent, fallbacks, hedges, openings metric.Int64ObservableCounter
	ignored                                    metric.Int64ObservableCounter
	open                                       metric.Int64ObservableUpDownCounter
	share                                      metric.Float64ObservableGauge
}

// register has a callback that keeps the callees, but not the client, from being forgotten.
func (c *callees) register(meter metric.Meter) (metric.Registration, error) {
	var failed error
	keep := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	counter := func(name, unit, description string) metric.Int64ObservableCounter {
		i, err := meter.Int64ObservableCounter("spillway.client."+name, metric.WithUnit(unit), metric.WithDescription(description))
		keep(err)
		return i
	}
	i := instruments{
		sent:      counter("sent", "{call}", "Calls and streams that were sent."),
		notSent:   counter("not_sent", "{call}", "Calls and streams that were not sent, for it would have been for nothing."),
		fallbacks: counter("fallbacks", "{call}", "Calls that were answered by a fallback."),
		hedges:    counter("hedges", "{call}", "Calls that were sent a second time, for the first took long."),
		openings:  counter("breaker.openings", "{opening}", "Times that the circuit breaker opened."),
		ignored:   counter("load.ignored", "{call}", "Calls whose callee's word on its load was ignored."),
	}
	var err error
	i.open, err = meter.Int64ObservableUpDownCounter("spillway.client.breaker.open", metric.WithUnit("{breaker}"),
		metric.WithDescription("Circuit breakers that are open or half open."))
	keep(err)
	i.share, err = meter.Float64ObservableGauge("spillway.client.share", metric.WithUnit("1"),
		metric.WithDescription("Part of the calls that is sent, by what the callee has refused lately, on average of its backends."))
	keep(err)
	if failed != nil {
		return nil, failed
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, callee := range c.known.all() {
			callee.observeAs(name, o, &i)
		}
		c.other.observeAs(calleeName{otherMethod, otherMethod}, o, &i)
		for why := range c.ignored {
			if n := c.ignored[why].Load(); n > 0 {
				o.ObserveInt64(i.ignored, n, metric.WithAttributes(systemKey.String("grpc"), reasonKey.String(ignored(why).String())))
			}
		}
		return nil
	}, i.sent, i.notSent, i.fallbacks, i.hedges, i.openings, i.ignored, i.open, i.share)
}

// observeAs reports the counts that are not 0, and the state of what has been in another state than its first.
func (c *callee) observeAs(name calleeName, o metric.Observer, i *instruments) {
	attributes := []attribute.KeyValue{
		systemKey.String("grpc"),
		methodKey.String(strings.TrimPrefix(name.method, "/")),
		targetKey.String(name.target),
	}
	all := metric.WithAttributes(attributes...)
	with := func(more attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributes(append(attributes[:len(attributes):len(attributes)], more)...)
	}
	count := func(counter metric.Int64Observable, n int64, opt metric.MeasurementOption) {
		if n > 0 {
			o.ObserveInt64(counter, n, opt)
		}
	}
	count(i.sent, c.sent.Load(), all)
	count(i.hedges, c.hedged.Load(), all)
	count(i.fallbacks, c.fallbacks.Load(), all)
	for why := range c.notSent {
		count(i.notSent, c.notSent[why].Load(), with(reasonKey.String(obstacle(why).String())))
	}
	if open, openings := c.breakers(); openings > 0 {
		o.ObserveInt64(i.openings, openings, all)
		o.ObserveInt64(i.open, open, all)
	}
	for level := range c.throttles {
		if share, met := c.share(level); met {
			o.ObserveFloat64(i.share, share, with(criticalityKey.String(limiter.Criticality(level).String())))
		}
	}
}

// breakers returns how many are open, and how often one opened.
func (c *callee) breakers() (open, openings int64) {
	open, openings = c.backends.breakers()
	if isOpen, opened := c.breaker.state(); opened > 0 {
		openings += opened
		if isOpen && !c.apart.Load() {
			open++
		}
	}
	return open, openings
}

// share returns the part of the calls of a criticality that is sent, on average of the backends, and whether it was ever
// less than 1.
func (c *callee) share(level int) (share float64, met bool) {
	if sum, n, met := c.backends.shares(level); c.apart.Load() && n > 0 {
		return sum / float64(n), met
	}
	t := &c.throttles[level]
	return t.share(), t.met()
}
