package interceptors

import (
	"context"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
)

// exemptions say which requests are not limited: gRPC's own health and reflection services, and what the user
// names.
type exemptions []selector.Matcher

func (e exemptions) match(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) bool {
	if strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.") {
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
