package limiter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// maxBulkheads keeps the choice of who is served next, which looks at all of them, under a microsecond.
const maxBulkheads = 64

// shareSlack is what decimal shares may be off by: ten of .1 add up to all, and .29 of 100 are 29.
const shareSlack = 1e-9

// WithBulkheads guarantees groups of requests a part of the limit each, by name: a share above 0, together at most 1.
// A request belongs to the group that it names in [Request.Bulkhead].
//
// What a group does not use is lent to whoever comes, so that no permit is kept idle for it. When the group comes back,
// the next permits that are returned go to it, before anything more critical, until it has what it is guaranteed: this
// takes a service time at most.
//
// Its requests may wait for that however long the line: as many as the group's own permits can serve in the time that a
// burst may wait in the line, and once the group asks for more than it is guaranteed, burst after burst, about as many
// as it is guaranteed permits. Only their deadline refuses those, or something more critical of their own group. What is
// in flight above the guarantee comes off that number, so that a group that wants more waits for it, and is refused,
// like all others.
//
// A guarantee is the share of the limit in force, rounded up. Where the limit is not enough for that, the smallest are
// rounded up first, and the others down, but each is at least one request as long as the limit is no less than the number
// of groups. Where the shares add up to 1, requests that belong to no group have only what the
// groups leave. [Limiter.SetBulkheads] changes the shares later. Given more than once, the tables add up, and the last
// share of a name holds. [New] rejects nil, an empty name, a share out of range, shares of more than 1 in all, and
// more than 64 groups. Tenants need none: they share by themselves.
func WithBulkheads(shares map[string]float64) Option {
	return optionFunc(func(c *config) error {
		if shares == nil {
			return fmt.Errorf("limiter: WithBulkheads(nil); want a table of shares by name, or leave the option out")
		}
		all := maps.Clone(c.bulkheads)
		if all == nil {
			all = map[string]float64{}
		}
		maps.Copy(all, shares)
		c.bulkheads = all
		return nil
	})
}

// checkShares returns an error that names the first share, in alphabetical order, that is out of range.
func checkShares(option string, shares map[string]float64) error {
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		share := shares[name]
		if name == "" {
			return fmt.Errorf("limiter: %s: a bulkhead without a name; want one that requests can give", option)
		}
		if !(share > 0 && share <= 1) { // nor NaN
			return fmt.Errorf("limiter: %s: the share %v of %q; want more than 0 and at most 1", option, share, name)
		}
		sum += share
	}
	if sum > 1+shareSlack {
		return fmt.Errorf("limiter: %s: shares of %.6g in all; want at most 1", option, sum)
	}
	if len(shares) > maxBulkheads {
		return fmt.Errorf("limiter: %s: %d bulkheads; want at most %d", option, len(shares), maxBulkheads)
	}
	return nil
}

// Bulkhead is what a group of requests has now. See [WithBulkheads].
type Bulkhead struct {
	Name      string
	Share     float64 // of the limit
	Guarantee int     // requests in flight that it can have, whatever the others want
	InFlight  int     // requests in flight, by weight; what is above the guarantee is borrowed
	Waiting   int     // requests that wait, by weight
}

// Bulkheads returns what is in force, in alphabetical order. Like [Stats], what comes and goes meanwhile may be off.
func (l *Limiter) Bulkheads() []Bulkhead {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Bulkhead, 0, len(l.line.groups))
	for _, g := range l.line.groups {
		all = append(all, Bulkhead{
			Name:      g.name,
			Share:     g.share,
			Guarantee: int(g.guarantee.Load()),
			InFlight:  int(g.inFlight.Load()),
			Waiting:   g.ahead(0),
		})
	}
	slices.SortFunc(all, func(a, b Bulkhead) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// SetBulkheads puts other shares in force, at once, in place of those of [WithBulkheads]; an empty table takes all
// guarantees away. It may be called at any time, and no request is refused for it: a group that keeps its name keeps
// its requests, and those of a group that is gone stay in flight or in the line like any others. A request belongs to
// the group that there was when it came. An error says what is wrong, and leaves the old shares in force.
func (l *Limiter) SetBulkheads(shares map[string]float64) error {
	if err := checkShares("SetBulkheads", shares); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.setBulkheads(now, shares)
	l.serveLocked(now)
	return nil
}

// setBulkheads replaces the table that newcomers look into. Groups that are gone are kept as long as they have
// requests: should the name come back, they count. The caller holds mu.
func (l *Limiter) setBulkheads(now time.Duration, shares map[string]float64) {
	table := make(map[string]*group, len(shares))
	for _, g := range l.line.groups {
		if _, stays := shares[g.name]; !stays {
			g.share = 0
			g.guarantee.Store(0)
			g.count(now, l.pace, 0)
			l.retired = append(l.retired, g)
		}
		table[g.name] = g
	}
	for _, g := range l.retired {
		table[g.name] = g
	}
	l.line.groups = make([]*group, 0, len(shares))
	for name, share := range shares {
		if table[name] == nil {
			table[name] = newGroup(name)
		}
		table[name].share = share
		l.line.groups = append(l.line.groups, table[name])
	}
	slices.SortFunc(l.line.groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(a.name, b.name))
	})
	maps.DeleteFunc(table, func(_ string, g *group) bool { return g.share == 0 })
	l.retired = slices.DeleteFunc(l.retired, func(g *group) bool {
		return g.share > 0 || g.inFlight.Load() == 0 && g.ahead(0) == 0
	})
	l.groups.Store(&table)
	l.divide(now)
}

