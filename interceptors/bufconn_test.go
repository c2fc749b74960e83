package interceptors

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthserver "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/limiter"
)

// service is a test service whose methods are set by each test.
type service struct {
	testpb.UnimplementedTestServiceServer
	unary  func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	empty  func(context.Context) error
	duplex func(testpb.TestService_FullDuplexCallServer) error
	input  func(testpb.TestService_StreamingInputCallServer) error
	output func(*testpb.StreamingOutputCallRequest, testpb.TestService_StreamingOutputCallServer) error
}

func (s *service) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if s.unary == nil {
		return &testpb.SimpleResponse{}, nil
	}
	return s.unary(ctx, r)
}

func (s *service) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.empty == nil {
		return &testpb.Empty{}, nil
	}
	return &testpb.Empty{}, s.empty(ctx)
}

func (s *service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.duplex(stream)
}

func (s *service) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	return s.input(stream)
}

func (s *service) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	return s.output(r, stream)
}

// pair is a client and the protected server that it talks to, over an in-memory network: usable in a synctest
// bubble.
type pair struct {
	testpb.TestServiceClient
	conn   *grpc.ClientConn
	server *Server
	grpc   *grpc.Server
}

// connect starts a server with the options, and with more around it, for the time of the test.
func connect(t *testing.T, svc *service, opts []Option, around ...grpc.ServerOption) *pair {
	t.Helper()
	s, err := NewServer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{server: s}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		p.wantEmpty(t)
	})
	p.conn, p.grpc = serve(t, svc, append(around, s.ServerOptions()...))
	p.TestServiceClient = testpb.NewTestServiceClient(p.conn)
	return p
}

// serve runs a gRPC server for the time of the test, and returns a connection to it.
func serve(t *testing.T, svc *service, opts []grpc.ServerOption, dial ...grpc.DialOption) (*grpc.ClientConn, *grpc.Server) {
	t.Helper()
	srv := grpc.NewServer(append(opts, grpc.WaitForHandlers(true))...)
	testpb.RegisterTestServiceServer(srv, svc)
	healthpb.RegisterHealthServer(srv, healthserver.NewServer())
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", append(dial,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return conn, srv
}

func (p *pair) wantEmpty(t *testing.T) {
	t.Helper()
	if s := p.server.Limiter().Stats(); s.InFlight != 0 || s.Line != 0 {
		t.Errorf("%d in flight and %d in line at the end, want none", s.InFlight, s.Line)
	}
}

// limit returns options for a constant limit.
func limit(n int, opts ...Option) []Option {
	return append(opts, WithLimiterOptions(limiter.WithFixedLimit(n)))
}

func newServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s, err := NewServer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// askStream opens a stream, sends messages, each answered by one, and ends it.
func askStream(ctx context.Context, client testpb.TestServiceClient, messages int) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range messages {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
