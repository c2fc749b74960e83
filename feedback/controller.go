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
}

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
