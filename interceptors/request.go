package interceptors

import (
	"context"

	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/limiter"
)

// WeightFunc says how much of the limit a request takes while it is in flight, in ordinary requests: 1 for most, and
// what is less counts as 1; see [limiter.Request]. fullMethod is like "/package.Service/Method". req is the message,
// nil where it is not read yet: in the tap, and when a stream opens. Of a stream it is asked for every message; the
// last time, when no more come, without one. What [CriticalityFunc] says about being quick holds here too.
type WeightFunc func(ctx context.Context, fullMethod string, req any) int

// request returns what the limiter is asked for. info is nil for unary calls, req where no message is read yet.
func (p *policy) request(
	ctx context.Context, method string, criticality limiter.Criticality, info *grpc.StreamServerInfo, req any,
) limiter.Request {
	r := limiter.Request{
		Criticality: criticality,
		Method:      method,
		Weight:      p.weigh(ctx, method, req),
		Bulkhead:    p.bulkheads.match(ctx, method, info, req),
		DryRun:      p.dryRun.match(ctx, method, info, req),
	}
	if p.tenant != nil {
		r.Tenant = p.tenant(ctx, method)
	}
	return r
}

func (p *policy) weigh(ctx context.Context, method string, req any) int {
	if p.weight == nil {
		return 1
	}
	return p.weight(ctx, method, req)
}
