package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// recorder is a meter provider that keeps what is added to its counters, by name and attributes.
type recorder struct {
	noop.MeterProvider
	meter recordingMeter
}

func (r *recorder) Meter(string, ...metric.MeterOption) metric.Meter { return &r.meter }

type recordingMeter struct {
	noop.Meter
	failing error

	mu   sync.Mutex
	sums map[string]int64
}

type recordingCounter struct {
	noop.Int64Counter
	meter *recordingMeter
	name  string
}

func (m *recordingMeter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return &recordingCounter{meter: m, name: name}, m.failing
}

func (c *recordingCounter) Add(_ context.Context, n int64, opts ...metric.AddOption) {
	key := c.name
	attributes := metric.NewAddConfig(opts).Attributes()
	for _, kv := range attributes.ToSlice() {
		key += fmt.Sprintf(" %s=%s", kv.Key, kv.Value.AsString())
	}
	c.meter.mu.Lock()
	defer c.meter.mu.Unlock()
	if c.meter.sums == nil {
		c.meter.sums = map[string]int64{}
	}
	c.meter.sums[key] += n
}

func TestMetrics(t *testing.T) {
	provider := &recorder{}
	s, err := NewServer(WithMeterProvider(provider))
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(WithMeterProvider(provider))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	defer c.Stop()
	start(t, s, everything(Fault{Kind: Error, Code: codes.Internal}))
	start(t, c, everything(Fault{Kind: Error, Code: codes.Internal}))
	for range 3 {
		_, _ = s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, nil)
	}
	_ = c.unary(t.Context(), "/a.B/D", nil, nil, nil, nil)
	const common = "spillway.chaos.injected rpc.method="
	for name, want := range map[string]int64{
		common + "a.B/C rpc.system.name=grpc spillway.fault=error spillway.side=server": 3,
		common + "a.B/D rpc.system.name=grpc spillway.fault=error spillway.side=client": 1,
	} {
		if got := provider.meter.sums[name]; got != want {
			t.Errorf("%s = %d, want %d; all: %v", name, got, want, provider.meter.sums)
		}
	}
}

func TestMeterProviderThatFails(t *testing.T) {
	full := errors.New("no room")
	provider := &recorder{meter: recordingMeter{failing: full}}
	if _, err := NewServer(WithMeterProvider(provider)); !errors.Is(err, full) {
		t.Errorf("%v from a provider that rejects an instrument", err)
	}
}

// Names off the wire, of which a server for unknown services sees any, cannot make the metrics grow without bound.
func TestSeriesAreBounded(t *testing.T) {
	provider := &recorder{}
	m, err := newMetrics(provider, serverSide)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxSeries {
		m.count(t.Context(), Error, fmt.Sprintf("/a.B/%d", i))
	}
	m.count(t.Context(), Error, "/a.B/0")
	if got, want := len(provider.meter.sums), maxSeries+1; got != want {
		t.Errorf("%d series, want %d", got, want)
	}
	const at = "spillway.chaos.injected rpc.method=%s rpc.system.name=grpc spillway.fault=error spillway.side=server"
	if got := provider.meter.sums[fmt.Sprintf(at, "_OTHER")]; got != maxSeries {
		t.Errorf("%d under the name for all others, want %d", got, maxSeries)
	}
	if got := provider.meter.sums[fmt.Sprintf(at, "a.B/0")]; got != 2 {
		t.Errorf("%d of the first, want 2", got)
	}
}
