package interceptors

import (
	"context"
	"errors"
	"io"
	"sync"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

func (s *Server) stream(srv any, inner grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info == nil || handler == nil || inner == nil {
		return errMisused
	}
	ctx := inner.Context()
	p := s.policy.Load()
	if !alwaysServed(info.FullMethod) {
		if !s.work.enter(oneStream) {
			return s.turnAway(ctx, p, info.FullMethod)
		}
		defer s.work.leave(oneStream)
	}
	if p.exempt.match(ctx, info.FullMethod, info, nil) { // from the limit, not from what it carries on
		ctx = s.withCriticality(ctx, p, info.FullMethod)
		return handler(srv, &middleware.WrappedServerStream{ServerStream: inner, WrappedContext: ctx})
	}
	request := s.identify(ctx, p, info.FullMethod, p.incoming.metadata(ctx), info, nil)
	permit, err := s.admit(ctx, info.FullMethod, request)
	if err != nil {
		return err
	}
	ctx = limiter.ContextWithLimiter(ctx, s.seen(&request), request.Criticality)
	request.Patient = true // from now on
	guarded := &serverStream{
		ServerStream: inner,
		ctx:          ctx,
		server:       s,
		policy:       p,
		method:       info.FullMethod,
		request:      request,
		permit:       permit,
		unused:       true,
		outside:      permit.Refusal() != nil,
	}
	outcome := limiter.Panicked
	defer func() {
		guarded.end(outcome)
		s.rehearsed(&request, permit)
	}()
	err = handler(srv, guarded)
	outcome = p.outcomeOf(err)
	s.tell(ctx, false, request.DryRun)
	forbidRetry(ctx, err)
	return err
}

// serverStream counts as in flight while a message is worked on: from the return of RecvMsg to the next call of
// it, less the time in SendMsg. So an idle stream costs nothing, a stream's lifetime is no service time, and a
// reader that does not read pins no permit.
type serverStream struct {
	grpc.ServerStream
	ctx     context.Context
	server  *Server
	policy  *policy
	method  string
	request limiter.Request // for every message
	outside bool            // a dry run would have refused the stream: its messages count nowhere

	mu     sync.Mutex // guards all below: RecvMsg, SendMsg and the handler's end may run at the same time
	permit limiter.Permit
	unused bool // nothing has been worked on with the permit: it is that of the opening, or of the last message's end
	ended  bool // the handler has returned: nobody would release another permit
}

// errEnded answers a goroutine that the handler has left behind.
var errEnded = status.Error(codes.Canceled, "spillway: the stream's handler has returned")

// Context returns the context of the stream with the criticality in force and, for the pressure, the limiter.
func (s *serverStream) Context() context.Context { return s.ctx }

// RecvMsg returns the next message once there is a permit to work on it. Under overload it holds the message
// back instead of refusing it, so that HTTP/2 flow control stops the sender.
func (s *serverStream) RecvMsg(m any) error {
	s.put(limiter.OK)
	err := s.ServerStream.RecvMsg(m)
	last := errors.Is(err, io.EOF)
	if err != nil && !last {
		return err
	}
	if s.outside {
		return err
	}
	ctx, request := s.ctx, s.request
	if last {
		request.Weight = s.policy.weigh(ctx, s.method, nil)
	} else {
		request.Weight = s.policy.weigh(ctx, s.method, m)
	}
	permit, refused := s.server.limiter.AcquireRequest(ctx, request)
	if refused != nil { // the stream has ended
		return s.server.refuse(ctx, s.server.metrics.learn(s.method), request.Criticality, refused)
	}
	s.server.metrics.sojourn(ctx, permit.Sojourn(), request.Criticality)
	if !s.hold(permit, last) {
		permit.Cancel()
		return errEnded
	}
	return err // also after the last message there may be work to do: the answer
}

// SendMsg blocks while the reader is slow; meanwhile no work is done here.
func (s *serverStream) SendMsg(m any) error {
	permit := s.use()
	permit.Suspend()
	defer permit.Resume()
	return s.ServerStream.SendMsg(m)
}

// hold keeps the permit for the next message, or for what follows the last. It reports false if the handler has
// returned meanwhile.
func (s *serverStream) hold(permit limiter.Permit, last bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.permit, s.unused = permit, last
	return true
}

// use returns the permit held, for work that shows: something is sent.
func (s *serverStream) use() limiter.Permit {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unused = false
	return s.permit
}

// put returns the permit held, if there is one. Without any work it would be a completion in no time, from
// which the limiter would learn what is not so.
func (s *serverStream) put(outcome limiter.Outcome) {
	s.mu.Lock()
	permit, unused := s.permit, s.unused
	s.permit, s.unused = limiter.Permit{}, false
	s.mu.Unlock()
	if unused && outcome == limiter.OK {
		permit.Cancel()
	} else {
		permit.Release(outcome)
	}
}

// end is the handler's: no permit is held from here on.
func (s *serverStream) end(outcome limiter.Outcome) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.put(outcome)
}
