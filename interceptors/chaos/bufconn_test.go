package chaos

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthserver "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"
)

const (
	unaryMethod  = "/grpc.testing.TestService/UnaryCall"
	streamMethod = "/grpc.testing.TestService/FullDuplexCall"
)

// echo answers at once, unary calls and messages of streams.
type echo struct {
	testpb.UnimplementedTestServiceServer
}

func (echo) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, nil
}

func (echo) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// pair is a server and a client that inject faults, over a network in memory.
type pair struct {
	testpb.TestServiceClient
	conn   *grpc.ClientConn
	server *Server
	client *Client
}

func connect(t *testing.T, opts ...Option) *pair {
	t.Helper()
	server, err := NewServer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(append([]grpc.ServerOption{
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor()),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor()),
	}, server.ServerOptions()...)...)
	testpb.RegisterTestServiceServer(srv, echo{})
	healthpb.RegisterHealthServer(srv, healthserver.NewServer())
	reflection.Register(srv)
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", append(client.DialOptions(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		client.Stop()
		_ = conn.Close()
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &pair{testpb.NewTestServiceClient(conn), conn, server, client}
}

// The two ways of calling.
var ways = map[string]func(context.Context, *pair) error{
	"unary": func(ctx context.Context, p *pair) error {
		_, err := p.UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	},
	"stream": func(ctx context.Context, p *pair) error {
		stream, err := p.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
		return stream.CloseSend()
	},
}

// starter is what a Server and a Client have in common.
type starter interface {
	Start(...Fault) error
	Stop()
	Faults() []InForce
}

// sides are the two sides of a pair.
var sides = map[string]func(*pair) starter{
	"server": func(p *pair) starter { return p.server },
	"client": func(p *pair) starter { return p.client },
}
