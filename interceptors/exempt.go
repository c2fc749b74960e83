package interceptors

import (
	"context"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
)

// exemptions say which requests are not limited, besides those that are always served.
type exemptions matchers

func (e exemptions) match(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) bool {
	return alwaysServed(method) || matchers(e).match(ctx, method, info, req)
}

// alwaysServed reports whether a method is of gRPC's own services: health, reflection and load reports.
func alwaysServed(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.") ||
		strings.HasPrefix(method, "/xds.service.orca.v3.OpenRcaService/")
}

// matchers select requests.
type matchers []selector.Matcher

func (m matchers) match(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) bool {
	if len(m) == 0 {
		return false
	}
	call := middleware.NewServerCallMeta(method, info, req)
	for _, matcher := range m {
		if matcher.Match(ctx, call) {
			return true
		}
	}
	return false
}
