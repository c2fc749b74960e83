package interceptors

import (
	"context"

	"github.com/spillway-go/spillway/limiter"
)

// TenantFunc says on whose behalf a request is, or 0 for nobody's; see [limiter.TenantNamed]. fullMethod is like
// "/package.Service/Method". What [CriticalityFunc] says about being quick holds here too.
type TenantFunc func(ctx context.Context, fullMethod string) limiter.Tenant

// request returns what the limiter is asked for.
func (s *Server) request(ctx context.Context, method string, criticality limiter.Criticality) limiter.Request {
	r := limiter.Request{Criticality: criticality}
	if s.tenant != nil {
		r.Tenant = s.tenant(ctx, method)
	}
	return r
}