// divide makes the guarantees follow the limit. The caller holds mu.
func (l *Limiter) divide(now time.Duration) {
	l.line.divide(int(l.limit.Load()))
	for _, g := range l.line.groups {
		g.count(now, l.pace, l.line.most)
	}
	for level := range l.line.reserves {
		var next *waiter
		for w := l.line.reserves[level].oldest; w != nil; w = next {
			next = w.links[byLine].next
			if w.group.guarantee.Load() == 0 { // nothing that it could wait for: it goes to the end of the line
				l.line.move(now, w, l.pace, &l.threshold)
			}
		}
	}
}

// divide shares out the limit. Rounded down, the guarantees fit into it; what is too much after those below 1 have been
// raised is taken from the largest. Groups are sorted by share, so that where not all can have one, the largest have.
// What is left rounds the guarantees up, the smallest first: they lack the most.
func (l *line) divide(limit int) {
	var guarantees [maxBulkheads]int
	left := limit
	for i, g := range l.groups {
		guarantees[i] = max(1, int(g.share*float64(limit)+shareSlack))
		left -= guarantees[i]
	}
	for ; left < 0; left++ {
		most := 0
		for i := range l.groups {
			if guarantees[i] >= guarantees[most] {
				most = i
			}
		}
		guarantees[most]--
	}
	for i, g := range slices.Backward(l.groups) {
		if left > 0 && float64(guarantees[i]) < g.share*float64(limit)-shareSlack {
			guarantees[i]++
			left--
		}
		g.guarantee.Store(int32(guarantees[i]))
	}
}

// group is a bulkhead: who of it is in flight and who waits.
//
// It has no permits of its own. While one is free and nobody waits, it is taken as if there were no groups, by the
// word of load alone, and counted here after that: until then the count is short of a request that met no line. While
// somebody waits, all permits go through the holder of the line's mutex, who counts each before the next. What is
// returned is taken off here before it is taken off the load, so that whoever serves the line for it sees what the
// group is owed. No wake-up hangs on these counts: they decide who gets a permit, never whether somebody does.
type group struct {
	name      string
	share     float64 // guarded by the limiter's mutex; 0 once the group is gone
	guarantee atomic.Int32
	inFlight  atomic.Int32
	most      atomic.Int32         // in flight and waiting, where only the guarantee gives them room; changed under the limiter's mutex
	burst     burst                // of who waits for the group's own permits; guarded by it
	waiting   [levels]atomic.Int32 // changed under it
	lanes     [levels]list         // the same waiters, in the order in which they are served; guarded by it
}

func newGroup(name string) *group {
	g := &group{name: name}
	for level := range g.lanes {
		g.lanes[level].by = byGroup
	}
	return g
}

// group returns that of a name, nil if there is none. The table is never changed, only replaced.
func (l *Limiter) group(name string) *group {
	if name == "" {
		return nil
	}
	return (*l.groups.Load())[name]
}

// owed reports whether the group has less than it is guaranteed.
func (g *group) owed() bool { return g.inFlight.Load() < g.guarantee.Load() }

// ahead returns how many of the group, by weight, would be served before a newcomer of the level.
func (g *group) ahead(level int) int {
	n := 0
	for i := level; i < levels; i++ {
		n += int(g.waiting[i].Load())
	}
	return n
}

// room reports whether a newcomer of the level may wait for what is guaranteed, though the line has no place for it.
func (g *group) room(level int) bool { return g != nil && g.free(level) > 0 }

// keeps reports whether one who waits may go on to.
func (g *group) keeps(w *waiter) bool { return g != nil && g.free(w.level()) >= 0 }

// free returns how many more may wait for what is guaranteed, if those below the level go.
func (g *group) free(level int) int {
	return int(g.most.Load()) - int(g.inFlight.Load()) - g.ahead(level)
}

