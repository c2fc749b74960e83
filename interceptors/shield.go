package interceptors

import (
	"context"
	"errors"
	"sync"

	"github.com/spillway-go/spillway/limiter"
)

// WithCalleeLimit bounds the unary calls that are in flight to each target, so that a callee that hangs does not hold
// all goroutines and all memory of its caller. f returns the limiter of a target, the one that [grpc.NewClient] was
// given; it is asked once for each, and may return the same for several, or nil for none:
//
//	interceptors.WithCalleeLimit(func(string) *limiter.Limiter {
//		l, _ := limiter.New(limiter.WithFixedLimit(100))
//		return l
//	})
//
// A call that gets no permit waits in the limiter's line, or is not sent: [ErrNotSent]. The default is no bound: how
// many calls a caller can have waiting is for it to say. Beyond a hundred targets the others have none. [NewClient]
// rejects nil; [Client.SetOptions] rejects the option.
func WithCalleeLimit(f func(target string) *limiter.Limiter) ClientOption {
	return startClientOption{"WithCalleeLimit", func(c *clientConfig) error {
		c.shields.limiterOf = f
		return notNil("WithCalleeLimit", "a function", f)
	}}
}

// shields are the limiters of targets. The zero value has none.
type shields struct {
	limiterOf func(target string) *limiter.Limiter

	mu       sync.Mutex
	limiters map[string]*limiter.Limiter
}

// maxShields bounds their memory.
const maxShields = 100

func (s *shields) of(target string) *limiter.Limiter {
	if s.limiterOf == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.limiters[target]
	if known || len(s.limiters) >= maxShields {
		return l
	}
	if s.limiters == nil {
		s.limiters = map[string]*limiter.Limiter{}
	}
	l = s.limiterOf(target)
	s.limiters[target] = l
	return l
}

// enter returns the permit of a call to a target, or why there is none.
func (s *shields) enter(ctx context.Context, target, method string, c limiter.Criticality) (limiter.Permit, *notSent) {
	l := s.of(target)
	if l == nil {
		return limiter.Permit{}, nil
	}
	permit, err := l.AcquireRequest(ctx, limiter.Request{Criticality: c, Method: method})
	switch {
	case err == nil:
		return permit, nil
	case errors.Is(err, context.Canceled):
		return permit, errLeft
	case errors.Is(err, context.DeadlineExceeded):
		return permit, errWaited
	default:
		return permit, errCrowded
	}
}
