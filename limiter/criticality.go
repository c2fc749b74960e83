package limiter

import "context"

// Criticality says who is served first when not all can be: the four levels of Google's SRE book (Beyer et al.,
// Site Reliability Engineering, chapter 21, "Handling Overload").
type Criticality uint8

// The levels, from the first to be refused to the last.
const (
	Unspecified   Criticality = iota // nobody said: served as Critical
	Sheddable                        // partial or full unavailability is expected at times
	SheddablePlus                    // partial unavailability is expected
	Critical                         // visible to a user when it fails: the default
	CriticalPlus                     // seriously visible when it fails
)

const levels = 4 // Sheddable to CriticalPlus

// level returns the index of c in arrays of the four levels: 0 is refused first. What is out of range is
// served as the default, so that no value can harm.
func (c Criticality) level() int {
	if c == Unspecified || c > CriticalPlus {
		c = Critical
	}
	return int(c) - 1
}

// String returns the name that the level has on the wire, such as "CRITICAL_PLUS".
func (c Criticality) String() string {
	switch c {
	case Sheddable:
		return "SHEDDABLE"
	case SheddablePlus:
		return "SHEDDABLE_PLUS"
	case Critical:
		return "CRITICAL"
	case CriticalPlus:
		return "CRITICAL_PLUS"
	default:
		return "UNSPECIFIED"
	}
}

// MarshalText makes the level its name in JSON and the like.
func (c Criticality) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

type criticalityKey struct{}

// ContextWithCriticality returns a context whose requests [Limiter.Acquire] treats as of criticality c.
func ContextWithCriticality(ctx context.Context, c Criticality) context.Context {
	return context.WithValue(ctx, criticalityKey{}, c)
}

// CriticalityFromContext returns what [ContextWithCriticality] stored, or Unspecified.
func CriticalityFromContext(ctx context.Context) Criticality {
	c, _ := ctx.Value(criticalityKey{}).(Criticality)
	return c
}
