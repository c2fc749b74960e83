package interceptors_test

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
)

// full is a service that refuses everything.
type full struct {
	testpb.UnimplementedTestServiceServer
}

func (full) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return nil, status.Error(codes.ResourceExhausted, "no room")
}

// well is one that answers.
type well struct {
	testpb.UnimplementedTestServiceServer
}

func (well) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, nil
}

func ask(client testpb.TestServiceClient) error {
	_, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{})
	return err
}

// Two servers behind a name take turns. One of them refuses everything, so its calls go to the other.
func ExampleBackendPolicy() {
	networks := map[string]*bufconn.Listener{}
	names := manual.NewBuilderWithScheme("names")
	var addresses []resolver.Address
	for name, service := range map[string]testpb.TestServiceServer{"full": full{}, "well": well{}} {
		srv := grpc.NewServer()
		defer srv.Stop()
		testpb.RegisterTestServiceServer(srv, service)
		listener := bufconn.Listen(1 << 16) // a network in memory
		networks[name], addresses = listener, append(addresses, resolver.Address{Addr: name})
		go func() { _ = srv.Serve(listener) }()
	}
	names.InitialState(resolver.State{Addresses: addresses})

	conn, err := grpc.NewClient("names:///shop", append(
		interceptors.DialOptions(interceptors.WithServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`)),
		grpc.WithResolvers(names), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) { return networks[name].DialContext(ctx) }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	client, answered := testpb.NewTestServiceClient(conn), 0
	for ask(client) != nil { // until that one is connected
		runtime.Gosched()
	}
	for range 1000 {
		if ask(client) == nil {
			answered++
		}
	}
	fmt.Println("nearly all are answered:", answered > 900)
	// Output: nearly all are answered: true
}
