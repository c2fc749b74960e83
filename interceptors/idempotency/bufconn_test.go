package idempotency

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
)

// bank is a service whose handler is set by each test, and counts how often it works.
type bank struct {
	testpb.UnimplementedTestServiceServer
	handle func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error)

	mu     sync.Mutex
	worked int
}

func (b *bank) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	b.mu.Lock()
	b.worked++
	n := b.worked
	b.mu.Unlock()
	return b.handle(ctx, n, r)
}

func (b *bank) FullDuplexCall(testpb.TestService_FullDuplexCallServer) error { return nil }

func (b *bank) want(t *testing.T, worked int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.worked != worked {
		t.Errorf("the handler has worked %d times, want %d", b.worked, worked)
	}
}

// receipt answers with the number of the work.
func receipt(_ context.Context, n int, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: string(rune('0' + n))}, nil
}

// slowly does the same in a time, whether anybody still waits or not.
func slowly(d time.Duration) func(context.Context, int, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		time.Sleep(d)
		return receipt(ctx, n, r)
	}
}

// failing answers with the error first, and then with receipts.
func failing(err error) func(context.Context, int, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		if n == 1 {
			return nil, err
		}
		return receipt(ctx, n, r)
	}
}

// us is everybody.
func us(context.Context, string) string { return "us" }

func newServer(t *testing.T, caller CallerFunc, opts ...Option) *Server {
	t.Helper()
	s, err := NewServer(caller, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pair is a client and the server with keys that it talks to, over a network in memory that can break.
type pair struct {
	testpb.TestServiceClient
	bank *bank

	mu    sync.Mutex
	conns []net.Conn
}

func connect(t *testing.T, handle func(context.Context, int, *testpb.SimpleRequest) (*testpb.SimpleResponse, error), opts ...Option) *pair {
	t.Helper()
	return connectTo(t, newServer(t, us, opts...), handle)
}

func connectTo(t *testing.T, s *Server, handle func(context.Context, int, *testpb.SimpleRequest) (*testpb.SimpleResponse, error)) *pair {
	t.Helper()
	protection, err := interceptors.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{bank: &bank{handle: handle}}
	srv := grpc.NewServer(append(append([]grpc.ServerOption{
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor()),
	}, protection.ServerOptions()...), s.ServerOptions()...)...)
	testpb.RegisterTestServiceServer(srv, p.bank)
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///bank", append(
		interceptors.DialOptions(interceptors.WithIdempotent("/grpc.testing.TestService/UnaryCall")),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := listener.DialContext(ctx)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.conns = append(p.conns, conn)
			return conn, err
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := protection.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	p.TestServiceClient = testpb.NewTestServiceClient(conn)
	return p
}

// breakOff breaks all connections.
func (p *pair) breakOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// pay makes a call and returns the receipt.
func (p *pair) pay(ctx context.Context, key string) (string, error) {
	if key != "" {
		ctx = ContextWithKey(ctx, key)
	}
	answer, err := p.UnaryCall(ctx, &testpb.SimpleRequest{})
	return answer.GetUsername(), err
}

// wantPaid makes a call and checks the receipt.
func (p *pair) wantPaid(t *testing.T, key, want string) {
	t.Helper()
	if got, err := p.pay(t.Context(), key); got != want || err != nil {
		t.Errorf("with the key %q: %q, %v; want %q", key, got, err, want)
	}
}

// wantCode makes a call and checks its error.
func (p *pair) wantCode(t *testing.T, key string, want codes.Code) {
	t.Helper()
	if _, err := p.pay(t.Context(), key); status.Code(err) != want {
		t.Errorf("with the key %q: %v, want %v", key, err, want)
	}
}

// incoming returns the context of a request with metadata.
func incoming(t *testing.T, md metadata.MD) context.Context {
	return metadata.NewIncomingContext(t.Context(), md)
}