// count brings most up to now: as many as are guaranteed are in flight; one more was had by chance, which must not leave
// the group short once it is given back; and those wait whom the group's own permits serve within its credit, or as many
// as are guaranteed, so that permits that come back together all find a taker. memory is how many all groups may have
// waiting. The caller holds the limiter's mutex, and has not yet made the change in who waits that it calls for.
//
// The credit is that of a line of the group's own: filled while the group leaves a part of its guarantee, and spent
// while more wait than may in any case.
func (g *group) count(now time.Duration, p pace, memory int) {
	guarantee, waiting := float64(g.guarantee.Load()), float64(g.ahead(0))
	if guarantee == 0 {
		g.most.Store(0)
		return
	}
	each := float64(p.service) / guarantee // the time from one of the group's own permits to the next
	load := (float64(g.inFlight.Load()) + waiting) / guarantee
	g.burst.count(now, p.fullCredit(), load, time.Duration(max(0, waiting-guarantee)*each))
	room := guarantee
	if each > 0 {
		room = max(room, min(float64(g.burst.credit)/each, g.share*float64(memory)))
	}
	g.most.Store(int32(min(guarantee+1+room, maxWeight)))
}

// wait returns how long a newcomer of the level waits for what is guaranteed. Who is owed a permit takes one of the
// next, whoever returns it; who is not waits for one of the group's own.
func (g *group) wait(level int, p pace) time.Duration {
	ahead, guarantee := g.ahead(level), int(g.guarantee.Load())
	before := int(g.inFlight.Load()) + ahead + 1 - guarantee // of those who have a permit or come first
	if before <= 0 {
		return p.wait(float64(ahead) * p.cost())
	}
	return time.Duration(before) * p.service / time.Duration(guarantee)
}

// first returns who of the group is served next, or nil.
func (g *group) first() *waiter {
	for i := levels - 1; i >= 0; i-- {
		if w := g.lanes[i].oldest; w != nil {
			return w
		}
	}
	return nil
}

// worst returns who of the group has to go when one of the level comes and there is no room: see line.worst.
func (g *group) worst(level int) *waiter {
	for i := range level {
		if w := g.lanes[i].oldest; w != nil && !w.patient {
			return w
		}
	}
	return nil
}

func (g *group) put(w *waiter, overtakes bool) {
	lane := &g.lanes[w.level()]
	lane.put(w, lane.behind(w, overtakes))
	g.waiting[w.level()].Add(w.weight)
}

func (g *group) remove(w *waiter) {
	g.lanes[w.level()].remove(w)
	g.waiting[w.level()].Add(-w.weight)
}

// owed returns who comes before everybody because its group is owed a permit, or nil. Among groups it is who came
// first.
func (l *line) owed() (first *waiter) {
	if l.grouped == 0 {
		return nil
	}
	for _, g := range l.groups {
		if !g.owed() {
			continue
		}
		if w := g.first(); w != nil && (first == nil || w.came < first.came) {
			first = w
		}
	}
	return first
}

// turn returns who is served when it is the waiter's turn in the line: of its group, who came first, even if it has
// no place in the line.
func (w *waiter) turn() *waiter {
	if w.group == nil {
		return w
	}
	return w.group.lanes[w.level()].oldest
}

// take takes who is served out of the line. One who has no place in it, and is owed nothing, was served in the turn
// of another of its group, and leaves it the place in reserve.
func (l *line) take(now time.Duration, w *waiter, p pace, t *threshold) {
	if w.reserved && !w.group.owed() {
		if other := l.queues[w.level()].oldest; other != nil && other.group == w.group {
			l.move(now, other, p, t)
		}
	}
	l.remove(now, w, p, t)
}

// move takes a waiter of a group from the line to the reserve, or back; in the group it stays where it is.
func (l *line) move(now time.Duration, w *waiter, p pace, t *threshold) {
	l.leave(now, w, p, t)
	w.reserved = !w.reserved
	l.stand(now, w, false, p, t)
}

// reserve makes room for a newcomer of the level where only its group has any, and returns 0, or why it cannot. The
// caller holds mu.
func (l *Limiter) reserve(now time.Duration, c *claim) Reason {
	level := c.at.level()
	if c.deadline > 0 && c.deadline-now < c.group.wait(level, l.pace)+l.pace.stay(c.cost) {
		return ReasonDeadline
	}
	l.makeRoom(now, c.group, level, 1)
	return 0
}

// makeRoom turns away one of the group of a lower level if so many more than wait would be too many. The caller holds
// mu.
func (l *Limiter) makeRoom(now time.Duration, g *group, level, more int) {
	if w := g.worst(level); w != nil && g.free(0) < more {
		l.turnAway(now, w, ReasonDisplaced)
	}
}

// evict takes a waiter's place in the line from it. One whose group has room for it waits on, in reserve. The caller
// holds mu.
func (l *Limiter) evict(now time.Duration, w *waiter, reason Reason) {
	if w.group.keeps(w) {
		l.makeRoom(now, w.group, w.level(), 0)
		l.line.move(now, w, l.pace, &l.threshold)
		return
	}
	l.turnAway(now, w, reason)
}
