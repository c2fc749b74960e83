package interceptors_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
)

// moody is a service that is not there when it is asked first.
type moody struct {
	testpb.UnimplementedTestServiceServer
}

func (moody) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if interceptors.PreviousAttempts(ctx) == 0 {
		return nil, status.Error(codes.Unavailable, "not yet")
	}
	return &testpb.SimpleResponse{Username: "gopher"}, nil
}

// Methods whose descriptor has an idempotency_level are retried by themselves. Of others somebody has to say that it
// does no harm.
func ExampleWithIdempotent() {
	srv := grpc.NewServer()
	defer srv.Stop()
	testpb.RegisterTestServiceServer(srv, moody{})
	listener := bufconn.Listen(1 << 16) // a network in memory
	go func() { _ = srv.Serve(listener) }()

	conn, err := grpc.NewClient("passthrough:///moody", append(
		interceptors.DialOptions(interceptors.WithIdempotent("/grpc.testing.TestService/UnaryCall")),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	answer, err := testpb.NewTestServiceClient(conn).UnaryCall(context.Background(), &testpb.SimpleRequest{})
	fmt.Println(answer.GetUsername(), err)
	// Output: gopher <nil>
}

// Retries besides a service config of one's own.
func ExampleWithServiceConfig() {
	client, err := interceptors.NewClient(
		interceptors.WithServiceConfig(`{"loadBalancingConfig": [{"weighted_round_robin": {}}]}`),
		interceptors.WithIdempotent("/acme.v1.Shop/*"),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(client.ServiceConfig())
	// Output: {"loadBalancingConfig":[{"spillway_backends":{"childPolicy":[{"weighted_round_robin":{}}]}}],"methodConfig":[{"name":[{"service":"acme.v1.Shop"}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}],"retryThrottling":{"maxTokens":20,"tokenRatio":0.09}}
}

// A client whose calls are not retried: somebody else does it already.
func ExampleWithoutRetries() {
	client, err := interceptors.NewClient(interceptors.WithoutRetries())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(client.ServiceConfig())
	// Output: {"loadBalancingConfig":[{"spillway_backends":{"childPolicy":[{"pick_first":{}}]}}]}
}
