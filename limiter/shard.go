package limiter

import (
	"sync"
	"time"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/littles"
)

// shard is one part of the books of a limiter. Requests are spread over the shards so that goroutines on
// different processors do not wait for each other; the sum over all shards is the whole. A permit stays with
// the shard that gave it.
type shard struct {
	limiter *Limiter

	mu     sync.Mutex // guards all below; held for a few additions at a time
	slots  []slot
	free   int32 // head of the list of free slots, as index + 1; 0: none
	meter  littles.Meter
	came   census     // since the meter's window began
	left   departures // since the meter's window began
	slacks slacks     // since the meter's window began
	window tally      // since the meter's window began
	counts counts

	_ [64]byte // the next shard's mutex is on another cache line
}

// slot is the limiter's side of a permit. Slots are reused; the generation, odd while the slot is taken, tells a
// permit in force from one that was returned before.
type slot struct {
	generation uint32
	next       int32 // the next free slot, as index + 1, while this one is free
	weight     int32 // what it takes of the limit while it is not paused
	method     uint8
	paused     bool
	parked     bool // it stays paused; see park.go
	at         place
	work       float64       // as was counted when it came
	came       time.Duration // when it asked; start - came is its wait in the line, and elsewhere
	start      time.Duration // when the work started; a pause moves it forward
	deadline   time.Duration // 0: none
	pausedAt   time.Duration
	group      *group // where it is counted while it is not paused; nil: nowhere
}

// tally counts what a window's meter does not.
type tally struct {
	peak                                      int
	dry, earnest                              int64 // requests that found no permit free
	offered, refused, waited, late, overloads int64 // by weight
}

// admit gives a permit for work that starts now. inFlight is what is then in flight in all.
func (s *shard) admit(now, came time.Duration, c *claim, inFlight int) Permit {
	s.mu.Lock()
	if s.free == 0 {
		s.slots = append(s.slots, slot{})
		s.free = int32(len(s.slots))
	}
	index := s.free - 1
	taken := &s.slots[index]
	s.free = taken.next
	taken.generation++
	taken.came, taken.start, taken.deadline = came, now, c.deadline
	taken.paused, taken.parked = false, false
	taken.weight, taken.method = c.weight, c.method
	taken.at, taken.work = c.at, c.work()
	if taken.group != c.group { // most often none is used: spare the write of a pointer
		taken.group = c.group
	}
	taken.count(1)
	permit := Permit{shard: s, ticket: ticket{index, taken.generation}, sojourn: now - came}
	s.meter.Arrive(now, int(c.weight))
	s.window.peak = max(s.window.peak, inFlight)
	if came == now { // else it was counted when it came
		s.offer(c, now)
	}
	s.slacks.served = s.slacks.served || c.deadline > 0
	s.counts.admitted++
	s.mu.Unlock()
	return permit
}

// offer counts a request that comes now, which is 0 where nobody has read the clock. The caller holds the shard's mutex.
func (s *shard) offer(c *claim, now time.Duration) {
	if now > 0 && c.deadline > 0 {
		s.slacks.add(c.deadline - now)
	}
	s.came.add(c.at, c.work())
	s.window.offered += int64(c.weight)
}

// found counts a request that found no permit free.
func (t *tally) found(c *claim) {
	if c.dry != nil {
		t.dry++
	} else {
		t.earnest++
	}
}

// count counts what is in flight of the slot's group, if there is one: sign is 1 or -1. The caller holds the shard's
// mutex.
func (s *slot) count(sign int32) {
	if s.group != nil {
		s.group.inFlight.Add(sign * s.weight)
	}
}

// finish ends the work of a permit, and reports whether it was in force, and what it had in flight.
func (s *shard) finish(p Permit, now time.Duration, outcome Outcome) (inFlight int32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := &s.slots[p.slot]
	if held.generation != p.generation {
		return 0, false
	}
	if !held.paused {
		inFlight = held.weight
		held.count(-1)
	} else if !held.parked {
		held.start += now - held.pausedAt
		s.meter.Resume(now, int(held.weight))
	}
	stay := now - held.start
	switch {
	case outcome == OK && held.deadline > 0 && now > held.deadline, outcome == Ignored && held.nearDeadline(now):
		outcome = Late
	case outcome == Late && (held.deadline == 0 || now < held.deadline):
		outcome = Failed // somebody else's deadline
	}
	s.counts.finish(outcome)
	if held.parked { // long gone from what else is learned
		if slowest := &s.limiter.methods.slowest[held.method]; outcome == OK && int64(stay) > slowest.Load() {
			slowest.Store(int64(stay))
		}
		s.put(p)
		return 0, true
	}
	switch outcome {
	case Late:
		// What lost its time in the line, or elsewhere, is no sign that too much is in flight.
		if stay > held.start-held.came {
			s.window.late += int64(held.weight)
		}
	case Overload:
		s.window.overloads += int64(held.weight)
	}
	s.meter.Leave(now, int(held.weight), stay, outcome == OK)
	s.left.add(held.method, int(held.weight), stay, outcome == OK)
	s.put(p)
	return inFlight, true
}

