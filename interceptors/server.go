package interceptors

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// Server is the protection of one gRPC server, or of several that share a limiter. It is safe for concurrent use.
// Most callers want [ServerOptions]; a Server is for those who build their own chain of interceptors, want its
// [Server.Limiter], or change options while it serves, with [Server.SetOptions].
type Server struct {
	limiter  *limiter.Limiter
	metrics  *metrics
	loads    percentages
	marks    percentages
	answers  answers
	tapped   bool
	reported bool
	kept     *retained
	details  *details
	health   *health.Server
	work     *work
	reports  *loadReports

	policy  atomic.Pointer[policy]
	setting sync.Mutex         // held while policy and the limiter's shares are replaced, or read together
	shares  map[string]float64 // of WithLimiterOptions; nil where the limiter was given
}

// ServerOptions returns what protects a gRPC server, for [grpc.NewServer]. It needs no options. Like
// grpc.NewServer it panics on a bad one; [NewServer] returns the error instead.
//
// It sets grpc.InTapHandle, which a server can have only one of; [WithoutTap] leaves it out.
func ServerOptions(opts ...Option) []grpc.ServerOption {
	s, err := NewServer(opts...)
	if err != nil {
		panic(err)
	}
	return s.ServerOptions()
}

// NewServer returns the protection of a server, or an error that names the option that is wrong.
func NewServer(opts ...Option) (*Server, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	s := &Server{
		limiter:  c.limiter,
		tapped:   !c.withoutTap,
		reported: c.reported,
		kept:     newRetained(),
		details:  newDetails(),
		health:   health.NewServer(),
		work:     newWork(),
	}
	if s.limiter == nil {
		if s.limiter, err = limiter.New(c.limiterOptions...); err != nil {
			return nil, err
		}
		s.shares = sharesOf(s.limiter)
	}
	s.reports = newLoadReports(s.limiter)
	if err := s.put(c.policy); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(c.meterProvider, s.limiter); err != nil {
		return nil, err
	}
	return s, nil
}

// ServerOptions returns the tap and both interceptors as options for [grpc.NewServer]. The interceptors are
// chained: those of options before run outside of them, those of options after inside.
func (s *Server) ServerOptions() []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.UnaryInterceptor()),
		grpc.ChainStreamInterceptor(s.StreamInterceptor()),
	}
	if s.reported {
		opts = append(opts, s.reports.serverOptions()...)
	}
	if s.tapped {
		opts = append(opts, grpc.InTapHandle(s.TapHandle()))
	}
	return opts
}

// UnaryInterceptor returns the interceptor for unary calls.
func (s *Server) UnaryInterceptor() grpc.UnaryServerInterceptor { return s.unary }

// StreamInterceptor returns the interceptor for streams.
func (s *Server) StreamInterceptor() grpc.StreamServerInterceptor { return s.stream }

// TapHandle returns the handle that refuses before a message is read. It is only a shortcut: without it the
// interceptors decide alone.
func (s *Server) TapHandle() tap.ServerInHandle { return s.tap }

// Limiter returns the limiter in force.
func (s *Server) Limiter() *limiter.Limiter { return s.limiter }

// Close stops reporting metrics. Requests are still served and protected. It is safe to call twice.
func (s *Server) Close() error { return s.metrics.close() }
