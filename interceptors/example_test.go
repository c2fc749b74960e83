package interceptors_test

import (
	"context"
	"fmt"
	"net"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// Two lines protect a server.
func ExampleServerOptions() {
	srv := grpc.NewServer(interceptors.ServerOptions()...)
	defer srv.Stop()
	fmt.Println(len(srv.GetServiceInfo()), "services yet")
	// Output: 0 services yet
}

// A server whose admin methods are always served, and whose payments are served first.
func ExampleNewServer() {
	protection, err := interceptors.NewServer(
		interceptors.WithExempt(selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool {
			return call.Service == "acme.v1.Admin"
		})),
		interceptors.WithCriticality(func(_ context.Context, method string) limiter.Criticality {
			if method == "/acme.v1.Shop/Pay" {
				return limiter.CriticalPlus
			}
			return limiter.Critical
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	srv := grpc.NewServer(protection.ServerOptions()...)
	defer srv.Stop()
	fmt.Println("limit at the start:", protection.Limiter().Stats().Limit)
	// Output: limit at the start: 20
}

// Those who build their own chain take the interceptors one by one.
func ExampleServer_UnaryInterceptor() {
	protection, err := interceptors.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	answer, err := protection.UnaryInterceptor()(context.Background(), "question",
		&grpc.UnaryServerInfo{FullMethod: "/acme.v1.Oracle/Ask"},
		func(context.Context, any) (any, error) { return 42, nil })
	fmt.Println(answer, err)
	// Output: 42 <nil>
}

// oracle is a service that says how critical the question is.
type oracle struct {
	testpb.UnimplementedTestServiceServer
}

func (oracle) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	fmt.Println(limiter.CriticalityFromContext(ctx))
	return &testpb.SimpleResponse{}, nil
}

// A nightly report says that it can wait. So does, without a word of its own, whoever is asked for its sake.
func ExampleDialOptions() {
	srv := grpc.NewServer(interceptors.ServerOptions()...)
	defer srv.Stop()
	testpb.RegisterTestServiceServer(srv, oracle{})
	listener := bufconn.Listen(1 << 16) // a network in memory
	go func() { _ = srv.Serve(listener) }()

	conn, err := grpc.NewClient("passthrough:///oracle", append(interceptors.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	ctx := limiter.ContextWithCriticality(context.Background(), limiter.Sheddable)
	if _, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
		fmt.Println(err)
	}
	// Output: SHEDDABLE
}

// The operator decides what is critical: payments are served first, whatever their callers say, and who says that
// something else is critical is not believed.
func ExampleWithMethodCriticality() {
	protection, err := interceptors.NewServer(
		interceptors.WithMethodCriticality(map[string]limiter.Criticality{
			"/acme.v1.Shop/Pay":  limiter.CriticalPlus,
			"/acme.v1.Reports/*": limiter.Sheddable,
		}),
		interceptors.WithCriticalityCeiling(limiter.SheddablePlus),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	for _, method := range []string{"/acme.v1.Shop/Pay", "/acme.v1.Reports/Yearly", "/acme.v1.Shop/Browse"} {
		_, _ = protection.UnaryInterceptor()(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: method},
			func(ctx context.Context, _ any) (any, error) {
				fmt.Println(method, limiter.CriticalityFromContext(ctx))
				return nil, nil
			})
	}
	// Output:
	// /acme.v1.Shop/Pay CRITICAL_PLUS
	// /acme.v1.Reports/Yearly SHEDDABLE
	// /acme.v1.Shop/Browse SHEDDABLE_PLUS
}

// Whatever else is asked of the server, and however critical, three tenths of what it can do are for payments whenever
// there are any.
func ExampleWithBulkhead() {
	protection, err := interceptors.NewServer(
		interceptors.WithLimiterOptions(limiter.WithInitialLimit(50)),
		interceptors.WithBulkhead("payments", .3, selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool {
			return call.Service == "acme.v1.Payments"
		})),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	_, _ = protection.UnaryInterceptor()(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/acme.v1.Payments/Pay"},
		func(context.Context, any) (any, error) {
			for _, b := range protection.Limiter().Bulkheads() {
				fmt.Printf("%s: %d guaranteed, %d in flight\n", b.Name, b.Guarantee, b.InFlight)
			}
			return nil, nil
		})
	// Output: payments: 15 guaranteed, 1 in flight
}
