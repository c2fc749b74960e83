package interceptors

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Drain ends the server's part in the service without losing what it has begun. It turns readiness off ([Server.Health]
// and [Server.ServeReady]), refuses new calls and streams with [ErrDraining], and waits until those that were there
// before have ended, calls in the line and idle streams too. gRPC's own services (health, reflection, load reports) are
// answered as before.
//
// It returns nil when nothing is left, or, when ctx ends first, an error that says how many calls and streams are, and
// that wraps the cause of ctx. It may be called at any time, from any goroutine, and again: each call waits for itself.
// A server that drains does so for good.
//
// Then comes [grpc.Server.GracefulStop], which closes connections, and at last, for what does not end, Stop:
//
//	err := protection.Drain(ctx)
//	stop := time.AfterFunc(grace, srv.Stop)
//	srv.GracefulStop()
//	stop.Stop()
//
// Refused callers go elsewhere where a retry policy of theirs lists UNAVAILABLE. Those that have none, and do not watch
// the health service either, see the error: turn readiness off some time before, with s.Health().Shutdown(), so that
// whoever sends them here can notice.
func (s *Server) Drain(ctx context.Context) error {
	s.health.Shutdown()
	s.work.drain()
	select {
	case <-s.work.done:
		return nil
	default:
	}
	select {
	case <-s.work.done:
		return nil
	case <-ctx.Done():
		calls, streams := s.work.left()
		return fmt.Errorf("interceptors: Drain: %d calls and %d streams left: %w", calls, streams, context.Cause(ctx))
	}
}

// Draining returns a channel that is closed when [Server.Drain] is called. It is for handlers of streams that wait for
// long, such as a Watch: nobody else can end them without losing something.
func (s *Server) Draining() <-chan struct{} { return s.work.draining }

// ErrDraining is the answer to new work while the server drains: the status UNAVAILABLE with an ErrorInfo of the reason
// DRAINING. An interceptor outside of these tells it by errors.Is from a callee's UNAVAILABLE.
var ErrDraining error = newDraining()

type draining struct{ status *status.Status }

func newDraining() *draining {
	return &draining{newStatus(codes.Unavailable, "spillway: this server is about to stop, ask another", "draining")}
}

func (d *draining) Error() string              { return d.status.String() }
func (d *draining) GRPCStatus() *status.Status { return d.status }

// turnAway counts a request that comes too late, and returns its answer.
func (s *Server) turnAway(ctx context.Context, p *policy, method string) error {
	criticality, why := p.criticalityOf(ctx, method)
	s.metrics.ignore(why)
	return s.metrics.learn(method).turnAway(criticality)
}

// work counts the calls and streams that are open. To enter and to leave takes one atomic addition each.
type work struct {
	word     atomic.Uint64 // sum of what is open, and drainBit
	draining chan struct{} // closed when the bit is set
	done     chan struct{} // closed when the bit is set and nothing is left
	finish   func()        // closes done, once
}

const (
	oneCall   = 1
	oneStream = 1 << 32
	drainBit  = 1 << 63
)

func newWork() *work {
	w := &work{draining: make(chan struct{}), done: make(chan struct{})}
	w.finish = sync.OnceFunc(func() { close(w.done) })
	return w
}

// enter counts a call or a stream, and reports false if it came too late.
func (w *work) enter(one uint64) bool {
	if w.word.Add(one) < drainBit {
		return true
	}
	w.leave(one)
	return false
}

func (w *work) leave(one uint64) {
	if w.word.Add(-one) == drainBit {
		w.finish()
	}
}

func (w *work) drain() {
	before := w.word.Or(drainBit)
	if before < drainBit {
		close(w.draining)
	}
	if before == 0 {
		w.finish()
	}
}

func (w *work) isDraining() bool { return w.word.Load() >= drainBit }

func (w *work) left() (calls, streams int) {
	word := w.word.Load() &^ drainBit
	return int(word % oneStream), int(word / oneStream)
}
