package interceptors

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if info == nil || handler == nil {
		return nil, errMisused
	}
	p := s.policy.Load()
	if !alwaysServed(info.FullMethod) {
		if !s.work.enter(oneCall) {
			return nil, s.turnAway(ctx, p, info.FullMethod)
		}
		defer s.work.leave(oneCall)
	}
	if p.exempt.match(ctx, info.FullMethod, nil, req) { // from the limit, not from what it carries on
		return handler(s.withCriticality(ctx, p, info.FullMethod), req)
	}
	md := p.incoming.metadata(ctx)
	asked := len(md[HandoverHeader]) > 0
	request := s.identify(ctx, p, info.FullMethod, md, nil, req)
	permit, err := s.admit(ctx, info.FullMethod, request)
	if err != nil {
		return nil, err
	}
	// Only now, for a refusal allocates nothing.
	ctx = limiter.ContextWithPermit(ctx, s.seen(&request), request.Criticality, permit)
	outcome := limiter.Panicked // what Release learns if the handler never returns
	defer func() {
		permit.Release(outcome)
		s.rehearsed(&request, permit)
	}()
	resp, err := handler(ctx, req)
	outcome = p.outcomeOf(err)
	if !request.DryRun {
		limiter.NoteMark(ctx, s.limiter.Mark(request.Criticality))
	}
	s.tell(ctx, asked, request.DryRun)
	forbidRetry(ctx, err)
	return resp, err
}

// errMisused answers a caller that is not gRPC and leaves out what gRPC never does.
var errMisused = status.Error(codes.Internal, "spillway: an interceptor was called without info or handler")

// identify returns what the limiter is asked for. Where nobody said how critical the request is, it is as an
// interceptor outside of ours may have put it into ctx.
func (s *Server) identify(
	ctx context.Context, p *policy, method string, md metadata.MD, info *grpc.StreamServerInfo, req any,
) limiter.Request {
	criticality, why := p.criticalityIn(ctx, method, md)
	s.metrics.ignore(why)
	if criticality == limiter.Unspecified {
		criticality = limiter.CriticalityFromContext(ctx)
	}
	return p.request(ctx, method, criticality, info, req)
}

// admit passes a request, or the opening of a stream, through the limiter. An error is ready to be returned.
func (s *Server) admit(ctx context.Context, method string, request limiter.Request) (limiter.Permit, error) {
	permit, err := s.limiter.AcquireRequest(ctx, request)
	counters := s.metrics.learn(method)
	if err != nil {
		return limiter.Permit{}, s.refuse(ctx, counters, request.Criticality, err)
	}
	if !request.DryRun { // else it is not known yet
		counters.admit(request.Criticality)
	}
	s.metrics.sojourn(ctx, permit.Sojourn(), request.Criticality)
	return permit, nil
}

// refuse counts a refusal and turns it into what the caller gets: a status and, as a trailer, when to retry.
func (s *Server) refuse(ctx context.Context, counters *methodCounters, criticality limiter.Criticality, err error) error {
	refusal, ok := err.(*limiter.Refusal)
	if !ok {
		return err
	}
	counters.refuse(criticality, refusal.Reason)
	answer := s.answers.to(refusal)
	if answer.trailer != nil {
		// It fails only outside of a gRPC server, where nobody reads trailers.
		_ = grpc.SetTrailer(ctx, answer.trailer)
	}
	return answer
}
