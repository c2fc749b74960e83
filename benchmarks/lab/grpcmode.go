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
	open map[int64]underWay
}

type underWay struct {
	call
	ctx context.Context // the caller's, for the criticality in it
}

func newCalls() *calls { return &calls{open: map[int64]underWay{}} }

func (c *calls) add(ctx context.Context, under call) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.open[c.last] = underWay{under, ctx}
	return c.last
}

func (c *calls) of(req any) underWay {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[req.(*wrapperspb.Int64Value).Value]
}

// from sends calls by a connection.
func (c *calls) from(conn *grpc.ClientConn) caller {
	return func(ctx context.Context, under call) error {
		return invoke(ctx, conn, under, wrapperspb.Int64(c.add(ctx, under)))
	}
}

func invoke(ctx context.Context, conn *grpc.ClientConn, c call, req any) error {
	return conn.Invoke(ctx, c.method.FullMethod, req, &emptypb.Empty{})
}

// Grpc calls through the whole of grpc-go, over an in-memory network inside the bubble.
func Grpc(t *testing.T, s Scenario, unary grpc.UnaryServerInterceptor) (caller, func()) {
	all := newCalls()
	tagged := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		from := all.of(req).ctx
		ctx = context.WithValue(ctx, criticalityKey{}, criticalityOf(from))
		return handler(context.WithValue(ctx, tenantKey{}, tenantOf(from)), req)
	}
	work := func(_ context.Context, req any) (any, error) { return &emptypb.Empty{}, all.of(req).work() }
	conn, stop := host(t, s, work, []grpc.ServerOption{grpc.ChainUnaryInterceptor(tagged, unary)})
	return all.from(conn), stop
}

// host runs a server of the scenario's methods, and returns a connection to it.
func host(
	t *testing.T, s Scenario, do grpc.UnaryHandler, opts []grpc.ServerOption, dial ...grpc.DialOption,
) (conn *grpc.ClientConn, stop func()) {
	srv := grpc.NewServer(append(opts, grpc.WaitForHandlers(true))...)
	desc := &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	for _, m := range s.methods() {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: m.Name, Handler: handler(m, do)})
	}
	srv.RegisterService(desc, nil)
	listener := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///lab", append(dial,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	return conn, func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

// handler is what protoc would have made of a method.
func handler(m Method, do grpc.UnaryHandler) grpc.MethodHandler {
	info := m.info()
	return func(_ any, ctx context.Context, decode func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
		req := new(wrapperspb.Int64Value)
		if err := decode(req); err != nil {
			return nil, err
		}
		if chain == nil {
			return do(ctx, req)
		}
		return chain(ctx, req, info, do)
	}
}
