package interceptors

import (
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/test/bufconn"
)

// fleet is some protected servers over in-memory networks, and a client that knows them all: usable in a synctest
// bubble.
type fleet struct {
	testpb.TestServiceClient
	conn    *grpc.ClientConn
	servers []*Server
	grpc    []*grpc.Server
}

// connectFleet starts a server for each service, with the options, for the time of the test.
func connectFleet(t *testing.T, services []*service, serviceConfig string, opts ...Option) *fleet {
	t.Helper()
	f := &fleet{}
	listeners := map[string]*bufconn.Listener{}
	var addresses []resolver.Address
	for i, svc := range services {
		s := newServer(t, opts...)
		srv := grpc.NewServer(append(s.ServerOptions(), grpc.WaitForHandlers(true))...)
		testpb.RegisterTestServiceServer(srv, svc)
		healthpb.RegisterHealthServer(srv, s.Health())
		reflection.Register(srv)
		address := fmt.Sprint("server-", i)
		if err := orca.Register(srv, orca.ServiceOptions{ServerMetricsProvider: s.LoadReports()}); err != nil {
			t.Fatal(err)
		}
		listener := bufconn.Listen(1 << 16)
		listeners[address] = listener
		addresses = append(addresses, resolver.Address{Addr: address})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(listener) }()
		t.Cleanup(func() {
			srv.Stop()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if s := s.Limiter().Stats(); s.InFlight != 0 || s.Line != 0 {
				t.Errorf("%d in flight and %d in line at the end, want none", s.InFlight, s.Line)
			}
		})
		f.servers, f.grpc = append(f.servers, s), append(f.grpc, srv)
	}
	names := manual.NewBuilderWithScheme("fleet")
	names.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("fleet:///all", grpc.WithResolvers(names), grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return listeners[address].DialContext(ctx)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	f.conn, f.TestServiceClient = conn, testpb.NewTestServiceClient(conn)
	return f
}
