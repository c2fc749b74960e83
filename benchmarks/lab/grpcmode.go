package lab

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// calls are those under way in a run over gRPC: a request carries only its number.
type calls struct {
	mu   sync.Mutex // guards all below
	last int64
	open map[int64]call
}

type call struct {
	ctx  context.Context // the caller's, for the criticality in it
	work func() error
}

func (c *calls) add(under call) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.open[c.last] = under
	return c.last
}

func (c *calls) of(req any) call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[req.(*wrapperspb.Int64Value).Value]
}

// Grpc calls through the whole of grpc-go, over an in-memory network inside the bubble.
func Grpc(t *testing.T, _ Scenario, unary grpc.UnaryServerInterceptor) (caller, func()) {
	all := &calls{open: map[int64]call{}}
	tagged := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		from := all.of(req).ctx
		ctx = context.WithValue(ctx, criticalityKey{}, criticalityOf(from))
		return handler(context.WithValue(ctx, tenantKey{}, tenantOf(from)), req)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true), grpc.ChainUnaryInterceptor(tagged, unary))
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "lab.Station",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Do", Handler: func(_ any, ctx context.Context, decode func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			req := new(wrapperspb.Int64Value)
			if err := decode(req); err != nil {
				return nil, err
			}
			return chain(ctx, req, method, func(_ context.Context, req any) (any, error) {
				return &emptypb.Empty{}, all.of(req).work()
			})
		}}},
	}, nil)
	listener := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///lab",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, work func() error) error {
			number := all.add(call{ctx, work})
			return conn.Invoke(ctx, method.FullMethod, wrapperspb.Int64(number), &emptypb.Empty{})
		}, func() {
			_ = conn.Close()
			srv.Stop()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		}
}
