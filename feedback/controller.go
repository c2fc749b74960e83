package feedback

import (
	"math"

	"github.com/spillway-go/spillway/littles"
)

// Sample is what one window of work showed. The limit was the same through the whole of it.
type Sample struct {
	littles.Window

	// Limit is the limit that was in force, in requests.
	Limit int

	// Peak is the highest number of requests in flight at any instant of the window.
	Peak int

	// Offered counts the requests that came, whatever became of them.
	Offered int64

	// Refused counts the requests that were turned away in the window for want of room.
	Refused int64

	// Waited counts the requests that found no permit free when they came, whether they got one later or not.
	Waited int64

	// Late counts the completions whose answer came past its deadline. They are no part of Good.
	Late int64

	// Overloaded counts the completions that failed because the service ran out of something.
	Overloaded int64

	// Work is what those who left were expected to take, each by its method, in requests of a typical one; Useful is
	// that part of it which belongs to Good, and Asked what those who came would take. They tell a shift of the mix from
	// a change of the service. Where Work is 0 all requests are alike, and are counted in their place.
	Work, Useful, Asked float64
}

// weighed returns the sample with Work, Useful and Asked, whoever made it.
func (s Sample) weighed() Sample {
	if !(s.Work > 0) {
		s.Work, s.Useful, s.Asked = float64(s.Completions), float64(s.Good), float64(s.Offered)
	}
	return s
}

// per returns an amount of work as a rate, per second.
func (s Sample) per(work float64) float64 { return float64(littles.PerSecond(work, s.Length())) }

// Bound reports whether the limit is what held the load back.
func (s Sample) Bound() bool { return s.Waited > 0 || s.Refused > 0 }

// Controller chooses the next limit.
//
// Update is called once for each closed window, never twice at a time, and returns the limit for the next
// one in requests. The caller clamps what it returns to its own bounds, and keeps the limit in force if
// Update panics.
type Controller interface {
	Update(Sample) int
}

// Fixed is a limit that never changes.
type Fixed int

// Update returns the fixed limit.
func (f Fixed) Update(Sample) int { return int(f) }

// round turns a computed limit into requests, at least 1; what is not a number gives the limit in force.
func round(limit float64, inForce int) int {
	if math.IsNaN(limit) {
		return inForce
	}
	return int(math.Round(min(max(limit, 1), math.MaxInt32)))
}
