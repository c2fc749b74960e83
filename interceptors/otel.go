package interceptors

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/spillway-go/spillway/limiter"
)

// scope is the instrumentation scope of the metrics.
const scope = "github.com/spillway-go/spillway/interceptors"

// Attributes, by OpenTelemetry's semantic conventions 1.43.0 for RPC and, under spillway, our own.
const (
	systemKey      = attribute.Key("rpc.system.name")
	methodKey      = attribute.Key("rpc.method")
	criticalityKey = attribute.Key("spillway.criticality")
	reasonKey      = attribute.Key("spillway.reason")

	otherMethod = "_OTHER" // the conventions' name for methods that are not told apart
)

// maxMethods bounds the memory and the cardinality of the metrics, whatever names are sent.
const maxMethods = 1000

const (
	criticalities = int(limiter.CriticalPlus) + 1
	reasons       = len(limiter.Stats{}.Refused)
)

// metrics reports to OpenTelemetry. Requests only add to counters in memory, which the provider reads when it
// wants to: an exporter that is slow or blocks slows no request.
type metrics struct {
	registration metric.Registration
	closed       sync.Once

	line           metric.Float64Histogram
	lineAttributes [criticalities][]metric.RecordOption

	ignored           [ignoredReasons]atomic.Int64
	ignoredAttributes [ignoredReasons][]metric.ObserveOption

	methods table[string, methodCounters]
	other   *methodCounters
}

// methodCounters count what became of the requests for one method.
type methodCounters struct {
	name       string
	admissions [criticalities]atomic.Int64
	refusals   [criticalities][reasons]atomic.Int64
	rehearsals [criticalities][reasons]atomic.Int64 // what a dry run would have refused
	turnedAway [criticalities]atomic.Int64          // while draining
}

func (m *methodCounters) admit(c limiter.Criticality) { m.admissions[bounded(c)].Add(1) }

func (m *methodCounters) refuse(c limiter.Criticality, r limiter.Reason) {
	m.refusals[bounded(c)][r].Add(1)
}

func (m *methodCounters) rehearse(c limiter.Criticality, r limiter.Reason) {
	m.rehearsals[bounded(c)][r].Add(1)
}

// turnAway counts a request that comes while the server drains, and returns its answer.
func (m *methodCounters) turnAway(c limiter.Criticality) error {
	m.turnedAway[bounded(c)].Add(1)
	return ErrDraining
}

// bounded returns the level that the limiter served a request as.
func bounded(c limiter.Criticality) limiter.Criticality {
	if c == limiter.Unspecified || c > limiter.CriticalPlus {
		return limiter.Critical
	}
	return c
}

