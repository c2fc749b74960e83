package chaos

import (
	"context"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"
)

// Server injects faults into the calls that a gRPC server serves. Until [Server.Start] it does nothing. It is safe for
// concurrent use, several servers may share it, and it needs no closing: it has no goroutine.
type Server struct{ injector }

// NewServer returns a Server, or an error that names the option that is wrong. It needs no options.
func NewServer(opts ...Option) (*Server, error) {
	s := new(Server)
	if err := s.init(serverSide, opts); err != nil {
		return nil, err
	}
	return s, nil
}

// ServerOptions returns both interceptors as options for [grpc.NewServer]. They are chained: they belong after those
// of Spillway, and so inside of them.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.UnaryInterceptor()),
		grpc.ChainStreamInterceptor(s.StreamInterceptor()),
	}
}

// UnaryInterceptor returns the interceptor for unary calls.
func (s *Server) UnaryInterceptor() grpc.UnaryServerInterceptor { return s.unary }

// StreamInterceptor returns the interceptor for streams.
func (s *Server) StreamInterceptor() grpc.StreamServerInterceptor { return s.stream }

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if g := s.touching(info.FullMethod); g != nil {
		call := middleware.NewServerCallMeta(info.FullMethod, nil, req)
		if err := s.inject(ctx, g, info.FullMethod, call); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if g := s.touching(info.FullMethod); g != nil {
		call := middleware.NewServerCallMeta(info.FullMethod, info, nil)
		if err := s.inject(stream.Context(), g, info.FullMethod, call); err != nil {
			return err
		}
	}
	return handler(srv, stream)
}
