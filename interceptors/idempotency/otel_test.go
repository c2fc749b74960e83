package idempotency

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// recorder is a meter provider that keeps what is added to its counters.
type recorder struct {
	noop.MeterProvider
	failing error

	mu   sync.Mutex
	sums map[string]int64
}

type recordingMeter struct {
	noop.Meter
	recorder *recorder
}

type recordingCounter struct {
	noop.Int64Counter
	recorder *recorder
	name     string
}

func (r *recorder) Meter(string, ...metric.MeterOption) metric.Meter {
	return recordingMeter{recorder: r}
}

func (m recordingMeter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return recordingCounter{recorder: m.recorder, name: name}, m.recorder.failing
}

func (c recordingCounter) Add(_ context.Context, n int64, opts ...metric.AddOption) {
	attributes := metric.NewAddConfig(opts).Attributes()
	key := c.name
	for _, kv := range attributes.ToSlice() {
		key += fmt.Sprintf(" %s=%s", kv.Key, kv.Value.AsString())
	}
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	if c.recorder.sums == nil {
		c.recorder.sums = map[string]int64{}
	}
	c.recorder.sums[key] += n
}

func TestMetrics(t *testing.T) {
	provider := new(recorder)
	inBubble(t, failing(status.Error(codes.Aborted, "no")), func(t *testing.T, p *pair) {
		p.wantCode(t, "k", codes.Aborted)
		p.wantPaid(t, "k", "2")
		p.wantPaid(t, "k", "2")
		p.wantPaid(t, "k", "2")
		p.wantCode(t, "a,b", codes.InvalidArgument)
		p.wantPaid(t, "", "3")
	}, WithMeterProvider(provider))
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, us, WithMeterProvider(provider), WithStore(brokenStore{}))
		_, _ = call(t, t.Context(), s, "k", nil)
	})
	for result, want := range map[string]int64{
		"answered": 1, "released": 1, "repeated": 2, "rejected": 1, "failed": 1, "held": 0, "unstored": 0, "mismatched": 0, "full": 0,
	} {
		if got := provider.sums["spillway.idempotency.calls spillway.result="+result]; got != want {
			t.Errorf("%s: %d, want %d; all: %v", result, got, want, provider.sums)
		}
	}
	for r := range result(results) {
		if name := r.String(); name == "" || strings.ToLower(name) != name {
			t.Errorf("result %d is %q, want a name", r, name)
		}
	}
}
