package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// scope is the instrumentation scope of the metrics.
const scope = "github.com/spillway-go/spillway/interceptors/chaos"

// Attributes, by OpenTelemetry's semantic conventions 1.43.0 for RPC and, under spillway, our own.
const (
	systemKey = attribute.Key("rpc.system.name")
	methodKey = attribute.Key("rpc.method")
	faultKey  = attribute.Key("spillway.fault")
	sideKey   = attribute.Key("spillway.side")

	otherMethod = "_OTHER" // the conventions' name for methods that are not told apart
)

// maxSeries bounds the memory and the cardinality of the metrics, whatever names are sent.
const maxSeries = 1000

// metrics reports to OpenTelemetry. Only a call that is hit comes here.
type metrics struct {
	side     side
	injected metric.Int64Counter

	mu    sync.Mutex // guards known
	known map[series]metric.MeasurementOption
}

// series is a time series of the counter.
type series struct {
	kind   Kind
	method string
}

func newMetrics(provider metric.MeterProvider, at side) (*metrics, error) {
	injected, err := provider.Meter(scope).Int64Counter("spillway.chaos.injected",
		metric.WithUnit("{fault}"), metric.WithDescription("Faults that were injected on purpose."))
	if err != nil {
		return nil, fmt.Errorf("chaos: the meter provider rejects the metrics: %w", err)
	}
	return &metrics{side: at, injected: injected, known: map[series]metric.MeasurementOption{}}, nil
}

func (m *metrics) count(ctx context.Context, kind Kind, method string) {
	m.injected.Add(ctx, 1, m.attributes(series{kind, method}))
}

func (m *metrics) attributes(s series) metric.MeasurementOption {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.known[s]
	if known == nil && len(m.known) >= maxSeries {
		s.method = otherMethod
		known = m.known[s]
	}
	if known == nil {
		known = metric.WithAttributeSet(attribute.NewSet(
			systemKey.String("grpc"),
			methodKey.String(strings.TrimPrefix(s.method, "/")),
			faultKey.String(s.kind.String()),
			sideKey.String(string(m.side))))
		m.known[s] = known
	}
	return known
}
