package limiter

import (
	"maps"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxMethods bounds what is remembered of methods. Those beyond are one.
const maxMethods = 256

// methodMemory is how many completions of a method its baseline remembers: so many that a baseline does not follow the
// swings of the limit, by which the law looks for the knee.
const methodMemory = 256

// methods learns how much a request of each method costs: a baseline, in requests of a typical one.
//
// Methods differ by constant factors, and what slows the service down slows all of them. So the time that a request
// will stay is its baseline times a slowness that is common to all. The slowness is found from all completions at once,
// and does not change when the mix of methods does: sum of stays / sum of baselines. A baseline learns only how a
// method differs from the others, whatever the service does meanwhile.
type methods struct {
	table     atomic.Pointer[map[string]uint8] // never changed, only replaced
	baselines [maxMethods]atomic.Uint64        // as float64; 0: not yet known
	typical   atomic.Uint64                    // of those who left lately, as float64; 0: not yet known

	mu sync.Mutex // held to replace the table
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
func (m *methods) observe(d *departures, p pace) (work, useful float64) {
	known, stays, all, count := 0.0, 0.0, 0.0, 0.0
	for method, v := range d.all() {
		if cost := math.Float64frombits(m.baselines[method].Load()); cost > 0 {
			known += cost * float64(v.count)
			stays += v.stay
		}
		all += v.stay
		count += float64(v.count)
	}
	slow := p.slow // as before, where all that left are of methods not seen yet
	switch {
	case known > 0:
		slow = stays / known
	case slow == 0:
		slow = all / count // the first of all
	}
	for method, v := range d.all() {
		cost := m.follow(method, v, slow)
		work += cost * float64(v.count)
		useful += cost * float64(v.good)
	}
	m.typical.Store(math.Float64bits(work / count))
	return work, useful
}

// follow makes the baseline of a method follow its requests, and returns it. Where nothing is known yet, not even how
// slow the service is, the method is the typical one.
func (m *methods) follow(method uint8, v visits, slow float64) float64 {
	cost := math.Float64frombits(m.baselines[method].Load())
	seen := v.stay / float64(v.count) / slow
	switch {
	case !(slow > 0) || !(seen > 0) || math.IsInf(seen, 0):
		return m.cost(method)
	case cost == 0:
		cost = seen
	default:
		cost += (seen - cost) * float64(v.count) / (float64(v.count) + methodMemory)
	}
	m.baselines[method].Store(math.Float64bits(cost))
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
