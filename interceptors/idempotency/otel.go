package idempotency

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// scope is the instrumentation scope of the metrics.
const scope = "github.com/spillway-go/spillway/interceptors/idempotency"

// resultKey is the attribute that says how a call with a key ended.
const resultKey = attribute.Key("spillway.result")

// result is how a call with a key ended.
type result uint8

const (
	answered   result = iota // the handler's answer was stored
	released                 // the handler's answer was an error that is not final
	unstored                 // the handler's answer could not be stored
	repeated                 // it got a stored answer
	held                     // it waited in vain for somebody else's
	rejected                 // the key, the caller or the message cannot be read
	mismatched               // the key is that of another request
	full                     // the store had no room
	failed                   // the store failed

	results = int(failed) + 1
)

func (r result) String() string {
	return [results]string{"answered", "released", "unstored", "repeated", "held", "rejected", "mismatched", "full", "failed"}[r]
}

// metrics reports to OpenTelemetry.
type metrics struct {
	calls   metric.Int64Counter
	results [results]metric.MeasurementOption
}

func newMetrics(provider metric.MeterProvider) (*metrics, error) {
	calls, err := provider.Meter(scope).Int64Counter("spillway.idempotency.calls",
		metric.WithUnit("{call}"), metric.WithDescription("Calls with an idempotency key, by how they ended."))
	if err != nil {
		return nil, fmt.Errorf("idempotency: the meter provider rejects the metrics: %w", err)
	}
	m := &metrics{calls: calls}
	for r := range m.results {
		m.results[r] = metric.WithAttributeSet(attribute.NewSet(resultKey.String(result(r).String())))
	}
	return m, nil
}

func (m *metrics) count(ctx context.Context, r result) { m.calls.Add(ctx, 1, m.results[r]) }
