package interceptors

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/embedded"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc/metadata"

	"github.com/spillway-go/spillway/limiter"
)

// recorder is a meter provider that runs the callback on demand and keeps what it observes.
type recorder struct {
	noop.MeterProvider
	meter recordingMeter
}

func (r *recorder) Meter(string, ...metric.MeterOption) metric.Meter { return &r.meter }

type recordingMeter struct {
	noop.Meter
	callback metric.Callback
	closed   bool
	failing  bool
}

type namedCounter struct {
	noop.Int64ObservableCounter
	name string
}

type namedGauge struct {
	noop.Int64ObservableUpDownCounter
	name string
}

func (m *recordingMeter) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	if m.failing {
		return nil, fmt.Errorf("no room for %s", name)
	}
	return namedCounter{name: name}, nil
}

func (m *recordingMeter) Int64ObservableUpDownCounter(name string, _ ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	return namedGauge{name: name}, nil
}

type namedLevel struct {
	noop.Float64ObservableGauge
	name string
}

func (m *recordingMeter) Float64ObservableGauge(name string, _ ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return namedLevel{name: name}, nil
}

func (m *recordingMeter) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	m.callback = f
	return &registration{meter: m}, nil
}

type registration struct {
	embedded.Registration
	meter *recordingMeter
}

func (r *registration) Unregister() error { r.meter.closed = true; return nil }

// observer keeps the observations by instrument and attributes.
type observer struct {
	embedded.Observer
	seen   map[string]int64
	levels map[string]float64
}

func (o *observer) ObserveFloat64(instrument metric.Float64Observable, value float64, opts ...metric.ObserveOption) {
	if level, ok := instrument.(namedLevel); ok {
		o.levels[level.name+attributesOf(opts)] = value
	}
}

func (o *observer) ObserveInt64(instrument metric.Int64Observable, value int64, opts ...metric.ObserveOption) {
	name := ""
	switch i := instrument.(type) {
	case namedCounter:
		name = i.name
	case namedGauge:
		name = i.name
	}
	o.seen[name+attributesOf(opts)] = value
}

func attributesOf(opts []metric.ObserveOption) (s string) {
	attributes := metric.NewObserveConfig(opts).Attributes()
	for _, kv := range attributes.ToSlice() {
		s += fmt.Sprintf(" %s=%s", kv.Key, kv.Value.AsString())
	}
	return s
}

func TestMetrics(t *testing.T) {
	provider := &recorder{}
	s, err := NewServer(limit(1, WithMeterProvider(provider))...)
	if err != nil {
		t.Fatal(err)
	}
	permit, err := s.admit(t.Context(), "/a.B/C", limiter.Request{})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.admit(gone, "/a.B/C", limiter.Request{}); err == nil {
		t.Fatal("a request that was over before it came got a permit")
	}
	doubled := metadata.NewIncomingContext(t.Context(), metadata.MD{CriticalityHeader: {"SHEDDABLE", "SHEDDABLE"}})
	s.withCriticality(doubled, s.policy.Load(), "/a.B/C")
	o := &observer{seen: map[string]int64{}, levels: map[string]float64{}}
	if err := provider.meter.callback(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	const method = " rpc.method=a.B/C rpc.system.name=grpc spillway.criticality=CRITICAL"
	for name, want := range map[string]int64{
		"spillway.limit":               1,
		"spillway.in_flight":           1,
		"spillway.handed_over":         0,
		"spillway.parked":              0,
		"spillway.line.length":         0,
		"spillway.controller.panics":   0,
		"spillway.signal.panics":       0,
		"spillway.admissions" + method: 1,
		"spillway.refusals" + method + " spillway.reason=expired":                   1,
		"spillway.criticality.ignored rpc.system.name=grpc spillway.reason=doubled": 1,
	} {
		if got, ok := o.seen[name]; !ok || got != want {
			t.Errorf("%s = %d (%v), want %d", name, got, ok, want)
		}
	}
	for c := limiter.Sheddable; c <= limiter.CriticalPlus; c++ {
		if got, ok := o.levels["spillway.pressure spillway.criticality="+c.String()]; !ok || got != 0 {
			t.Errorf("spillway.pressure of %v = %v (%v), want 0", c, got, ok)
		}
	}
	permit.Release(limiter.OK)
	if err := s.Close(); err != nil || !provider.meter.closed {
		t.Errorf("Close = %v; the callback is unregistered: %v", err, provider.meter.closed)
	}
}

func TestMeterProviderThatFails(t *testing.T) {
	provider := &recorder{meter: recordingMeter{failing: true}}
	if _, err := NewServer(WithMeterProvider(provider)); err == nil {
		t.Error("no error from a provider that rejects an instrument")
	}
}

// Names off the wire cannot make the metrics grow without bound.
func TestMethodsAreBounded(t *testing.T) {
	s, err := NewServer()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range maxMethods {
				s.metrics.learn(fmt.Sprintf("/a.B/%d", i*(worker+1))).admit(limiter.Critical)
			}
		})
	}
	all.Wait()
	if got := len(s.metrics.methods.all()); got != maxMethods {
		t.Errorf("%d methods told apart, want %d", got, maxMethods)
	}
	if s.metrics.other.admissions[limiter.Critical].Load() == 0 {
		t.Error("nothing counted under the name for all others")
	}
}
