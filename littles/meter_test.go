package littles

import (
	"testing"
	"time"
)

// What is withdrawn was in flight for a while, but never arrived and never left.
func TestWithdrawnRequestsNeverArrived(t *testing.T) {
	var m Meter
	m.Arrive(0, 3)
	m.Pause(time.Second, 2)
	m.Withdraw(2)
	m.Leave(2*time.Second, 1, 2*time.Second, true)
	w := m.Roll(2 * time.Second)
	if w.Arrivals != 1 || w.Completions != 1 || w.Area != 4 {
		t.Errorf("%d arrivals, %d completions, area %v; want 1, 1 and 4 (3 for a second, 1 for another)", w.Arrivals, w.Completions, w.Area)
	}
}
