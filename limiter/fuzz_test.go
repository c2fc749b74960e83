package limiter

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever comes, in whatever order: the limit holds at every admission, nothing is lost, and while a permit is free
// nobody waits. What a group is owed it is not refused, and others get no permit before.
func FuzzLimiter(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	f.Add([]byte("a burst, then a lull........................then more"))
	f.Add([]byte{250, 250, 250, 250, 3, 3, 3, 3, 3, 3, 9, 9, 9, 9, 9})
	f.Add([]byte{11, 201, 201, 201, 201, 11, 11, 11, 11, 75, 75, 75})
	f.Add([]byte("1 flood: ~}|~}|~}|~~~}~~~}~~~~~~~~~z~~~~z~}|, and once more: ~}|~}|~}|~~~}~~~}~~~~~~~~~z~~~~z~}|"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 300 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			tables := []map[string]float64{{"a": .3, "b": .5}, {"a": .1}, {}, {"a": .5, "b": .5}, {"b": 1}}
			f := fuzzed{l: mustNew(t, WithInitialLimit(3), WithMaxLimit(20), WithBulkheads(tables[0]))}
			if len(script) > 0 && script[0]%2 == 1 {
				f = fuzzed{l: mustNew(t, WithFixedLimit(fuzzedLimit), WithBulkheads(tables[0])), fixed: true}
			}
			for i, op := range script {
				if !f.fixed && op%64 == 63 {
					if err := f.l.SetBulkheads(tables[i%len(tables)]); err != nil {
						t.Fatal(err)
					}
				}
				f.ask(t, i%len(f.inFlight), op)
				f.check(t)
				if op%3 == 0 {
					f.pass(t, time.Millisecond)
					f.check(t)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			wantEmpty(t, f.l)
			if n := f.answered.Load(); n != int64(len(script)) {
				t.Fatalf("%d of %d answered", n, len(script))
			}
			s := f.l.Stats()
			sum := s.Admitted
			for _, n := range s.Refused {
				sum += n
			}
			if sum != uint64(len(script)) {
				t.Fatalf("%d counted, %d asked", sum, len(script))
			}
		})
	})
}

// fuzzed is a limiter with books of the test's own, by group.
type fuzzed struct {
	l        *Limiter
	fixed    bool // the limit and the bulkheads
	answered atomic.Int64
	inFlight [len(fuzzedGroups)]atomic.Int64
	admitted [len(fuzzedGroups)]atomic.Int64
}

var (
	fuzzedGroups  = [...]string{"", "a", "b", "unknown"}
	fuzzedWeights = [...]int{0, 1, 1, 1, 2, 1, 3, fuzzedLimit + 2}
)

const fuzzedLimit = 5 // where it is fixed

// groups returns what the limiter says of each group; those that it does not know have nothing.
func (f *fuzzed) groups() (all [len(fuzzedGroups)]Bulkhead) {
	for _, b := range f.l.Bulkheads() {
		all[slices.Index(fuzzedGroups[:], b.Name)] = b
	}
	return all
}

// ask sends a request of a group, which holds its permit for a while. Only its deadline refuses what is owed.
func (f *fuzzed) ask(t *testing.T, group int, op byte) {
	hold, patience := time.Duration(op%16)*time.Millisecond, time.Duration(op/16)*3*time.Millisecond
	weight := fuzzedWeights[int(op/8)%len(fuzzedWeights)]
	has := f.groups()[group]
	var refused atomic.Pointer[Refusal]
	go func() {
		defer f.answered.Add(1)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p, err := f.l.AcquireRequest(ctx, Request{
			Criticality: Criticality(op % 5),
			Tenant:      Tenant(op % 3),
			Patient:     op%11 == 0,
			Bulkhead:    fuzzedGroups[group],
			Method:      fuzzedGroups[op%4],
			Weight:      weight,
		})
		if err == nil {
			takes := int64(max(1, weight))
			if f.fixed {
				takes = min(takes, fuzzedLimit)
			}
			f.admitted[group].Add(1)
			f.inFlight[group].Add(takes)
			time.Sleep(hold)
			f.inFlight[group].Add(-takes)
			p.Release(Outcome(op % 7))
			p.Release(OK)
			return
		}
		var refusal *Refusal
		if errors.As(err, &refusal) {
			refused.Store(refusal)
		}
	}()
	synctest.Wait()
	owed := has.InFlight+has.Waiting < has.Guarantee
	if r := refused.Load(); owed && r != nil && r.Reason != ReasonDeadline && r.Reason != ReasonExpired {
		t.Fatalf("%+v was owed a permit and refused one: %v", has, r)
	}
}

