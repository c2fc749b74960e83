package lab

import (
	"sync"
	"time"
)

// What happens at one instant happens in an order that the scheduler chooses, and every figure hangs on it: who of
// two gets the last free worker, whether a deadline passes before a permit comes. So nothing that others can notice
// shares its nanosecond. Each kind of event has a place of its own in every sixteen:
//
//	0   a request comes
//	2   a request wakes from a sleep
//	4   the station changes, a point is added to the trace
//	6   a processor that is shared has done a job
//	8   the deadline of a request that came at 0
//	10  the deadline of one that came again, at 2
//
// No two requests come at the same instant, and [instants] lets no two wake at the same.
const apart = 16 * time.Nanosecond

const (
	wakePlace = 2 * time.Nanosecond
	tickPlace = 4 * time.Nanosecond
	jobPlace  = 6 * time.Nanosecond

	// deadlineLag is what every deadline is later than the scenario says: 8 of 16, and a whole microsecond, so that
	// gRPC, which sends most deadlines in those, does not round it.
	deadlineLag = time.Microsecond
)

// clock is the time in the bubble.
func clock() time.Duration { return time.Duration(time.Now().UnixNano()) }

// next returns the first instant of a place that is d or more after now, and not now itself.
func next(now, d, place time.Duration) time.Duration {
	return (now+max(d, 1)-place+apart-1)/apart*apart + place
}

// instants gives every request that sleeps an instant of its own to wake at.
type instants struct {
	mu     sync.Mutex
	wanted map[time.Duration]int // by instant, the lowest rank of those who want to wake then; ranks differ
}

func newInstants() *instants { return &instants{wanted: map[time.Duration]int{}} }

// sleep takes d, or somewhat longer. Of those who want to wake at the same instant the lowest rank does, whoever
// asked first, and the others try the next.
func (i *instants) sleep(d time.Duration, rank int) {
	for now, woken := clock(), false; !woken; d = 0 {
		at := next(now, d, wakePlace)
		i.mu.Lock()
		if lowest, ok := i.wanted[at]; !ok || rank < lowest {
			i.wanted[at] = rank
		}
		i.mu.Unlock()
		time.Sleep(at - now)
		i.mu.Lock()
		lowest, ok := i.wanted[at]
		if woken = ok && lowest == rank; woken {
			delete(i.wanted, at)
		}
		i.mu.Unlock()
		now = at
	}
}

// sleeper is somebody who can sleep.
type sleeper struct {
	instants *instants
	rank     int
}

func (s sleeper) sleep(d time.Duration) { s.instants.sleep(d, s.rank) }

// turn puts those in order who were let in at the same instant, when a permit came back or the limit rose: they go
// on one after the other.
func (s sleeper) turn() { s.sleep(0) }
