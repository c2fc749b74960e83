package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// shelf is a service that breaks after its first answer, and tells how much time it has.
type shelf struct {
	testpb.UnimplementedTestServiceServer
	came int
}

func (s *shelf) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if s.came++; s.came > 1 {
		return nil, status.Error(codes.Internal, "the disk is gone")
	}
	at, _ := ctx.Deadline()
	return &testpb.SimpleResponse{Username: fmt.Sprintf("a book, in less than %v", time.Until(at).Round(time.Second))}, nil
}

// dialShelf returns a client of a shelf over a network in memory.
func dialShelf(opts ...interceptors.ClientOption) (_ testpb.TestServiceClient, stop func()) {
	srv := grpc.NewServer()
	testpb.RegisterTestServiceServer(srv, &shelf{})
	listener := bufconn.Listen(1 << 16)
	go func() { _ = srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///shelf", append(interceptors.DialOptions(opts...),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		panic(err)
	}
	return testpb.NewTestServiceClient(conn), func() {
		_ = conn.Close()
		srv.Stop()
	}
}

// A shop that gives what it has by heart when its callee is busy, and fails when something is wrong.
func ExampleIsRefusal() {
	answer := func(err error) string {
		if interceptors.IsRefusal(err) {
			return "the bestsellers"
		}
		return err.Error()
	}
	busy := status.Error(codes.ResourceExhausted, "spillway: overloaded, try again later") // as it comes over the network
	fmt.Println(answer(busy))
	fmt.Println(answer(status.Error(codes.ResourceExhausted, "no more than ten books a day")))
	// Output:
	// the bestsellers
	// rpc error: code = ResourceExhausted desc = no more than ten books a day
}

// A call without a deadline gets one.
func ExampleWithDefaultDeadline() {
	client, stop := dialShelf(interceptors.WithDefaultDeadline(time.Second, 30*time.Second))
	defer stop()
	answer, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{})
	fmt.Println(answer.GetUsername(), err)
	// Output: a book, in less than 30s <nil>
}

// Where there is no answer, there may be something as good.
func ExampleWithFallback() {
	client, stop := dialShelf(interceptors.WithFallback("/grpc.testing.TestService/UnaryCall",
		func(_ context.Context, _ string, _, reply any, cause error) error {
			reply.(*testpb.SimpleResponse).Username = fmt.Sprintf("a magazine (%v)", status.Code(cause))
			return nil
		}))
	defer stop()
	for range 2 {
		answer, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{})
		fmt.Println(answer.GetUsername(), err)
	}
	// Output:
	// a book, in less than 5m0s <nil>
	// a magazine (Internal) <nil>
}

// While a callee is broken, the last good answer is given again.
func ExampleWithLastGood() {
	store, err := interceptors.NewLastGood(10*time.Minute, 1<<20, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := dialShelf(interceptors.WithLastGood("/grpc.testing.TestService/UnaryCall", store))
	defer stop()
	for range 2 {
		answer, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{})
		fmt.Println(answer.GetUsername(), err)
	}
	// Output:
	// a book, in less than 5m0s <nil>
	// a book, in less than 5m0s <nil>
}

// A method that fails all its calls is not called for a while.
func ExampleWithoutBreaker() {
	for _, opts := range [][]interceptors.ClientOption{nil, {interceptors.WithoutBreaker()}} {
		client, stop := dialShelf(opts...)
		sent := 0
		for range 100 {
			if _, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{}); !errors.Is(err, interceptors.ErrNotSent) {
				sent++
			}
		}
		fmt.Println("few of 100 are sent:", sent < 20)
		stop()
	}
	// Output:
	// few of 100 are sent: true
	// few of 100 are sent: false
}

// What is in force at a client.
func ExampleClient_Settings() {
	client, err := interceptors.NewClient(interceptors.WithoutDefaultDeadline())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	fmt.Println(client.Settings().MostDeadline, client.Settings().Breaker)
	// Output: 0s true
}

// A callee that hangs holds no more than a hundred calls of its caller.
func ExampleWithCalleeLimit() {
	client, stop := dialShelf(interceptors.WithCalleeLimit(func(target string) *limiter.Limiter {
		fmt.Println("a limit for", target)
		l, err := limiter.New(limiter.WithFixedLimit(100))
		if err != nil {
			return nil
		}
		return l
	}))
	defer stop()
	_, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{})
	fmt.Println(err)
	// Output:
	// a limit for passthrough:///shelf
	// <nil>
}

// A connection that waits for its server to start, and comes back when it did.
func ExampleConnectionOptions() {
	conn, err := grpc.NewClient("passthrough:///shop", append(append(
		interceptors.ConnectionOptions(), interceptors.DialOptions()...),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.Target())
	// Output: passthrough:///shop
}

// Reads that take longer than most are sent once more, and the first answer counts.
func ExampleWithHedging() {
	client, err := interceptors.NewClient(interceptors.WithHedging(), interceptors.WithIdempotent("/acme.v1.Shop/Browse"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	fmt.Println(client.ServiceConfig())
	// Output: {"loadBalancingConfig":[{"spillway_backends":{"childPolicy":[{"pick_first":{}}]}}],"methodConfig":[{"name":[{"service":"acme.v1.Shop","method":"Browse"}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}],"retryThrottling":{"maxTokens":20,"tokenRatio":0.05}}
}

// A server that calls another has a limit for its own work: what stands in the line of the other is not in flight here.
func ExampleWithHandover() {
	for _, opts := range [][]interceptors.ClientOption{nil, {interceptors.WithHandover()}} {
		client, err := interceptors.NewClient(opts...)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(client.Settings().Handover)
	}
	// Output:
	// false
	// true
}
