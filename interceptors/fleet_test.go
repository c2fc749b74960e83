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
	conn      *grpc.ClientConn
	servers   []*Server
	grpc      []*grpc.Server
	addresses []resolver.Address
	listeners map[string]*bufconn.Listener
	dialing   chan struct{} // has room for one
}

// connectFleet starts a server for each service, with the options, for the time of the test.
func connectFleet(t *testing.T, services []*service, serviceConfig string, opts ...Option) *fleet {
	t.Helper()
	f := startFleet(t, services, opts...)
	f.conn, _ = f.dial(t, grpc.WithDefaultServiceConfig(serviceConfig))
	f.TestServiceClient = testpb.NewTestServiceClient(f.conn)
	return f
}

// startFleet starts the servers only.
func startFleet(t testing.TB, services []*service, opts ...Option) *fleet {
	t.Helper()
	f := &fleet{listeners: map[string]*bufconn.Listener{}, dialing: make(chan struct{}, 1)}
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
		f.listeners[address] = listener
		f.addresses = append(f.addresses, resolver.Address{Addr: address})
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
	return f
}

// dial returns a connection for the time of the test, and what tells it the addresses: at first all.
func (f *fleet) dial(t testing.TB, opts ...grpc.DialOption) (*grpc.ClientConn, *manual.Resolver) {
	t.Helper()
	names := manual.NewBuilderWithScheme("fleet")
	names.InitialState(resolver.State{Addresses: f.addresses})
	conn, err := grpc.NewClient("fleet:///all", append(opts, grpc.WithResolvers(names),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			// One after the other: a connection of bufconn starts timers of no time, and two goroutines of a bubble that do so at
			// once can bring the race detector down (https://go.dev/issue/78156).
			f.dialing <- struct{}{}
			defer func() { <-f.dialing }()
			return f.listeners[address].DialContext(ctx)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, names
}
