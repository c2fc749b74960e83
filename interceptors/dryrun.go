package interceptors

import (
	"context"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/limiter"
)

// WithDryRun decides on the requests that one of the matchers selects, or on all if there is none, as always, but holds
// nobody to it: none is refused, none waits, and neither handlers nor callers see a pressure. What would have been refused
// is counted in the metric spillway.dry_run.refusals. It can be given more than once, and changed while serving; a stream
// is treated to its end as when it was opened. The matchers are asked in the tap too, where no message and no stream type
// is known yet; see [CriticalityFunc] for what they must not do there. The default is that all is in earnest.
//
// What would be refused is what comes beyond what the service finishes. It finishes as much as it can, also while it is so
// full that all is late: so the share that would be refused is right within a few hundredths from twice what the service
// can do, and up to a tenth too low nearer to it. It is too high where a service does less the more is in flight, for it
// shows what is lost, and it does not show what a limit that is fixed, or bounded, would hold back although the service
// could do it. See docs/operations.md for figures.
//
// A service that is overloaded by a dry run is overloaded for all. Requests in earnest beside it are given what it leaves,
// and those that there is no room for are refused.
func WithDryRun(matchers ...selector.Matcher) Option {
	return optionFunc(func(c *config) error {
		for _, m := range matchers {
			if err := notNil("WithDryRun", "selector.Matchers, or none for all requests", m); err != nil {
				return err
			}
		}
		c.dryRun.some = append(c.dryRun.some, matchers...)
		c.dryRun.all = c.dryRun.all || len(matchers) == 0
		return nil
	})
}

// dryRun says whose refusals are not in earnest.
type dryRun struct {
	all  bool
	some matchers
}

func (d *dryRun) match(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) bool {
	return d.all || d.some.match(ctx, method, info, req)
}

// seen returns the limiter that a request's handler and caller see: in a dry run, none.
func (s *Server) seen(r *limiter.Request) *limiter.Limiter {
	if r.DryRun {
		return nil
	}
	return s.limiter
}

// rehearsed counts what would have become of a request of a dry run that has returned its permit.
func (s *Server) rehearsed(r *limiter.Request, permit limiter.Permit) {
	if !r.DryRun {
		return
	}
	counters := s.metrics.learn(r.Method)
	if refusal := permit.Refusal(); refusal != nil {
		counters.rehearse(r.Criticality, refusal.Reason)
	} else {
		counters.admit(r.Criticality)
	}
}
