package interceptors

import (
	"context"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
)

// exemptions say which requests are not limited, besides those that are always served.
type exemptions []selector.Matcher

// alwaysServed reports whether a method is of gRPC's own services: health, reflection and load reports.
func alwaysServed(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.") ||
		strings.HasPrefix(method, "/xds.service.orca.v3.OpenRcaService/")
}

func (e exemptions) match(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) bool {
	if alwaysServed(method) {
		return true
	}
	if len(e) == 0 {
		return false
	}
	call := middleware.NewServerCallMeta(method, info, req)
	for _, matcher := range e {
		if matcher.Match(ctx, call) {
			return true
		}
	}
	return false
}
