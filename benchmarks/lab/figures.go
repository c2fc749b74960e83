package lab

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Figures are what a run gave.
type Figures struct {
	Case          string      `json:"case"`
	Contestant    string      `json:"contestant"`
	Seed          uint64      `json:"seed"`
	OfferedPerS   float64     `json:"offered_per_s"`
	GoodputPerS   float64     `json:"goodput_per_s"`
	ShareOfIdeal  float64     `json:"share_of_ideal"`
	WorkOfIdeal   float64     `json:"work_of_ideal"` // the same, but counted in work: what is asked where methods differ
	P50Ms         float64     `json:"p50_ms"`
	P99Ms         float64     `json:"p99_ms"`
	RefusalP99Ms  float64     `json:"refusal_p99_ms"`
	Refused       int         `json:"refused"`
	InVain        float64     `json:"in_vain"` // share of the station's work whose answer nobody waited for
	SuccessByTier []float64   `json:"success_by_tier"`
	ByTenant      []float64   `json:"success_by_tenant,omitempty"`
	ByMethod      []PerMethod `json:"by_method,omitempty"`
	RecoveryMs    float64     `json:"recovery_ms"` // from the last change until goodput is back at nine tenths of the ideal; -1: never

	Trace []Point `json:"-"`
}

// PerMethod are the figures of one method.
type PerMethod struct {
	Name        string  `json:"name"`
	Success     float64 `json:"success"`
	GoodputPerS float64 `json:"goodput_per_s"`
	ShareOfWork float64 `json:"share_of_work"` // of the work in all answers in time
}

func (m PerMethod) String() string {
	return fmt.Sprintf("%s %.3f, %.0f/s, %.2f of the work", m.Name, m.Success, m.GoodputPerS, m.ShareOfWork)
}

// Point is the state at an instant of a run.
type Point struct {
	At       time.Duration
	Offered  float64 // per second, since the point before
	Goodput  float64 // the same
	Ideal    float64 // the goodput that was possible at best
	Limit    int     // 0: the contestant shows none
	InFlight int     // handlers at work
	Line     int     // callers that wait for a handler to begin
}

// pointEvery is the time between the points of a trace.
const pointEvery = 100 * time.Millisecond

// figures are taken after the last handler has ended.
func (b *books) figures(c Contestant, seed uint64, best ideal) Figures {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.scenario
	for i := range len(b.trace) - 1 {
		b.trace[i+1].Ideal = tenth(best.answers, i) / pointEvery.Seconds()
	}
	seconds, from := (s.Length - s.Judged).Seconds(), s.Judged/tick
	f := Figures{
		Case: s.Name, Contestant: c.Name, Seed: seed,
		OfferedPerS: b.all.offered / seconds, GoodputPerS: b.all.good / seconds,
		ShareOfIdeal: b.all.good / sum(best.answers[from:]), WorkOfIdeal: b.all.work / sum(best.work[from:]),
		P50Ms: percentile(b.answers, 0.50), P99Ms: percentile(b.answers, 0.99), RefusalP99Ms: percentile(b.refusals, 0.99),
		Refused: len(b.refusals), SuccessByTier: shares(b.tiers), ByTenant: shares(b.tenants),
		RecoveryMs: b.recovery(best.answers), Trace: b.trace,
	}
	for i, m := range b.methods {
		f.ByMethod = append(f.ByMethod, PerMethod{s.Methods[i].Name, m.success(), m.good / seconds, m.work / max(b.all.work, math.SmallestNonzeroFloat64)})
	}
	if b.work > 0 {
		f.InVain = b.inVain / b.work
	}
	return f
}

// recovery is the time in ms from the last change of load or station until the goodput of what follows is at nine
// tenths of the ideal: of the next half second, or of as long as a hundred answers take, which is enough to tell
// nine tenths from noise. It is -1 where that never happens. The caller holds mu.
func (b *books) recovery(ideal []float64) float64 {
	changed := cmp.Or(b.scenario.Changed, b.scenario.Judged)
	for from := int(changed / pointEvery); ; from++ {
		good, possible := 0.0, 0.0
		for i := from; i < from+5 || possible < 100; i++ {
			if i+1 >= len(b.trace) || b.trace[i+1].At > b.scenario.Length+tick {
				return -1
			}
			good += b.trace[i+1].Goodput * pointEvery.Seconds() // the point at the end of this tenth
			possible += tenth(ideal, i)
		}
		if good >= 0.9*possible {
			return float64(time.Duration(from)*pointEvery-changed) / float64(ms)
		}
	}
}

// tenth returns how many answers were possible in a tenth of a second: none after the end.
func tenth(ideal []float64, i int) float64 {
	const ticks = int(pointEvery / tick)
	end := min((i+1)*ticks, len(ideal))
	return sum(ideal[min(i*ticks, end):end])
}

func sum(values []float64) float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total
}

// success is the share that was answered in time, 0 of none.
func (c counter) success() float64 { return c.good / max(1, c.offered) }

func shares(counters []counter) []float64 {
	out := make([]float64, len(counters))
	for i, c := range counters {
		out[i] = c.success()
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
