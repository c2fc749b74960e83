package interceptors

import (
	"context"
	"time"

	"google.golang.org/grpc/tap"
)

// tap refuses a request before its message is read, where the interceptor would surely refuse it. It runs on the
// goroutine that reads the connection, so it neither waits nor allocates, and it takes no permit, so that nothing
// can leak. A panic here would leave the whole connection stuck: a callback that panics lets its request pass,
// to be decided on (and to panic again, where it can be handled) in the interceptor.
func (s *Server) tap(ctx context.Context, info *tap.Info) (out context.Context, err error) {
	defer func() {
		if recover() != nil {
			out, err = ctx, nil
		}
	}()
	p := s.policy.Load()
	if s.work.isDraining() && !alwaysServed(info.FullMethodName) {
		if !s.kept.add(ctx, time.Now()) {
			return ctx, nil
		}
		criticality, why := p.criticalityAtTap(ctx, info)
		s.metrics.ignore(why)
		return ctx, s.metrics.known(info.FullMethodName).turnAway(criticality)
	}
	if p.exempt.match(ctx, info.FullMethodName, nil, nil) {
		return ctx, nil
	}
	criticality, why := p.criticalityAtTap(ctx, info)
	request := p.request(ctx, info.FullMethodName, criticality, nil, nil)
	refusal := s.limiter.Preview(ctx, request)
	if refusal == nil {
		return ctx, nil
	}
	now := time.Now()
	if !s.kept.add(ctx, now) {
		return ctx, nil
	}
	s.limiter.Refused(ctx, request, refusal)
	s.metrics.known(info.FullMethodName).refuse(criticality, refusal.Reason)
	s.metrics.ignore(why) // only here: of a request that passes, the interceptor counts it
	answer := s.answers.to(refusal)
	if !s.details.due(ctx, refusal.Reason, now) {
		answer = answer.brief
	}
	return ctx, answer
}