// lateMargin is the part of its time before the deadline in which a request that is given up counts as late. The caller's
// timer runs out with ours, but the request was under way for some time before its deadline was set here, so that the
// caller's word often comes first. If all requests were given up, evenly over their time, no more of them would look
// late than the control law takes for chance.
const lateMargin = 1. / 32

// nearDeadline reports whether what is given up now has run out of time.
func (s *slot) nearDeadline(now time.Duration) bool {
	return s.deadline > 0 && float64(s.deadline-now) <= lateMargin*float64(s.deadline-s.came)
}

// cancel ends a permit without work, as if it had never been asked for, and returns what it had in flight: 0 also if it
// was not in force.
func (s *shard) cancel(p Permit, now time.Duration) (inFlight int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := &s.slots[p.slot]
	if held.generation != p.generation {
		return 0
	}
	if !held.paused {
		inFlight = held.weight
		held.count(-1)
		s.meter.Pause(now, int(held.weight))
	}
	s.meter.Withdraw(int(held.weight))
	s.came.add(held.at, -held.work)
	s.window.offered -= int64(held.weight)
	s.put(p)
	return inFlight
}

// taken reports whether a permit of the slot is in force.
func (s *slot) taken() bool { return s.generation%2 == 1 }

// put frees the slot of a permit, so that no copy of the permit is good any more.
func (s *shard) put(p Permit) {
	held := &s.slots[p.slot]
	if held.parked {
		s.limiter.parked.Add(-int64(held.weight))
	}
	held.generation++
	held.next = s.free
	s.free = p.slot + 1
}

// pause takes the work of a permit out of flight, and returns what was in flight before.
func (s *shard) pause(p Permit, now time.Duration) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := &s.slots[p.slot]
	if held.generation != p.generation || held.paused {
		return 0
	}
	held.paused, held.pausedAt = true, now
	held.count(-1)
	s.meter.Pause(now, int(held.weight))
	return held.weight
}

// resume undoes pause. What is in flight again is counted before anybody can release it.
func (s *shard) resume(p Permit, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := &s.slots[p.slot]
	if held.generation != p.generation || !held.paused || held.parked {
		return
	}
	held.paused = false
	held.count(1)
	held.start += now - held.pausedAt
	s.meter.Resume(now, int(held.weight))
	s.limiter.load.force(held.weight)
}

// wait counts a request that comes now and has to wait.
func (s *shard) wait(c *claim, now time.Duration) {
	s.mu.Lock()
	s.offer(c, now)
	s.window.found(c)
	s.window.waited++
	s.mu.Unlock()
}

// turnAway counts a request that is refused as it comes; now is as for offer.
func (s *shard) turnAway(c *claim, now time.Duration, reason Reason) {
	s.mu.Lock()
	s.offer(c, now)
	s.window.found(c)
	s.window.refused++
	s.counts.refused[reason]++
	s.mu.Unlock()
}

// drop counts a request that leaves the line without a permit.
func (s *shard) drop(reason Reason) {
	s.mu.Lock()
	s.window.refused++
	s.counts.refused[reason]++
	s.mu.Unlock()
}

// ignore counts a request that was over before it came: it says nothing about the load.
func (s *shard) ignore(reason Reason) {
	s.mu.Lock()
	s.counts.refused[reason]++
	s.mu.Unlock()
}

// read returns the counts since the start.
func (s *shard) read() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// completions returns how many have left in the open window.
func (s *shard) completions() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.Completions()
}

// roll closes the shard's window at now, adds it to the sample and returns what else was counted.
func (s *shard) roll(now time.Duration, sample *feedback.Sample, came *[places]float64, left *departures, p *patience) tally {
	s.mu.Lock()
	w, t := s.meter.Roll(now), s.window
	s.window = tally{}
	sample.Asked += s.came.drain(came)
	s.left.drain(left)
	s.slacks.drain(p)
	s.mu.Unlock()
	if sample.Length() == 0 {
		sample.Start, sample.End = w.Start, w.End
	}
	sample.Window = sample.Merge(w)
	sample.Peak = max(sample.Peak, t.peak)
	sample.Offered += t.offered
	sample.Refused += t.refused
	sample.Waited += t.waited
	sample.Late += t.late
	sample.Overloaded += t.overloads
	return t
}
