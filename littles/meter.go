package littles

import "time"

// Meter integrates the number of requests in flight over time. Its zero value is ready for use at instant 0. A request
// that takes the room of n counts as n that come and go together.
//
// Instants must not go backwards; one that does counts as the latest instant seen, so that a clock that is
// set back costs precision and nothing else. A Meter is not safe for concurrent use.
type Meter struct {
	now      time.Duration // the latest instant seen
	inFlight int
	window   Window // but for its sums, which are kept in nanoseconds below:

	area, sum, squares float64
}

// NewMeter returns a meter whose first window starts at now.
func NewMeter(now time.Duration) Meter {
	return Meter{now: now, window: Window{Start: now, End: now}}
}

// InFlight returns the number of requests that have arrived and not left.
func (m *Meter) InFlight() int { return m.inFlight }

// Completions returns how many have left in the open window.
func (m *Meter) Completions() int64 { return m.window.Completions }

// Arrive counts n requests that enter at now.
func (m *Meter) Arrive(now time.Duration, n int) {
	m.advance(now)
	m.inFlight += n
	m.window.Arrivals += int64(n)
}

// Leave counts n requests that leave at now after a stay of the given length; good says that their answers were
// of use. A Leave without an Arrive is counted as a completion and leaves the number in flight at 0.
func (m *Meter) Leave(now time.Duration, n int, stay time.Duration, good bool) {
	m.Pause(now, n)
	m.window.Completions += int64(n)
	if good {
		m.window.Good += int64(n)
	}
	total := float64(n) * float64(max(0, stay))
	m.sum += total
	m.squares += total * total
}

// Pause takes n requests out of flight at now without completing them; Resume puts them back.
func (m *Meter) Pause(now time.Duration, n int) {
	m.advance(now)
	m.inFlight = max(0, m.inFlight-n)
}

// Resume puts n paused requests back in flight at now.
func (m *Meter) Resume(now time.Duration, n int) {
	m.advance(now)
	m.inFlight += n
}

// Withdraw counts n requests that are out of flight, and were not completed, as never arrived.
func (m *Meter) Withdraw(n int) { m.window.Arrivals -= int64(n) }

// Roll closes the window at now and starts the next one. The requests in flight stay in flight.
func (m *Meter) Roll(now time.Duration) Window {
	m.advance(now)
	const second = float64(time.Second)
	closed := m.window
	closed.End = m.now
	closed.Area = m.area / second
	closed.Sum, closed.Squares = m.sum/second, m.squares/(second*second)
	*m = Meter{now: m.now, inFlight: m.inFlight, window: Window{Start: m.now, End: m.now}}
	return closed
}

func (m *Meter) advance(now time.Duration) {
	if now <= m.now {
		return
	}
	m.area += float64(m.inFlight) * float64(now-m.now)
	m.now = now
}
