package limiter

import (
	"math"

	"github.com/spillway-go/spillway/feedback"
)

// memory learns for how many requests there is memory. Those that are inside are in flight, or handed over.
//
// A request holds at most what it allocates, and those in flight for a stay hold what the last collection of garbage
// found. So there is room for those, and for as many more as can each take all that one allocates. Of these fill may
// come. What the rest of the process allocates while a request is in flight counts as that one's.
//
// By the fixed point, where each holds a small part of what it allocates, up to fill / (1 - fill) = 4 times as many come
// as would fit if each held it all.
type memory struct {
	heard Memory
	mean  float64 // requests inside in the last window, which is as long as a stay
	held  float64 // requests inside that the last collection saw

	counted   uint64  // allocated before the open window
	allocated float64 // in the windows remembered
	done      float64 // requests that ended in them

	room int // requests that may be inside; 0: any number
}

const (
	fill          = 0.8 // beyond, garbage is collected ever more often
	memoryWindows = 8   // how many are remembered of what requests allocate
)

// learn takes in a window that has closed, and how many requests wait elsewhere.
func (m *memory) learn(s feedback.Sample, handed int64) {
	m.mean = s.Concurrency() + float64(handed)
	m.allocated += m.fresh() - m.allocated/memoryWindows
	m.done += float64(s.Completions) - m.done/memoryWindows
	m.counted = m.heard.Allocated
}

// fresh returns what was allocated in the open window.
func (m *memory) fresh() float64 { return max(0, float64(m.heard.Allocated)-float64(m.counted)) }

// observe takes in what was heard, and whether a collection has been since; it reports whether the room has changed.
func (m *memory) observe(heard Memory, collected bool, inside int) bool {
	if m.heard == (Memory{}) {
		m.counted = heard.Allocated // before the first request
	} else if inside == 0 && heard.Allocated > m.heard.Allocated {
		m.counted += heard.Allocated - m.heard.Allocated // by something else: no request was there
	}
	m.heard = heard
	if collected {
		m.held = min(float64(inside), m.mean)
	}
	before := m.room
	m.room = m.fits(float64(inside))
	return m.room != before
}

// fits returns how many requests may be inside.
func (m *memory) fits(inside float64) int {
	limit, used := float64(m.heard.Limit), float64(m.heard.Used)
	each := (m.allocated + m.fresh()) / (m.done + inside)
	if limit == 0 || !(each > 0) || math.IsInf(each, 1) {
		return 0
	}
	return int(max(1, min(maxWeight, fill*(m.held+(limit-used)/each))))
}
