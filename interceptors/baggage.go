package interceptors

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/baggage"
	"google.golang.org/grpc/metadata"

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

// withBaggage returns a context in whose baggage, and in the baggage of whose outgoing metadata, the criticality is
// the one given: in the first for a propagator that runs after us and sends the baggage of the context, in the
// second where there is none. Of the context's other members none is sent: that is for a propagator to do.
func withBaggage(ctx context.Context, criticality limiter.Criticality) context.Context {
	name := criticality.String()
	inForce := baggage.FromContext(ctx)
	if inForce.Member(CriticalityBaggageKey).Value() != name {
		member, err := baggage.NewMember(CriticalityBaggageKey, name)
		if err != nil {
			return ctx
		}
		if inForce, err = inForce.SetMember(member); err != nil {
			return ctx
		}
		ctx = baggage.ContextWithBaggage(ctx, inForce)
	}
	ours := CriticalityBaggageKey + "=" + name
	values := metadata.ValueFromOutgoingContext(ctx, baggageHeader)
	if len(values) == 0 {
		return metadata.AppendToOutgoingContext(ctx, baggageHeader, ours)
	}
	// One value, since many a receiver reads only the first, and ours before the rest, since it may cut off the rest.
	members := []string{ours}
	for _, value := range values {
		for member := range strings.SplitSeq(value, ",") {
			if !isOurMember(member) {
				members = append(members, member)
			}
		}
	}
	joined := strings.Join(members, ",")
	if len(joined) > maxBaggage { // for our sake the receiver would throw away all of it
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md.Set(baggageHeader, joined)
	return metadata.NewOutgoingContext(ctx, md)
}
