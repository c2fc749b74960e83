package limiter

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	usageRows    = 4
	usageColumns = 1024 // 1 << usageBits
	usageBits    = 10
	usageSums    = 8 // a power of two

	// usageTicks is how many steps a memory is forgotten in: what is read is a thirtieth too old at most.
	usageTicks = 32

	// usageForgotten ticks are 16 memories. What is left of anything by then, a ten-millionth, counts as nothing.
	usageForgotten = 16 * usageTicks

	// usageMaxCost keeps sums far from the largest float32.
	usageMaxCost = 1e18
)

// usage remembers how much of the service each tenant has had lately, in 35 kB and constant time, whatever names
// are sent. It is safe for concurrent use, takes no lock and allocates nothing; only decay wants one caller at a time.
//
// It is a count-min sketch (G. Cormode and S. Muthukrishnan, Journal of Algorithms 55(1), 2005): a tenant has one
// cell in each row, shares it with whomever the hash puts there, and is read by the least of its cells. Cells that
// hold more than that anyway are not raised (the conservative update of C. Estan and G. Varghese, SIGCOMM 2002), so
// that a tenant reads too high only where all its cells are shared with others: never because of one abuser, and
// among 500 tenants by less than half a share. To take off the mean of the row instead (count-mean-min: F. Deng and
// D. Rafiei, 2007) would read a modest one of 500 half a share too low.
//
// Unlike the paper's, the cells forget: e^(-1/32) with every tick, 32 to a memory. A cell holds a sum and the tick
// at which that was right, and is brought up to date by whoever writes it next: there is no sweep, and a writer who
// is slow cannot mix two scales. Ticks come round after 2^32: 42 years at a memory of ten seconds. Sums keep 24 bits,
// so that a cost of less than a ten-millionth of what its tenant has had is lost.
//
// Names are cheap. A million of them from one caller are spread over all cells, and each looks light. The count of
// tenants is held at usageColumns, so that a share is never less than a thousandth of all that was spent, which is
// also what strangers add to a cell at most: in a flood of names nobody looks heavy who has had less than that,
// whoever has had much more still does, and the flood as a whole is not seen. Up to that bound everybody who has
// more than the mean looks heavier for each name that is added. Shares are fair only where a name costs something to
// get, such as that of an authenticated caller.
type usage struct {
	clock  atomic.Uint32           // in ticks
	count  atomic.Uint64           // what active returns; follows marked
	marked atomic.Uint64           // the sum of e^(-age), in memories, over all cells
	rest   float64                 // the part of a tick that has passed; only for decay
	left   [usageForgotten]float32 // what is left after so many ticks

	// spent is all that was spent, in parts. A tenant keeps to one of them, so that tenants on different
	// processors seldom meet. All of these are the bits of a float64.
	spent [usageSums]struct {
		sum atomic.Uint64
		_   [56]byte // the next one is on another cache line
	}
	cells [usageRows][usageColumns]atomic.Uint64 // of usageCell
}

func newUsage() *usage {
	u := &usage{}
	for age := range u.left {
		u.left[age] = float32(math.Exp(-float64(age) / usageTicks))
	}
	u.clock.Store(usageForgotten) // so that the zero cell is long forgotten
	u.recount()
	return u
}

// spend notes that the tenant has had a part of the service. The tenant is a hash that callers cannot foresee. Costs
// are in whatever unit, the same for all; what is not above 0 is none.
func (u *usage) spend(tenant uint64, cost float64) {
	if !(cost > 0) { // nor NaN
		return
	}
	if cost > usageMaxCost {
		cost = usageMaxCost
	}
	hash := usageHash(tenant)
	addFloat(&u.spent[hash%usageSums].sum, cost) // before the cells, so that nobody is seen to have more than all

	now := u.clock.Load()
	var seen [usageRows]usageCell
	var had, left [usageRows]float32
	least := float32(math.MaxFloat32)
	for row := range seen {
		seen[row] = usageCell(u.cell(row, hash).Load())
		had[row], left[row] = u.read(seen[row], now)
		if had[row] < least {
			least = had[row]
		}
	}
	// One cost above the least would be enough, were it not that the tenant may be spending on another processor,
	// with this row done and the others not: that must not pass for what a stranger has put here. With two costs
	// any two processors count in full. Where more of them meet within these nanoseconds some of it is lost, but
	// the least cell is always raised, so that a quarter is left at worst: who spends like that is heavy anyway.
	enough := least + 2*float32(cost)
	marked := float32(0)
	for row := range seen {
		sum, stamp := had[row]+float32(cost), now
		if had[row] >= enough {
			if left[row] == 1 {
				continue
			}
			sum = had[row]
		}
		if left[row] == 1 {
			stamp = seen[row].stamp() // may be ahead of now
		}
		if u.cell(row, hash).CompareAndSwap(uint64(seen[row]), uint64(newUsageCell(sum, stamp))) {
			marked += 1 - left[row]
		} else {
			marked += u.add(u.cell(row, hash), now, float32(cost))
		}
	}
	if marked > 0 {
		addFloat(&u.marked, float64(marked))
		u.recount()
	}
}