// pass lets time pass. Who was owed a permit all the while, and got none, saw none go to those who are owed nothing.
func (f *fuzzed) pass(t *testing.T, d time.Duration) {
	before, ungrouped := f.groups(), f.admitted[0].Load()
	var admitted [len(fuzzedGroups)]int64
	for i := range admitted {
		admitted[i] = f.admitted[i].Load()
	}
	time.Sleep(d)
	synctest.Wait()
	for i, now := range f.groups() {
		owed := min(before[i].Waiting, before[i].Guarantee-before[i].InFlight, now.Waiting, now.Guarantee-now.InFlight) > 0
		if f.fixed && owed && f.admitted[i].Load() == admitted[i] && f.admitted[0].Load() != ungrouped {
			t.Fatalf("others were served before %+v", now)
		}
	}
}

func (f *fuzzed) check(t *testing.T) {
	s := f.l.Stats()
	if s.InFlight < 0 || s.Line < 0 || s.Limit < 1 || s.Limit > 20 || f.fixed && s.InFlight > s.Limit {
		t.Fatalf("%+v", s)
	}
	f.l.mu.Lock()
	next := f.l.line.next()
	f.l.mu.Unlock()
	if next != nil && s.InFlight+min(int(next.weight), s.Limit) <= s.Limit {
		t.Fatalf("%d wait while %d of %d are in flight, and %d more have room: a wake-up was lost", s.Line, s.InFlight, s.Limit, next.weight)
	}
	all, guaranteed := 0, 0
	for i, b := range f.groups() {
		n := int(f.inFlight[i].Load())
		all += n
		guaranteed += b.Guarantee
		// With other bulkheads in between, what is in flight may have come while there was none.
		if b.InFlight < 0 || b.Waiting < 0 || b.InFlight > n || f.fixed && b.Name != "" && b.InFlight != n {
			t.Fatalf("%+v, and %d in flight", b, n)
		}
	}
	// Where the limit moves, some may take less than they weigh.
	if all < s.InFlight || f.fixed && all != s.InFlight || guaranteed > s.Limit {
		t.Fatalf("%d in flight of all groups, %d guaranteed: %+v", all, guaranteed, s)
	}
}

// A naive twin of the line: a slice in the order of arrival, searched from end to end.
type naiveLine []naiveWaiter

type naiveWaiter struct {
	*waiter
	reserve int // its number among those that were put in reserve; 0: it has a place
}

// in returns those of a group, by criticality and then as they came.
func (n naiveLine) in(g *group) naiveLine {
	var all naiveLine
	for _, w := range n {
		if w.group == g {
			all = append(all, w)
		}
	}
	slices.SortStableFunc(all, func(a, b naiveWaiter) int { return b.level() - a.level() })
	return all
}

// head returns the first of a level who has a place, or the first in reserve if nobody has.
func (n naiveLine) head(level int) (head naiveWaiter) {
	for _, w := range n {
		switch {
		case w.level() != level:
		case w.reserve == 0:
			return w
		case head.waiter == nil || w.reserve < head.reserve:
			head = w
		}
	}
	return head
}

func (n naiveLine) next(groups []*group) *waiter {
	var best *waiter
	for _, g := range groups {
		if in := n.in(g); len(in) > 0 && g.owed() && (best == nil || in[0].came < best.came) {
			best = in[0].waiter
		}
	}
	for level := levels - 1; level >= 0 && best == nil; level-- {
		head := n.head(level)
		best = head.waiter
		if head.waiter == nil || head.group == nil || head.reserve > 0 {
			continue
		}
		for _, w := range n.in(head.group) {
			if w.level() == level {
				best = w.waiter // in the turn of the head
				break
			}
		}
	}
	return best
}

