package faults

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// maxLimit is the most that the caller may have in flight, whatever its limiter believes.
const maxLimit = 64

// caller is a server with Spillway in front that asks a callee for every request.
type caller struct {
	testpb.UnimplementedTestServiceServer
	callee     testpb.TestServiceClient
	protection *interceptors.Server
	client     testpb.TestServiceClient // of its own
	close      func()
}

func (c *caller) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return c.callee.UnaryCall(ctx, r)
}

// answering is a callee's service.
type answering struct {
	testpb.UnimplementedTestServiceServer
}

func (answering) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, nil
}

// newCaller starts a caller that finds its callee at an address, by a dialer if it is not nil.
func newCaller(t *testing.T, callee string, dialer func(context.Context, string) (net.Conn, error)) *caller {
	t.Helper()
	protection, err := interceptors.NewServer(interceptors.WithLimiterOptions(limiter.WithMaxLimit(maxLimit)))
	if err != nil {
		t.Fatal(err)
	}
	// Impatient, so that a test need not wait long for a callee that is back.
	impatient := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, MaxDelay: 100 * time.Millisecond},
		MinConnectTimeout: time.Second,
	}
	down := dial(t, callee, dialer, grpc.WithConnectParams(impatient))
	c := &caller{callee: testpb.NewTestServiceClient(down), protection: protection}
	srv := grpc.NewServer(append(protection.ServerOptions(), grpc.WaitForHandlers(true))...)
	testpb.RegisterTestServiceServer(srv, c)
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	up := dial(t, "caller", func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	c.client = testpb.NewTestServiceClient(up)
	c.close = func() {
		_ = up.Close()
		srv.Stop()
		_ = down.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := protection.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	return c
}

func dial(t *testing.T, address string, dialer func(context.Context, string) (net.Conn, error), opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if dialer != nil {
		opts = append(opts, grpc.WithContextDialer(dialer))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
