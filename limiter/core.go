package limiter

import (
	"context"

	"github.com/platinummonkey/go-concurrency-limits/core"
)

// Core returns the limiter as a core.Limiter of go-concurrency-limits, for programs that are written against that
// interface. Success, ignore and dropped count as OK, Ignored and Overload.
func (l *Limiter) Core() core.Limiter { return coreLimiter{l} }

type coreLimiter struct{ limiter *Limiter }

func (c coreLimiter) Acquire(ctx context.Context) (core.Listener, bool) {
	permit, err := c.limiter.Acquire(ctx)
	if err != nil {
		return nil, false
	}
	return listener{permit}, true
}

// listener returns its permit once, with the first outcome that it hears of.
type listener struct{ permit Permit }

func (l listener) OnSuccess() { l.permit.Release(OK) }
func (l listener) OnIgnore()  { l.permit.Release(Ignored) }
func (l listener) OnDropped() { l.permit.Release(Overload) }
