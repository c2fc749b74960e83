package idempotency

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Server answers calls with keys for one gRPC server, or for several. It is safe for concurrent use, and needs no
// closing: it has no goroutine.
type Server struct {
	config
	caller  CallerFunc
	metrics *metrics
}

// NewServer returns a Server, or an error that names what is wrong. Only who the callers are has no default, for it
// decides who can read whose answers.
func NewServer(caller CallerFunc, opts ...Option) (*Server, error) {
	if caller == nil {
		return nil, errors.New("idempotency: NewServer without a CallerFunc; want one that tells callers apart, such as CallerFromCertificate()")
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if c.store == nil {
		if c.store, err = NewMemory(Limits{}); err != nil {
			return nil, err
		}
	}
	m, err := newMetrics(c.meterProvider)
	if err != nil {
		return nil, err
	}
	return &Server{config: c, caller: caller, metrics: m}, nil
}

// ServerOptions returns both interceptors as options for [grpc.NewServer]. They are chained: they belong after those of
// Spillway and of whatever authenticates callers, and so inside of them.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.UnaryInterceptor()),
		grpc.ChainStreamInterceptor(s.StreamInterceptor()),
	}
}

// UnaryInterceptor returns the interceptor for unary calls.
func (s *Server) UnaryInterceptor() grpc.UnaryServerInterceptor { return s.unary }

// StreamInterceptor returns the interceptor for streams. It rejects those with a key, for whoever sends one relies on it.
func (s *Server) StreamInterceptor() grpc.StreamServerInterceptor { return s.stream }

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	key, err := keyOf(ctx)
	if key == "" && err == nil {
		return handler(ctx, req)
	}
	if err != nil {
		s.metrics.count(ctx, rejected)
		return nil, err
	}
	caller := s.caller(ctx, info.FullMethod)
	if caller == "" {
		s.metrics.count(ctx, rejected)
		return nil, errUnknownCaller
	}
	of, err := fingerprintOf(req)
	if err != nil {
		s.metrics.count(ctx, rejected)
		return nil, err
	}
	claim, answer, err := s.claim(ctx, ID{info.FullMethod, caller, key}, of)
	switch {
	case err != nil:
		return nil, s.unclaimed(ctx, err)
	case claim == nil:
		s.metrics.count(ctx, repeated)
		return decode(answer)
	default:
		return s.work(ctx, claim, req, handler)
	}
}

func (s *Server) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if key, err := keyOf(stream.Context()); key != "" || err != nil {
		s.metrics.count(stream.Context(), rejected)
		return errStream
	}
	return handler(srv, stream)
}

var (
	errStream        = status.Error(codes.InvalidArgument, "spillway: a stream came with "+Header+"; want it for unary calls only")
	errUnknownCaller = status.Error(codes.Unauthenticated, "spillway: a call came with "+Header+" from a caller that nobody knows")
	errHeld          = status.Error(codes.Unavailable, "spillway: this is still being worked on, repeat it later with the same key")
	errMismatch      = status.Error(codes.InvalidArgument, "spillway: the key in "+Header+" was used for another request; want a new one for each")
	errFull          = status.Error(codes.ResourceExhausted, "spillway: there is no room for more keys, and nothing was done; try again later")
	errStore         = status.Error(codes.Unavailable, "spillway: the store of idempotency keys fails, and nothing was done; repeat it with the same key")
	errUnstored      = status.Error(codes.Unavailable, "spillway: the answer could not be stored; repeat it with the same key")
)

// claim asks the store until it has more to say than that somebody else works on it. The pauses grow with the wait, so
// that an answer is late by an eighth at most, and they differ, so that not all who wait ask at once.
func (s *Server) claim(ctx context.Context, id ID, of Fingerprint) (Claim, []byte, error) {
	began := time.Now()
	for {
		claim, answer, err := s.store.Claim(ctx, id, of, s.lease)
		waited := time.Since(began)
		if !errors.Is(err, ErrHeld) || s.wait >= 0 && waited >= s.wait {
			return claim, answer, err
		}
		pause := min(max(waited/8, shortestPause), longestPause)
		pause -= time.Duration(rand.Int64N(int64(pause / 4)))
		if s.wait >= 0 {
			pause = min(pause, s.wait-waited)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

const (
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

// unclaimed counts a call that was not worked on, and returns its answer.
func (s *Server) unclaimed(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrHeld):
		s.metrics.count(ctx, held)
		return errHeld
	case errors.Is(err, ErrMismatch):
		s.metrics.count(ctx, mismatched)
		return errMismatch
	case errors.Is(err, ErrFull):
		s.metrics.count(ctx, full)
		return errFull
	case ctx.Err() != nil:
		s.metrics.count(ctx, held)
		return status.FromContextError(ctx.Err()).Err()
	default:
		s.metrics.count(ctx, failed)
		return errStore
	}
}

// work calls the handler and stores its answer, whether its caller still waits or not. If the handler panics, the claim
// ends with its lease, as that of a process that has died.
func (s *Server) work(ctx context.Context, claim Claim, req any, handler grpc.UnaryHandler) (any, error) {
	ends := time.Now().Add(s.lease)
	working, stop := context.WithDeadline(ctx, ends.Add(-s.lease/10))
	defer stop()
	resp, err := handler(working, req)

	storing, stop := context.WithDeadline(context.WithoutCancel(ctx), ends)
	defer stop()
	if err != nil && !s.final(err) {
		s.metrics.count(ctx, released)
		_ = claim.Release(storing) // or it ends with its lease
		return nil, err
	}
	if stored := put(storing, claim, resp, err); stored != nil {
		s.metrics.count(ctx, unstored)
		return nil, errUnstored
	}
	s.metrics.count(ctx, answered)
	return resp, err
}

// put stores an answer, or, where there is no room, that there was one.
func put(ctx context.Context, claim Claim, resp any, err error) error {
	answer, failure := encode(resp, err)
	if failure != nil {
		return failure
	}
	stored := claim.Put(ctx, answer)
	if errors.Is(stored, ErrFull) {
		stored = claim.Put(ctx, tooLarge(err))
	}
	return stored
}
