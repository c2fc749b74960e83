package limiter

import (
	"maps"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// maxMethods bounds what is remembered of methods. Those beyond are one.
const maxMethods = 256

const (
	// methodMemory is how many completions of a method its baseline remembers.
	methodMemory = 256

	// rested is after how many completions in calm times a method learns in those alone.
	rested = 32

	// usualStep is the part by which what is usually in flight goes up or down with a window: a median.
	usualStep = 1. / 64

	// quick is up to how many times as slow as in calm times a service may be, by the few of a window, and be calm.
	quick = 2

	// sudden is by how many times a window may differ from those before: then something else has changed than how
	// methods differ.
	sudden = 3
)

// methods learns how much a request of each method costs: a baseline, in requests of a typical one.
//
// Methods differ by constant factors, and what slows the service down slows all of them. So the time that a request
// will stay is its baseline times a slowness that is common to all. The slowness is found from all completions at once,
// and does not change when the mix of methods does: sum of stays / sum of baselines. A baseline learns only how a
// method differs from the others, whatever the service does meanwhile, and in calm times: where requests wait for each
// other in the service, they do so by as much for light ones as for heavy ones, so that methods look more alike than they
// are; and a limit that follows costs that follow the limit runs away. At .7 of what ten workers can do, those of 2 ms
// beside those of 100 ms stay for 6 ms in the mean, but for 2 ms while less than usual is in flight.
type methods struct {
	table     atomic.Pointer[map[string]uint8] // never changed, only replaced
	baselines [maxMethods]atomic.Uint64        // as float64; 0: not yet known
	typical   atomic.Uint64                    // of those who left lately, as float64; 0: not yet known

	mu sync.Mutex // held to replace the table

	// Of whoever closes the window:
	usual              float64             // in flight, the median of windows lately; 0: not yet known
	calmStay, calmWork float64             // of all together in calm windows, forgotten slowly
	seen, seenCalm     [maxMethods]float64 // completions of each method, up to methodMemory; those in calm windows
	ended              [maxMethods]float64 // those that ended well, ever; guarded by the limiter's mutex

	slowest [maxMethods]atomic.Int64 // in nanoseconds, of those that were parked and ended well; 0: none
}

// other is the method of those that have no name, or none that is remembered.
const other = 0

// find returns the number of a method.
func (m *methods) find(name string) uint8 {
	if name == "" {
		return other
	}
	if table := m.table.Load(); table != nil {
		return (*table)[name]
	}
	return other
}

// learn returns the number of a method, and gives it one if there are any left.
func (m *methods) learn(name string) uint8 {
	if number := m.find(name); number != other || name == "" {
		return number
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	table := map[string]uint8{}
	if known := m.table.Load(); known != nil {
		if number := (*known)[name]; number != other || len(*known) == maxMethods-1 {
			return number
		}
		table = maps.Clone(*known)
	}
	number := uint8(len(table) + 1)
	table[name] = number
	m.table.Store(&table)
	return number
}

// cost returns what a request of the method costs: its baseline, or the typical one while that is not known.
func (m *methods) cost(number uint8) float64 {
	if cost := math.Float64frombits(m.baselines[number].Load()); cost > 0 {
		return cost
	}
	if cost := math.Float64frombits(m.typical.Load()); cost > 0 {
		return cost
	}
	return 1
}

// visits are the requests of one method that left in a window, counted by weight.
type visits struct {
	count, good int64
	stay        float64 // of all together, in nanoseconds
}

// departures counts who left, by method. Most windows see few methods, so that it keeps a note of which.
type departures struct {
	visits [maxMethods]visits
	seen   [maxMethods / 64]uint64
}

func (d *departures) add(method uint8, weight int, stay time.Duration, good bool) {
	v := &d.visits[method]
	v.count += int64(weight)
	if good {
		v.good += int64(weight)
	}
	v.stay += float64(weight) * float64(stay)
	d.seen[method/64] |= 1 << (method % 64)
}

// drain adds the counts to others and forgets them.
func (d *departures) drain(into *departures) {
	for method, v := range d.all() {
		to := &into.visits[method]
		to.count += v.count
		to.good += v.good
		to.stay += v.stay
	}
	for i := range d.seen {
		into.seen[i] |= d.seen[i]
	}
	d.forget()
}

func (d *departures) forget() {
	for method := range d.all() {
		d.visits[method] = visits{}
	}
	d.seen = [len(d.seen)]uint64{}
}

// all ranges over the methods that were seen.
func (d *departures) all() func(func(uint8, visits) bool) {
	return func(yield func(uint8, visits) bool) {
		for i := range d.seen {
			for left := d.seen[i]; left != 0; left &= left - 1 {
				method := i*64 + bits.TrailingZeros64(left)
				if !yield(uint8(method), d.visits[method]) {
					return
				}
			}
		}
	}
}

// observe learns from those who left in a window, and returns the work that they were, and the part of it that was of
// use. Only who closes the window calls it.
func (m *methods) observe(d *departures, p pace, s feedback.Sample) (work, useful float64) {
	stay, count, expected := 0.0, 0.0, 0.0
	for method, v := range d.all() {
		stay += v.stay
		count += float64(v.count)
		expected += m.cost(method) * float64(v.count)
	}
	slow := p.slow // of the windows before: in this one, a heavy request that took long would be the measure of itself
	calm := m.isCalm(s, slow)
	if calm && m.calmWork > 0 {
		slow = m.calmStay / m.calmWork
	}
	if slow == 0 {
		slow = stay / count
	}
	now := stay / expected
	settled := sudden*now > slow && now < sudden*slow
	before, after := 0.0, 0.0
	for method, v := range d.all() {
		if settled && m.seen[method] > 0 {
			before += m.cost(method) * float64(v.count)
			after += m.follow(method, v, slow, calm) * float64(v.count)
		}
	}
	for method, v := range d.all() {
		// How methods differ is learned, not how slow the service is: the work of those that were known stays what it was.
		cost := m.cost(method)
		switch {
		case m.seen[method] == 0:
			cost = m.follow(method, v, slow, calm)
		case settled:
			cost *= before / after
		}
		m.set(method, cost)
		m.ended[method] += float64(v.good)
		work += cost * float64(v.count)
		useful += cost * float64(v.good)
	}
	if calm {
		m.calmStay += stay - m.calmStay/methodMemory
		m.calmWork += work - m.calmWork/methodMemory
	}
	m.typical.Store(math.Float64bits(work / count))
	return work, useful
}

// calm returns how many nanoseconds a request stays in calm times for each unit of its cost, 0 where that is not known.
func (m *methods) calm() float64 {
	if m.calmWork < feedback.MinCompletions {
		return 0
	}
	return m.calmStay / m.calmWork
}

func (m *methods) set(method uint8, cost float64) { m.baselines[method].Store(math.Float64bits(cost)) }

// isCalm reports whether less is in flight than usually, and no more than half of what may be, and the service was about
// as quick just now as it is in calm windows: then requests hardly wait for each other. What is known of the calm fades
// while it does not come back.
func (m *methods) isCalm(s feedback.Sample, slow float64) bool {
	inFlight := s.Concurrency()
	if m.usual == 0 {
		m.usual = inFlight
	}
	if inFlight >= m.usual {
		m.usual *= 1 + usualStep
		return false
	}
	m.usual *= 1 - usualStep
	if s.Bound() || inFlight > float64(s.Limit)/2 {
		return false
	}
	if m.calmWork > 0 && slow > quick*m.calmStay/m.calmWork {
		m.calmStay += m.calmStay / methodMemory
		return false
	}
	return true
}

// follow makes the baseline of a method follow its requests, and returns it.
func (m *methods) follow(method uint8, v visits, slow float64, calm bool) float64 {
	cost, count := m.cost(method), float64(v.count)
	seen := v.stay / count / slow
	if !(seen > 0) || math.IsInf(seen, 0) {
		return cost
	}
	known := m.seen[method]
	if calm {
		m.seenCalm[method] += count
	}
	switch {
	case known == 0:
		cost = seen
	case calm, known < methodMemory && m.seenCalm[method] < rested: // the first count alike, if nothing better is known
		cost += (seen - cost) * count / (count + known)
	default:
		count = 0
	}
	m.seen[method] = min(known+count, methodMemory)
	m.set(method, cost)
	return cost
}

// Method is what is known of a method. See [Limiter.Methods].
type Method struct {
	Name string
	Stay time.Duration // that a request takes from permit to release, as the service is now
}

// Methods returns what is known of each method that was named in [Request.Method] and has answered, in alphabetical
// order. At most 255 methods are told apart.
func (l *Limiter) Methods() []Method {
	l.mu.Lock()
	p := l.pace
	l.mu.Unlock()
	table := l.methods.table.Load()
	if table == nil {
		return nil
	}
	var all []Method
	for _, name := range slices.Sorted(maps.Keys(*table)) {
		if number := (*table)[name]; l.methods.baselines[number].Load() != 0 {
			all = append(all, Method{Name: name, Stay: p.stay(l.methods.cost(number))})
		}
	}
	return all
}