func (n naiveLine) worst(level int) *waiter {
	for at := range level {
		for _, w := range n {
			if w.level() == at && w.reserve == 0 {
				if w.patient {
					break // the oldest of its level stays
				}
				return w.waiter
			}
		}
	}
	return nil
}

func (n naiveLine) ahead(level int) (count int) {
	for _, w := range n {
		if w.level() >= level && w.reserve == 0 {
			count++
		}
	}
	return count
}

// find returns the index of a waiter, -1 if it is not there.
func (n naiveLine) find(w *waiter) int {
	return slices.IndexFunc(n, func(other naiveWaiter) bool { return other.waiter == w })
}

func FuzzLineAndItsNaiveTwin(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 100, 101, 5, 200, 6, 102})
	f.Add([]byte{0, 12, 8, 130, 130, 130})      // one in reserve is served in the turn of its group, before another
	f.Add([]byte{0, 12, 8, 193, 130, 130, 130}) // the same where it is owed a permit: it takes nobody's turn
	f.Add([]byte{19, 3, 193, 197, 130, 130})    // of two groups that are owed a permit, who came first
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 300 {
			return
		}
		groups := []*group{newGroup("a"), newGroup("b"), nil}
		fast := line{groups: groups[:2]}
		var naive naiveLine
		reserves := 0
		for i, op := range script {
			now := time.Duration(i)
			level := int(op % levels)
			g := groups[int(op/levels)%len(groups)]
			var gone *waiter
			switch {
			case op < 130:
				reserves++
				w := naiveWaiter{&waiter{
					claim:   claim{at: placeOf(level, 0), weight: 1, cost: 1, group: g},
					patient: op%5 == 0, came: now, reserved: g != nil && op/12%2 == 0,
				}, 0}
				if w.reserved {
					w.reserve = reserves
				}
				fast.push(now, w.waiter, false, pace{}, &threshold{})
				naive = append(naive, w)
			case op < 190:
				gone = naive.next(fast.groups)
				if gone == nil {
					break
				}
				// In whose turn?
				at := naive[naive.find(gone)]
				if head := naive.head(at.level()); at.reserve > 0 && !at.group.owed() && head.reserve == 0 && head.group == at.group {
					reserves++
					naive[naive.find(head.waiter)].reserve = reserves
				}
				fast.take(now, gone, pace{}, &threshold{})
				if gone.group != nil {
					gone.group.inFlight.Add(1)
				}
			case op < 215 && g != nil:
				g.guarantee.Store(int32(level))
			case op < 235 && g != nil:
				g.inFlight.Add(-min(1, g.inFlight.Load()))
			case len(naive) > 0:
				gone = naive[int(op)%len(naive)].waiter
				fast.remove(now, gone, pace{}, &threshold{})
			}
			naive = slices.DeleteFunc(naive, func(w naiveWaiter) bool { return w.waiter == gone })
			if fast.length != len(naive) || fast.next() != naive.next(fast.groups) || fast.worst(level) != naive.worst(level) || fast.ahead(level) != naive.ahead(level) ||
				fast.work(level) != float64(fast.ahead(level)) {
				t.Fatalf("after %d steps: %d %p %p %d, naive %d %p %p %d", i+1, fast.length, fast.next(), fast.worst(level), fast.ahead(level),
					len(naive), naive.next(fast.groups), naive.worst(level), naive.ahead(level))
			}
			grouped := 0
			for _, g := range fast.groups {
				in := naive.in(g)
				grouped += len(in)
				if g.ahead(0) != len(in) || len(in) > 0 && g.first() != in[0].waiter {
					t.Fatalf("after %d steps: %d of %s, naive %d", i+1, g.ahead(0), g.name, len(in))
				}
			}
			if fast.grouped != grouped {
				t.Fatalf("after %d steps: %d of groups, naive %d", i+1, fast.grouped, grouped)
			}
		}
	})
}