// add adds to a cell that somebody else has changed since it was looked at, most often for the same tenant, and
// returns by how much fresher the cell is now. It does not ask whether the cell holds enough: at worst the row counts
// like that of a plain count-min sketch.
func (u *usage) add(to *atomic.Uint64, now uint32, cost float32) (marked float32) {
	for {
		cell := usageCell(to.Load())
		had, left := u.read(cell, now)
		stamp := now
		if left == 1 {
			stamp = cell.stamp()
		}
		if to.CompareAndSwap(uint64(cell), uint64(newUsageCell(had+cost, stamp))) {
			return 1 - left
		}
	}
}

// shares returns how many fair shares the tenant has had lately: 1 is exactly its part, 100 a hundred times as much,
// 0 nothing. A fair share is all that was spent, divided by the number of active tenants, so that nobody has more
// shares than there are tenants.
func (u *usage) shares(tenant uint64) float64 {
	hash, now := usageHash(tenant), u.clock.Load()
	least := float32(math.MaxFloat32)
	for row := range usageRows {
		if had, _ := u.read(usageCell(u.cell(row, hash).Load()), now); had < least {
			least = had
		}
	}
	spent := 0.0
	for i := range u.spent {
		spent += math.Float64frombits(u.spent[i].sum.Load())
	}
	part := float64(least) / spent
	if !(part < 1) { // all of it, or decay came between the two, or 0/0
		if least == 0 {
			return 0
		}
		part = 1
	}
	return part * u.active()
}

// active returns how many tenants there were lately, from 1 to usageColumns. One counts for e^(-age), where age is
// the time since it last spent, in memories: it fades as what it spent does, so that a crowd that leaves does not
// make those who stay look heavier or lighter. One who spends ten times in a memory counts for .95 of one.
func (u *usage) active() float64 { return math.Float64frombits(u.count.Load()) }

// recount makes active follow marked.
//
// It is linear counting (K.-Y. Whang, B. T. Vander-Zanden and H. M. Taylor, ACM TODS 15(2), 1990): of m cells a part
// V stays empty, and n = -m ln(V). Here V is taken over all rows, and a cell that was used age memories ago is empty
// to a part of 1 - e^(-age). How much is in it does not matter: if that had to be some part of the mean, whoever took
// enough to raise the mean would be left alone in the count, with a single share. The count is right to a tenth, up
// to its bound, but for the one pair in 250 who share a cell of some row, and count for 1.75 as long as they are two.
func (u *usage) recount() {
	for {
		marked := u.marked.Load()
		empty := 1 - math.Float64frombits(marked)/(usageRows*usageColumns)
		count := float64(usageColumns)
		if empty > 1/math.E {
			count = max(1, -usageColumns*math.Log(empty))
		}
		u.count.Store(math.Float64bits(count))
		if u.marked.Load() == marked { // else another count may have been written over by ours
			return
		}
	}
}

// decay forgets: after a memory, e^-1 is left of what was spent. Less than a tick is saved up for the next call, so
// that it may be called as often as one likes. Time does not run backwards; a memory of 0 or less forgets everything.
func (u *usage) decay(elapsed, memory time.Duration) {
	if elapsed <= 0 {
		return
	}
	ticks := float64(usageForgotten)
	if memory > 0 {
		ticks = min(ticks, u.rest+float64(elapsed)/float64(memory)*usageTicks)
	}
	whole := math.Floor(ticks)
	u.rest = ticks - whole
	if whole == 0 {
		return
	}
	left := 0.0
	if whole < usageForgotten {
		left = math.Exp(-whole / usageTicks)
	}
	// In this order those who are looked up meanwhile look too light, and never too heavy.
	u.clock.Add(uint32(whole))
	scaleFloat(&u.marked, left)
	u.recount()
	for i := range u.spent {
		scaleFloat(&u.spent[i].sum, left)
	}
}

// usageHash spreads the bits of the hash, should it be a poor one: a column for each row from the top, one of the
// sums from the bottom.
func usageHash(tenant uint64) uint64 {
	high, low := bits.Mul64(tenant^0x9e3779b97f4a7c15, bits.RotateLeft64(tenant, 32)^0xd6e8feb86659fd93)
	return high ^ low
}

func (u *usage) cell(row int, hash uint64) *atomic.Uint64 {
	return &u.cells[row][hash<<(usageBits*row)>>(64-usageBits)]
}

// read returns what a cell holds now, and which part that is of what it once held.
func (u *usage) read(cell usageCell, now uint32) (had, left float32) {
	age := now - cell.stamp()
	if age < usageForgotten {
		left = u.left[age]
	} else if -age < usageForgotten { // a tick has passed since we looked at the clock
		left = 1
	}
	return cell.sum() * left, left
}

// usageCell is a sum, the bits of a float32 (low half), and the tick at which it was right (high half).
type usageCell uint64

func newUsageCell(sum float32, stamp uint32) usageCell {
	return usageCell(stamp)<<32 | usageCell(math.Float32bits(sum))
}

func (c usageCell) sum() float32  { return math.Float32frombits(uint32(c)) }
func (c usageCell) stamp() uint32 { return uint32(c >> 32) }

func addFloat(to *atomic.Uint64, x float64) {
	for {
		old := to.Load()
		if to.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+x)) {
			return
		}
	}
}

func scaleFloat(to *atomic.Uint64, by float64) {
	for {
		old := to.Load()
		if to.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)*by)) {
			return
		}
	}
}
