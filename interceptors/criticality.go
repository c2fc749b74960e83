package interceptors

import (
	"context"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// CriticalityHeader is the request metadata in which a caller says how critical its request is: one of
// CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS and SHEDDABLE. Anything else, and more than one value, counts as
// nothing said. A caller cannot raise itself above CRITICAL, the default; see [WithCriticality].
const CriticalityHeader = "spillway-criticality"

// CriticalityFunc says how critical a request is. fullMethod is like "/package.Service/Method". It must be quick,
// must not wait and may be called from many goroutines; with the tap it runs on the goroutine that reads the
// connection, so that whatever it waits for delays every request on it.
type CriticalityFunc func(ctx context.Context, fullMethod string) limiter.Criticality

// parseCriticality reads the values of the header.
func parseCriticality(values []string) limiter.Criticality {
	if len(values) != 1 {
		return limiter.Unspecified
	}
	switch values[0] {
	case "CRITICAL_PLUS", "CRITICAL": // whoever calls is not trusted with more
		return limiter.Critical
	case "SHEDDABLE_PLUS":
		return limiter.SheddablePlus
	case "SHEDDABLE":
		return limiter.Sheddable
	default:
		return limiter.Unspecified
	}
}

func (s *Server) criticalityOf(ctx context.Context, method string) limiter.Criticality {
	if s.criticality != nil {
		return s.criticality(ctx, method)
	}
	return parseCriticality(metadata.ValueFromIncomingContext(ctx, CriticalityHeader))
}

// criticalityAtTap is the same, but reads the header where the tap has it at hand.
func (s *Server) criticalityAtTap(ctx context.Context, info *tap.Info) limiter.Criticality {
	if s.criticality != nil {
		return s.criticality(ctx, info.FullMethodName)
	}
	return parseCriticality(info.Header[CriticalityHeader])
}
