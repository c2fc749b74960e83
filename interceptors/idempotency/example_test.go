package idempotency_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/interceptors/idempotency"
)

// till is a service that must not book an order twice.
type till struct {
	testpb.UnimplementedTestServiceServer
	booked int
}

func (t *till) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	t.booked++
	return &testpb.SimpleResponse{Username: fmt.Sprintf("receipt %d", t.booked)}, nil
}

// The caller does not know whether its first try has arrived, and repeats it.
func ExampleContextWithKey() {
	keys, err := idempotency.NewServer(func(context.Context, string) string { return "all of us" })
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := grpc.NewServer(append(interceptors.ServerOptions(), keys.ServerOptions()...)...)
	defer srv.Stop()
	testpb.RegisterTestServiceServer(srv, &till{})
	listener := bufconn.Listen(1 << 16) // a network in memory
	go func() { _ = srv.Serve(listener) }()

	conn, err := grpc.NewClient("passthrough:///till", append(
		interceptors.DialOptions(interceptors.WithIdempotent("/grpc.testing.TestService/UnaryCall")), // by its key
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	client := testpb.NewTestServiceClient(conn)

	first := idempotency.ContextWithKey(context.Background(), idempotency.NewKey())
	second := idempotency.ContextWithKey(context.Background(), "order-8")
	for _, ctx := range []context.Context{first, first, second} {
		answer, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		fmt.Println(answer.GetUsername(), err)
	}
	// Output:
	// receipt 1 <nil>
	// receipt 1 <nil>
	// receipt 2 <nil>
}

// Callers are told apart by what a gateway says of them, and a repeat that would have to wait is told to come back.
func ExampleNewServer() {
	keys, err := idempotency.NewServer(
		idempotency.CallerFromMetadata("x-authenticated-user"),
		idempotency.WithWait(0),
		idempotency.WithLease(10*time.Second),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(
		"x-authenticated-user", "alice", idempotency.Header, "order-7"))
	info := &grpc.UnaryServerInfo{FullMethod: "/acme.v1.Shop/Pay"}
	_, err = keys.UnaryInterceptor()(ctx, &testpb.SimpleRequest{}, info, func(context.Context, any) (any, error) {
		_, err := keys.UnaryInterceptor()(ctx, &testpb.SimpleRequest{}, info, nil) // the same, meanwhile
		fmt.Println(status.Code(err))
		return &testpb.SimpleResponse{}, nil
	})
	fmt.Println(status.Code(err))
	// Output:
	// Unavailable
	// OK
}

// A store with other limits.
func ExampleNewMemory() {
	store, err := idempotency.NewMemory(idempotency.Limits{Keep: 24 * time.Hour, Entries: 1 << 20, Bytes: 1 << 30})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := idempotency.NewServer(idempotency.CallerFromCertificate(), idempotency.WithStore(store)); err != nil {
		fmt.Println(err)
		return
	}
	ctx, id := context.Background(), idempotency.ID{Method: "/acme.v1.Shop/Pay", Caller: "alice", Key: "order-7"}
	claim, _, err := store.Claim(ctx, id, idempotency.Fingerprint{}, time.Minute)
	fmt.Println("mine:", claim != nil, err)
	_, _, err = store.Claim(ctx, id, idempotency.Fingerprint{}, time.Minute)
	fmt.Println(err)
	fmt.Println(claim.Put(ctx, []byte("paid")))
	_, answer, err := store.Claim(ctx, id, idempotency.Fingerprint{}, time.Minute)
	fmt.Printf("%s %v\n", answer, err)
	// Output:
	// mine: true <nil>
	// idempotency: somebody else works on it
	// <nil>
	// paid <nil>
}

// An error that says that nothing was done invites a repeat; an answer does not.
func ExampleFinal() {
	fmt.Println(idempotency.Final(status.Error(codes.Unavailable, "not there")))
	fmt.Println(idempotency.Final(status.Error(codes.FailedPrecondition, "no money")))
	// Output:
	// false
	// true
}
