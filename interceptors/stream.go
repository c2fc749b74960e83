package interceptors

import (
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/limiter"
)

func (s *Server) stream(srv any, inner grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info == nil || handler == nil || inner == nil {
		return errMisused
	}
	if s.exempt.match(inner.Context(), info.FullMethod, info, nil) {
		return handler(srv, inner)
	}
	permit, err := s.admit(inner.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	guarded := &serverStream{ServerStream: inner, server: s, method: info.FullMethod, permit: permit, opening: true}
	outcome := limiter.Panicked
	defer func() { guarded.take().Release(outcome) }()
	err = handler(srv, guarded)
	outcome = s.outcome(err)
	return err
}

// serverStream counts as in flight while a message is worked on: from the return of RecvMsg to the next call of
// it, less the time in SendMsg. So an idle stream costs nothing, a stream's lifetime is no service time, and a
// reader that does not read pins no permit.
type serverStream struct {
	grpc.ServerStream
	server *Server
	method string

	mu      sync.Mutex // guards the permit: RecvMsg and SendMsg may run at the same time
	permit  limiter.Permit
	opening bool // the permit is that of the opening, and no message was worked on
}

// RecvMsg returns the next message once there is a permit to work on it. Under overload it holds the message
// back instead of refusing it, so that HTTP/2 flow control stops the sender.
func (s *serverStream) RecvMsg(m any) error {
	s.rest()
	err := s.ServerStream.RecvMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	ctx := s.Context()
	criticality := s.server.criticalityOf(ctx, s.method)
	permit, refused := s.server.limiter.AcquireRequest(ctx, limiter.Request{Criticality: criticality, Patient: true})
	if refused != nil { // the stream has ended
		return s.server.refuse(ctx, s.server.metrics.learn(s.method), criticality, refused)
	}
	s.server.metrics.sojourn(ctx, permit.Sojourn(), criticality)
	s.mu.Lock()
	s.permit = permit
	s.mu.Unlock()
	return err // also after the last message there is work to do: the answer
}

// SendMsg blocks while the reader is slow; meanwhile no work is done here.
func (s *serverStream) SendMsg(m any) error {
	s.mu.Lock()
	permit := s.permit
	s.mu.Unlock()
	permit.Suspend()
	defer permit.Resume()
	return s.ServerStream.SendMsg(m)
}

// rest ends the work on the message before, if there was one.
func (s *serverStream) rest() {
	s.mu.Lock()
	permit, opening := s.permit, s.opening
	s.permit, s.opening = limiter.Permit{}, false
	s.mu.Unlock()
	if opening {
		permit.Cancel() // nothing was worked on yet
	} else {
		permit.Release(limiter.OK)
	}
}

// take returns what permit is held, and leaves none.
func (s *serverStream) take() limiter.Permit {
	s.mu.Lock()
	defer s.mu.Unlock()
	permit := s.permit
	s.permit = limiter.Permit{}
	return permit
}