func newMetrics(provider metric.MeterProvider, lim *limiter.Limiter) (*metrics, error) {
	m := &metrics{other: &methodCounters{name: otherMethod}}
	for c := range m.lineAttributes {
		m.lineAttributes[c] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(
			systemKey.String("grpc"), criticalityKey.String(limiter.Criticality(c).String())))}
	}
	for why := range m.ignoredAttributes {
		m.ignoredAttributes[why] = []metric.ObserveOption{metric.WithAttributeSet(attribute.NewSet(
			systemKey.String("grpc"), reasonKey.String(ignored(why).String())))}
	}
	if err := m.register(provider.Meter(scope), lim); err != nil {
		return nil, fmt.Errorf("interceptors: the meter provider rejects the metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) register(meter metric.Meter, lim *limiter.Limiter) (err error) {
	var failed error
	keep := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	gauge := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		i, err := meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		keep(err)
		return i
	}
	counter := func(name, description string) metric.Int64ObservableCounter {
		i, err := meter.Int64ObservableCounter(name, metric.WithUnit("{request}"), metric.WithDescription(description))
		keep(err)
		return i
	}
	limit := gauge("spillway.limit", "{request}", "Requests that may be in flight.")
	inFlight := gauge("spillway.in_flight", "{request}", "Requests in flight.")
	length := gauge("spillway.line.length", "{request}", "Requests that wait for a permit.")
	handed := gauge("spillway.handed_over", "{request}", "Requests that are not in flight because they wait for callees that hold their own load.")
	parked := gauge("spillway.parked", "{request}", "Requests that take none of the limit any more, because they have stayed for very long, such as Watches.")
	admissions := counter("spillway.admissions", "Requests that got a permit.")
	refusals := counter("spillway.refusals", "Requests that were refused.")
	rehearsals := counter("spillway.dry_run.refusals", "Requests that would have been refused, were it no dry run.")
	outside := gauge("spillway.dry_run.in_flight", "{request}", "Requests of dry runs that go on without a permit.")
	unheard := counter("spillway.criticality.ignored", "Requests whose caller's word on their criticality was ignored.")
	panics := counter("spillway.controller.panics", "Times that the controller panicked and the limit stayed.")
	signalPanics := counter("spillway.signal.panics", "Times that the source of a signal panicked and what was known stayed.")
	pressure, err := meter.Float64ObservableGauge("spillway.pressure", metric.WithUnit("1"),
		metric.WithDescription("How near the limiter is to refusing requests of a criticality, from 0 to 1."))
	keep(err)
	m.line, err = meter.Float64Histogram("spillway.line.sojourn", metric.WithUnit("s"),
		metric.WithDescription("Time in the line of requests that waited and got a permit."),
		metric.WithExplicitBucketBoundaries(.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10))
	keep(err)
	if failed != nil {
		return failed
	}
	observe := func(_ context.Context, o metric.Observer) error {
		s := lim.Stats()
		o.ObserveInt64(limit, int64(s.Limit))
		o.ObserveInt64(inFlight, int64(s.InFlight))
		o.ObserveInt64(length, int64(s.Line))
		o.ObserveInt64(handed, int64(s.HandedOver))
		o.ObserveInt64(parked, int64(s.Parked))
		o.ObserveInt64(outside, int64(s.DryRun))
		o.ObserveInt64(panics, int64(s.ControllerPanics))
		o.ObserveInt64(signalPanics, int64(s.SignalPanics))
		for c := limiter.Sheddable; c <= limiter.CriticalPlus; c++ {
			o.ObserveFloat64(pressure, lim.Pressure(c), metric.WithAttributes(criticalityKey.String(c.String())))
		}
		for _, method := range m.methods.all() {
			method.observe(o, admissions, refusals, rehearsals)
		}
		m.other.observe(o, admissions, refusals, rehearsals)
		for why := range m.ignored {
			if n := m.ignored[why].Load(); n > 0 {
				o.ObserveInt64(unheard, n, m.ignoredAttributes[why]...)
			}
		}
		return nil
	}
	m.registration, err = meter.RegisterCallback(
		observe, limit, inFlight, handed, parked, length, pressure, panics, signalPanics, admissions, refusals, rehearsals, outside, unheard)
	return err
}

// observe reports the counts that are not 0.
func (m *methodCounters) observe(o metric.Observer, admissions, refusals, rehearsals metric.Int64Observable) {
	for c := range m.admissions {
		attributes := []attribute.KeyValue{
			systemKey.String("grpc"),
			methodKey.String(m.name),
			criticalityKey.String(limiter.Criticality(c).String()),
		}
		if n := m.admissions[c].Load(); n > 0 {
			o.ObserveInt64(admissions, n, metric.WithAttributes(attributes...))
		}
		because := func(to metric.Int64Observable, n int64, reason string) {
			if n > 0 {
				with := append(attributes[:len(attributes):len(attributes)], reasonKey.String(reason))
				o.ObserveInt64(to, n, metric.WithAttributes(with...))
			}
		}
		for r := range m.refusals[c] {
			reason := limiter.Reason(r).String()
			because(refusals, m.refusals[c][r].Load(), reason)
			because(rehearsals, m.rehearsals[c][r].Load(), reason)
		}
		because(refusals, m.turnedAway[c].Load(), "draining")
	}
}

// known returns the counters of a method that was served before, or those of all others. The tap uses it: a name
// that comes off the wire must be able to add nothing.
func (m *metrics) known(method string) *methodCounters {
	if counters := m.methods.at(method); counters != nil {
		return counters
	}
	return m.other
}

// learn returns the counters of a method that the server has.
func (m *metrics) learn(method string) *methodCounters {
	if counters := m.methods.at(method); counters != nil {
		return counters
	}
	if counters := m.methods.add(method, maxMethods, func() *methodCounters {
		return &methodCounters{name: strings.TrimPrefix(method, "/")}
	}); counters != nil {
		return counters
	}
	return m.other
}

// ignore counts a request whose caller said something of its criticality that was ignored, if there is a reason why.
func (m *metrics) ignore(why ignored) {
	if why != notIgnored {
		m.ignored[why].Add(1)
	}
}

// sojourn records a wait in the line. Who did not wait is not recorded: the path without a wait stays free of it.
func (m *metrics) sojourn(ctx context.Context, wait time.Duration, c limiter.Criticality) {
	if wait > 0 {
		m.line.Record(ctx, wait.Seconds(), m.lineAttributes[bounded(c)]...)
	}
}

func (m *metrics) close() (err error) {
	m.closed.Do(func() { err = m.registration.Unregister() })
	return err
}
