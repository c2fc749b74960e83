package interceptors

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

// CriticalityHeader is the request metadata in which a caller says how critical its request is: one of
// CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS and SHEDDABLE. Anything else, and more than one value, counts as
// nothing said, and in the metric spillway.criticality.ignored. What is said is believed up to
// [WithCriticalityCeiling].
const CriticalityHeader = "spillway-criticality"

// CriticalityFunc says how critical a request is, or limiter.Unspecified to leave it to the next who may. fullMethod
// is like "/package.Service/Method". It must be quick, must not wait and may be called from many goroutines; with
// the tap it is asked twice, first on the goroutine that reads the connection, so that whatever it waits for delays
// every request on it. No interceptor has run there, so that ctx has the metadata and the peer, and nothing that another
// interceptor puts into it, such as who was authenticated: a function that needs that needs [WithoutTap]. Of a stream it is
// asked when the stream opens.
type CriticalityFunc func(ctx context.Context, fullMethod string) limiter.Criticality

// trust is how much is believed of what a caller says, and where it is looked for.
type trust struct {
	ceiling limiter.Criticality
	baggage bool
}

// criticality returns what the caller said in the metadata md or, second, in its baggage. Who said nothing, or
// nothing that could be read, gets Unspecified.
func (t trust) criticality(ctx context.Context, md metadata.MD) (limiter.Criticality, ignored) {
	criticality, why := parseCriticality(md[CriticalityHeader])
	if criticality == limiter.Unspecified && t.baggage {
		var whyNot ignored
		criticality, whyNot = criticalityInBaggage(ctx, md[baggageHeader])
		if why == notIgnored {
			why = whyNot
		}
	}
	return min(criticality, t.ceiling), why
}

// ignored says why what a caller said of its criticality was ignored, if it was.
type ignored uint8

const (
	notIgnored ignored = iota
	malformed          // no name of a level could look like this
	doubled            // said more than once
	oversized          // too long to be looked at
	unknown            // a name, but of no level

	ignoredReasons = int(unknown) + 1
)

func (i ignored) String() string {
	return [ignoredReasons]string{"", "malformed", "doubled", "oversized", "unknown"}[i]
}

// parseCriticality reads the values of the header.
func parseCriticality(values []string) (limiter.Criticality, ignored) {
	switch len(values) {
	case 0:
		return limiter.Unspecified, notIgnored
	case 1:
		return parseLevel(values[0])
	default:
		return limiter.Unspecified, doubled
	}
}

// maxLevelName is far more than the name of any level has, and little enough to look at.
const maxLevelName = 64

func parseLevel(name string) (limiter.Criticality, ignored) {
	switch name {
	case "CRITICAL_PLUS":
		return limiter.CriticalPlus, notIgnored
	case "CRITICAL":
		return limiter.Critical, notIgnored
	case "SHEDDABLE_PLUS":
		return limiter.SheddablePlus, notIgnored
	case "SHEDDABLE":
		return limiter.Sheddable, notIgnored
	}
	switch {
	case len(name) > maxLevelName:
		return limiter.Unspecified, oversized
	case strings.Contains(name, ","): // proxies may join two headers like this (RFC 9110, section 5.3)
		return limiter.Unspecified, doubled
	case !isName(name):
		return limiter.Unspecified, malformed
	default:
		return limiter.Unspecified, unknown
	}
}

// isName reports whether s looks like the name of a level, of whatever version.
func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != ""
}

// withCriticality returns a context with the criticality of a request, for the limiter, for the handler and for
// what the handler calls. Where nobody said anything, which is the plain path, it is ctx itself, with what an
// interceptor outside of ours may have put there.
func (s *Server) withCriticality(ctx context.Context, p *policy, method string) context.Context {
	criticality, why := p.criticalityOf(ctx, method)
	s.metrics.ignore(why)
	if criticality == limiter.Unspecified {
		return ctx
	}
	return limiter.ContextWithCriticality(ctx, criticality)
}

// criticalityOf asks the operator and then the caller.
func (p *policy) criticalityOf(ctx context.Context, method string) (limiter.Criticality, ignored) {
	return p.criticalityIn(ctx, method, p.incoming.metadata(ctx))
}

// criticalityAtTap is the same, but reads the metadata where the tap has it at hand.
func (p *policy) criticalityAtTap(ctx context.Context, info *tap.Info) (limiter.Criticality, ignored) {
	return p.criticalityIn(ctx, info.FullMethodName, info.Header)
}

// criticalityIn is the same for metadata that was looked up.
func (p *policy) criticalityIn(ctx context.Context, method string, md metadata.MD) (limiter.Criticality, ignored) {
	if criticality := p.criticalityByOperator(ctx, method); criticality != limiter.Unspecified {
		return criticality, notIgnored
	}
	return p.criticalityByCaller(ctx, md)
}

// criticalityByOperator asks those whose word is not clamped: the user's function, then the table.
func (p *policy) criticalityByOperator(ctx context.Context, method string) limiter.Criticality {
	if p.criticality != nil {
		if criticality := p.criticality(ctx, method); criticality != limiter.Unspecified {
			return bounded(criticality)
		}
	}
	return p.methods.criticality(method)
}

// criticalityByCaller believes the caller up to the ceiling. Below Critical the ceiling holds for silence too, which
// would otherwise be worth more than the truth.
func (p *policy) criticalityByCaller(ctx context.Context, md metadata.MD) (limiter.Criticality, ignored) {
	criticality, why := p.trust.criticality(ctx, md)
	if criticality == limiter.Unspecified && p.trust.ceiling < limiter.Critical {
		criticality = p.trust.ceiling
	}
	return criticality, why
}
