package lab

import (
	"math"
	"slices"
	"time"
)

// Figures are what a run gave.
type Figures struct {
	Case          string    `json:"case"`
	Contestant    string    `json:"contestant"`
	Seed          uint64    `json:"seed"`
	OfferedPerS   float64   `json:"offered_per_s"`
	GoodputPerS   float64   `json:"goodput_per_s"`
	ShareOfIdeal  float64   `json:"share_of_ideal"`
	P50Ms         float64   `json:"p50_ms"`
	P99Ms         float64   `json:"p99_ms"`
	RefusalP99Ms  float64   `json:"refusal_p99_ms"`
	Refused       int       `json:"refused"`
	InVain        float64   `json:"in_vain"` // share of the station's work whose answer nobody waited for
	SuccessByTier []float64 `json:"success_by_tier"`
	ByTenant      []float64 `json:"success_by_tenant,omitempty"`
	RecoveryMs    float64   `json:"recovery_ms"` // until goodput is back at nine tenths of the offered load, after the judging begins

	Trace []Point `json:"-"`
}

// Point is the state at an instant of a run.
type Point struct {
	At       time.Duration
	Offered  float64 // per second, since the point before
	Goodput  float64
	Limit    int
	InFlight int
	Line     int
}

// counter counts the requests of a tier or tenant.
type counter struct{ offered, good float64 }

func shares(counters []counter) []float64 {
	out := make([]float64, len(counters))
	for i, c := range counters {
		if c.offered > 0 {
			out[i] = c.good / c.offered
		}
	}
	return out
}

// percentile returns the p-quantile in ms, 0 of none. It sorts.
func percentile(values []time.Duration, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	v := values[max(0, int(math.Ceil(p*float64(len(values))))-1)]
	return float64(v) / float64(ms)
}
