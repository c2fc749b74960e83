package conformance

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// everyOption returns all that a protection can be told, and then what is given, which holds where both say something.
func everyOption(more ...interceptors.Option) []interceptors.Option {
	return append([]interceptors.Option{
		interceptors.WithLimiterOptions(limiter.WithInitialLimit(4), limiter.WithMaxLimit(100),
			limiter.WithBulkheads(map[string]float64{"unused": .1})),
		interceptors.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))),
		interceptors.WithExempt(methods("/xds.service.orca.v3.OpenRcaService/")),
		interceptors.WithCriticality(func(ctx context.Context, _ string) limiter.Criticality {
			if len(metadata.ValueFromIncomingContext(ctx, "x-batch")) > 0 {
				return limiter.Sheddable
			}
			return limiter.Unspecified
		}),
		interceptors.WithMethodCriticality(map[string]limiter.Criticality{
			"/grpc.testing.TestService/HalfDuplexCall": limiter.CriticalPlus,
			"/grpc.testing.ReconnectService/*":         limiter.SheddablePlus,
		}),
		interceptors.WithCriticalityCeiling(limiter.Critical),
		interceptors.WithCriticalityBaggage(),
		interceptors.WithTenant(interceptors.TenantFromMetadata("x-tenant")),
		interceptors.WithWeight(func(_ context.Context, method string, _ any) int {
			if method == "/grpc.testing.TestService/UnaryCall" {
				return 2
			}
			return 0
		}),
		interceptors.WithBulkhead("first", .2, selector.MatchFunc(func(ctx context.Context, _ middleware.CallMeta) bool {
			return slices.Contains(metadata.ValueFromIncomingContext(ctx, "x-tenant"), "1")
		})),
		interceptors.WithBulkhead("half", .1, methods("/grpc.testing.TestService/HalfDuplexCall")),
		interceptors.WithOutcome(interceptors.Outcome),
	}, more...)
}

// methods matches the full methods that begin like this.
func methods(prefix string) selector.Matcher {
	return selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool {
		return strings.HasPrefix(call.FullMethod(), prefix)
	})
}

// server is a gRPC server on an in-memory network, for use in a bubble.
type server struct{ listener *bufconn.Listener }

// serve runs a server for the time of the test. It also gives load reports out of band: a stream for each connection
// that asks, as long as that lasts.
func serve(t *testing.T, svc testpb.TestServiceServer, opts ...grpc.ServerOption) *server {
	t.Helper()
	s := grpc.NewServer(append(opts, grpc.WaitForHandlers(true))...)
	testpb.RegisterTestServiceServer(s, svc)
	if err := orca.Register(s, orca.ServiceOptions{ServerMetricsProvider: orca.NewServerMetricsRecorder()}); err != nil {
		t.Fatal(err)
	}
	listener, served := bufconn.Listen(1<<16), make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &server{listener}
}

// dial returns a connection to the server for the time of the test.
func (s *server) dial(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///bufconn", append(opts,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// protect returns a protection that has nothing left of any request when the test ends, and all else has been stopped.
func protect(t *testing.T, opts ...interceptors.Option) *interceptors.Server {
	t.Helper()
	protection, err := interceptors.NewServer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		wantEmpty(t, protection.Limiter())
		if err := protection.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return protection
}

// wantEmpty fails the test if anything of a request is left.
func wantEmpty(t *testing.T, l *limiter.Limiter) {
	t.Helper()
	if s := l.Stats(); s.InFlight != 0 || s.Line != 0 {
		t.Errorf("%d in flight and %d in line at the end, want none", s.InFlight, s.Line)
	}
	for _, group := range l.Bulkheads() {
		if group.InFlight != 0 || group.Waiting != 0 {
			t.Errorf("bulkhead %q: %d in flight and %d waiting at the end, want none", group.Name, group.InFlight, group.Waiting)
		}
	}
}
