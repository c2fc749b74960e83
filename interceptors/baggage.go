package interceptors

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/baggage"

	"github.com/spillway-go/spillway/limiter"
)

// CriticalityBaggageKey is the member of OpenTelemetry's baggage that says the same as [CriticalityHeader], with the
// same values, where [WithCriticalityBaggage] is given. What knows nothing of spillway, but hands baggage on, hands
// it on too.
const CriticalityBaggageKey = "spillway.criticality"

const (
	baggageHeader = "baggage"

	maxBaggage       = 8192 // bytes: what W3C Baggage makes everyone carry, and what OpenTelemetry reads at most
	maxBaggageMember = 256  // bytes of our own member, its properties included
)

// criticalityInBaggage returns what the baggage says that came as the metadata given or, where an OpenTelemetry
// propagator or the application has put one there, the baggage in ctx. The metadata has to be read in any case: in
// the tap no propagator has run yet, and in ctx a member that came twice is there once.
func criticalityInBaggage(ctx context.Context, values []string) (limiter.Criticality, ignored) {
	raw, why := findInBaggage(values)
	if why != notIgnored {
		return limiter.Unspecified, why
	}
	if member := baggage.FromContext(ctx).Member(CriticalityBaggageKey); member.Key() != "" {
		return parseLevel(member.Value())
	}
	if raw == "" {
		return limiter.Unspecified, notIgnored
	}
	// As a client of ours sends it: nothing is allocated. Whatever else can be said in a baggage is OpenTelemetry's to
	// parse, but only our member: the others cost nothing, and may be as wrong as they like.
	if key, name, _ := strings.Cut(raw, "="); strings.TrimSpace(key) == CriticalityBaggageKey {
		if criticality, why := parseLevel(strings.TrimSpace(name)); why == notIgnored {
			return criticality, why
		}
	}
	parsed, err := baggage.Parse(raw)
	if err != nil {
		return limiter.Unspecified, malformed
	}
	return parseLevel(parsed.Member(CriticalityBaggageKey).Value())
}

// findInBaggage returns our member as it was sent, or "". It allocates nothing.
func findInBaggage(values []string) (found string, why ignored) {
	size := -1 // a comma less than values
	for _, value := range values {
		if size += 1 + len(value); size > maxBaggage {
			return "", oversized
		}
		for member := range strings.SplitSeq(value, ",") {
			if !isOurMember(member) {
				continue
			}
			if found != "" {
				return "", doubled
			}
			found = member
		}
	}
	if len(found) > maxBaggageMember {
		return "", oversized
	}
	return found, notIgnored
}

// isOurMember reports whether a member of a baggage, as it is sent, is the criticality.
func isOurMember(member string) bool {
	if end := strings.IndexAny(member, "=;"); end >= 0 {
		member = member[:end]
	}
	return strings.TrimSpace(member) == CriticalityBaggageKey
}
