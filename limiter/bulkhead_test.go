package limiter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

type shares = map[string]float64

// flow is requests at a constant rate, each 10 ms of work.
type flow struct {
	Request
	rate     float64       // a second
	from, to time.Duration // when they come
	counted  time.Duration // those that come after that are counted

	asked, served int
	most          time.Duration // the longest wait of those served
}

// runFlows runs flows through the limiter until all is quiet. As long as its limit is 10, it is a pool of ten workers.
func runFlows(t *testing.T, l *Limiter, flows ...*flow) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, f := range flows {
		all.Go(func() {
			time.Sleep(f.from + time.Duration(i)*7*time.Microsecond)
			for n := range int((f.to - f.from).Seconds() * f.rate) {
				came := f.from + time.Duration(float64(n)/f.rate*float64(time.Second))
				all.Go(func() {
					time.Sleep(came - f.from)
					ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
					defer cancel()
					p, err := l.AcquireRequest(ctx, f.Request)
					if err == nil {
						time.Sleep(10 * time.Millisecond)
						p.Release(OK)
					}
					if came < f.counted {
						return
					}
					mu.Lock()
					defer mu.Unlock()
					f.asked++
					if err == nil {
						f.served++
						f.most = max(f.most, p.Sojourn())
					}
				})
			}
		})
	}
	all.Wait()
	wantEmpty(t, l)
	for _, b := range l.Bulkheads() {
		if b.InFlight != 0 || b.Waiting != 0 {
			t.Errorf("at the end %+v, want nothing in flight and nobody who waits", b)
		}
	}
}

// bulkhead returns what the group of a name has now.
func bulkhead(t testing.TB, l *Limiter, name string) Bulkhead {
	t.Helper()
	for _, b := range l.Bulkheads() {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("no bulkhead %q in %+v", name, l.Bulkheads())
	return Bulkhead{}
}

// What a group is guaranteed it gets, however much the others want and however critical they are.
func TestBulkheadHoldsInAFlood(t *testing.T) {
	for _, mine := range []Criticality{Sheddable, Critical} {
		for _, theirs := range []Criticality{Critical, CriticalPlus} {
			t.Run(fmt.Sprint(mine, " against ", theirs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
					group := &flow{Request: Request{Criticality: mine, Bulkhead: "mine"}, rate: 300, to: 2 * time.Second, counted: time.Second}
					flood := &flow{Request: Request{Criticality: theirs}, rate: 10_000, to: 2 * time.Second, counted: time.Second}
					runFlows(t, l, group, flood)
					if got := float64(group.served) / float64(group.asked); got < .98 || group.asked != 300 {
						t.Errorf("%.3f of %d requests served, want .98 of 300", got, group.asked)
					}
					if flood.served < 690 {
						t.Errorf("%d of the others served in a second, want the 700 that are left", flood.served)
					}
					if group.most > 20*time.Millisecond {
						t.Errorf("waited up to %v, want two service times at most", group.most)
					}
				})
			})
		}
	}
}

// A group whose bursts fit into its guarantee gets all of them served, though many more come at once than are
// guaranteed.
func TestGroupMayComeInBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
		flood := &flow{Request: Request{Criticality: CriticalPlus}, rate: 10_000, to: 3 * time.Second, counted: time.Second}
		flows := []*flow{flood}
		for at := 500 * time.Millisecond; at < 3*time.Second; at += 100 * time.Millisecond {
			burst := &flow{Request: Request{Bulkhead: "mine"}, rate: 20_000, from: at, to: at + time.Millisecond, counted: time.Second}
			flows = append(flows, burst)
		}
		runFlows(t, l, flows...)
		asked, served := 0, 0
		for _, burst := range flows[1:] {
			asked += burst.asked
			served += burst.served
		}
		if asked != 400 || served < 392 {
			t.Errorf("%d of %d served, want .98 of 400", served, asked)
		}
		if flood.served < 1550 {
			t.Errorf("%d of the others served in two seconds, want the 1600 that are left", flood.served)
		}
	})
}

// One that wants more than it is guaranteed, all the time, gets that and no more where others are more critical, and
// those that are served wait no longer than for permits that come back together.
func TestGroupThatWantsMoreWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
		group := &flow{Request: Request{Bulkhead: "mine"}, rate: 400, to: 3 * time.Second, counted: 2 * time.Second}
		flood := &flow{Request: Request{Criticality: CriticalPlus}, rate: 10_000, to: 3 * time.Second, counted: 2 * time.Second}
		runFlows(t, l, group, flood)
		if group.served < 294 || group.served > 312 || flood.served < 690 {
			t.Errorf("%d of the group and %d others served in a second, want 300 and 700", group.served, flood.served)
		}
		if group.most > 20*time.Millisecond {
			t.Errorf("waited up to %v, want two service times at most, though callers have 200ms", group.most)
		}
	})
}

// Where there is memory for few, no group has more than its part of them waiting, but for as many as it is guaranteed.
func TestRoomOfAGroupFitsIntoTheMemory(t *testing.T) {
	l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
	g := l.group("mine")
	p := pace{service: time.Millisecond, slack: time.Hour}
	for now, c := range []struct{ memory, want int }{{math.MaxInt, maxWeight}, {100, 3 + 1 + 30}, {5, 3 + 1 + 3}} {
		g.count(time.Duration(now+1)*time.Hour, p, c.memory)
		if got := int(g.most.Load()); got != c.want {
			t.Errorf("memory for %d: %d in flight and waiting, want %d", c.memory, got, c.want)
		}
	}
}

// Without the guarantee the same requests get nothing: the flood is one.
func TestWithoutBulkheadTheFloodTakesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
		unknown := &flow{Request: Request{Bulkhead: "unknown"}, rate: 300, to: 2 * time.Second, counted: time.Second}
		flood := &flow{Request: Request{Criticality: CriticalPlus}, rate: 10_000, to: 2 * time.Second}
		runFlows(t, l, unknown, flood)
		if unknown.served != 0 {
			t.Errorf("%d requests of an unknown group served, want none", unknown.served)
		}
	})
}

// Alone, anybody can use the whole limit. When the owner comes back it has its share after one service time.
func TestUnusedPartsAreLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"a": .3, "b": .6}))
		a := &flow{Request: Request{Criticality: CriticalPlus, Bulkhead: "a"}, rate: 5_000, to: 2 * time.Second, counted: time.Second}
		b := &flow{Request: Request{Criticality: Sheddable, Bulkhead: "b"}, rate: 2_000, from: time.Second, to: 2 * time.Second}
		go func() {
			time.Sleep(999 * time.Millisecond)
			synctest.Wait()
			if got := bulkhead(t, l, "a"); got.InFlight != 10 {
				t.Errorf("alone, %+v; want the whole limit of 10", got)
			}
			time.Sleep(time.Millisecond + 10*time.Millisecond + time.Millisecond) // b comes; a service time; a moment
			for range 900 {
				synctest.Wait() // until what is returned at this instant has been given
				if got := bulkhead(t, l, "b"); got.InFlight < 6 {
					t.Errorf("with its owner back, %+v; want 6 in flight", got)
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		runFlows(t, l, a, b)
		if a.served < 390 || a.served > 420 {
			t.Errorf("%d of a served in the second second, want the 400 that b left", a.served)
		}
		if b.served < 590 {
			t.Errorf("%d of b served in a second, want its 600", b.served)
		}
	})
}

// While all want more than there is, nobody has less than is guaranteed, at any instant, and the limit holds.
func TestBulkheadsAreExactWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"a": .3, "b": .41}))
		flood := func(c Criticality, name string) *flow {
			return &flow{Request: Request{Criticality: c, Bulkhead: name}, rate: 3_000, to: time.Second, counted: 500 * time.Millisecond}
		}
		a, b, none := flood(Sheddable, "a"), flood(SheddablePlus, "b"), flood(CriticalPlus, "")
		go func() {
			time.Sleep(50 * time.Millisecond)
			for range 9000 {
				time.Sleep(100 * time.Microsecond)
				synctest.Wait()
				if s, a, b := l.Stats(), bulkhead(t, l, "a"), bulkhead(t, l, "b"); s.InFlight != 10 || a.InFlight != 3 || b.InFlight != 5 {
					t.Errorf("%d in flight, %+v, %+v; want 10, 3 and 5", s.InFlight, a, b)
					return
				}
			}
		}()
		runFlows(t, l, a, b, none)
		for want, f := range map[int]*flow{150: a, 250: b, 100: none} {
			if f.served < want-6 || f.served > want+12 { // the flows end one by one
				t.Errorf("%d of %q served in half a second, want %d", f.served, f.Bulkhead, want)
			}
		}
	})
}

// Who is owed a permit waits before all others, also those who came first and are more critical.
func TestOwedWaitsAtTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(4), WithBulkheads(shares{"mine": .5}))
		held := []Permit{mustAcquire(t, l), mustAcquire(t, l), mustAcquire(t, l), mustAcquire(t, l)}
		var order []string
		ask := func(name string, c Criticality) {
			go func() {
				_, err := l.AcquireRequest(t.Context(), Request{Criticality: c, Bulkhead: name})
				if err != nil {
					t.Errorf("%q, %v: %v", name, c, err)
				}
				order = append(order, name+" "+c.String())
			}()
			synctest.Wait()
		}
		ask("", CriticalPlus)
		ask("mine", Sheddable)
		ask("mine", Sheddable)
		ask("mine", Critical)
		for i, want := range []string{"mine CRITICAL", "mine SHEDDABLE", " CRITICAL_PLUS", "mine SHEDDABLE"} {
			held[i].Release(OK)
			synctest.Wait()
			if len(order) != i+1 || order[i] != want {
				t.Fatalf("served %q, want %q next", order, want)
			}
		}
	})
}

// spendGroupCredit leaves the groups room for as many as are guaranteed, and for one by chance.
func spendGroupCredit(l *Limiter) {
	for _, g := range l.line.groups {
		g.burst = burst{counted: l.now()}
		g.count(l.now(), l.pace, l.line.most)
	}
}

// fillLine takes all permits and all places in the line for the most critical, until newcomers are refused.
func fillLine(t *testing.T, l *Limiter) (held []Permit) {
	t.Helper()
	work(t, l, 100)
	for range l.Stats().Limit {
		held = append(held, mustAcquire(t, l))
	}
	spendCredit(l)
	spendGroupCredit(l)
	for range shortLine {
		go func() { _, _ = l.AcquireRequest(t.Context(), Request{Criticality: CriticalPlus}) }()
		synctest.Wait()
	}
	if _, err := l.AcquireRequest(t.Context(), Request{Criticality: CriticalPlus}); err == nil {
		t.Fatal("the line has no end")
	}
	return held
}

// However long the line, as many of a group have room as it is guaranteed permits, as many again, and one more: the most
// critical of them.
func TestGroupHasRoomOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(4), WithBulkheads(shares{"mine": .5}))
		held := fillLine(t, l)
		verdicts := make(chan Reason, 10)
		ask := func(c Criticality) Reason {
			r := Request{Criticality: c, Bulkhead: "mine"}
			preview := l.Preview(t.Context(), r)
			go func() {
				p, err := l.AcquireRequest(t.Context(), r)
				var refusal *Refusal
				if errors.As(err, &refusal) {
					verdicts <- refusal.Reason
					return
				}
				verdicts <- 0
				p.Release(OK)
			}()
			synctest.Wait()
			if preview != nil {
				return preview.Reason
			}
			return 0
		}
		const room = 2 + 2 + 1
		for range room {
			if got := ask(Sheddable); got != 0 {
				t.Errorf("Preview of a request that is owed a permit: %v, want none", got)
			}
		}
		if got := bulkhead(t, l, "mine"); got.Waiting != room || len(verdicts) != 0 {
			t.Fatalf("%+v and %d refused, want %d who wait", got, len(verdicts), room)
		}
		if got := ask(Sheddable); got == 0 || <-verdicts != got {
			t.Errorf("one more: Preview says %v and Acquire something else", got)
		}
		if got := ask(Critical); got != 0 {
			t.Errorf("Preview of a more critical one: %v, want none", got)
		}
		if got := <-verdicts; got != ReasonDisplaced {
			t.Errorf("the worst of the group: %v, want displaced by a better one", got)
		}
		if got := bulkhead(t, l, "mine"); got.Waiting != room {
			t.Errorf("%+v, want %d who wait", got, room)
		}
		held[0].Release(OK)
		synctest.Wait()
		if len(verdicts) != room {
			t.Fatalf("%d answered after a release, want all who wait: each releases at once", len(verdicts))
		}
		for range room {
			if got := <-verdicts; got != 0 {
				t.Errorf("refused: %v", got)
			}
		}
		for _, p := range held {
			p.Release(OK)
		}
	})
}

// What was had by chance costs the group nothing; with more than its own permits serve soon it waits like all others.
func TestGroupThatHasBorrowedHasNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(6), WithBulkheads(shares{"mine": .5}))
		fillLine(t, l)
		for inFlight, want := range []bool{true, true, true, true, true, true, true, false, false} {
			l.group("mine").inFlight.Store(int32(inFlight))
			if got := l.Preview(t.Context(), Request{Bulkhead: "mine"}) == nil; got != want {
				t.Errorf("%d in flight of 3: may wait %v, want %v", inFlight, got, want)
			}
		}
	})
}

// Who has a place in the line and loses it to a better one waits on for what its group is guaranteed, as many as that.
func TestGroupKeepsWhoLosesThePlace(t *testing.T) {
	type comer struct {
		criticality Criticality
		cohort      int
		tenant      Tenant
		bulkhead    string
	}
	for _, c := range []struct {
		name                 string
		comers               []comer
		waiting, places      int
		refused, refusedMine Reason
	}{
		{"to the more critical", []comer{
			{Sheddable, 0, 0, "mine"}, {SheddablePlus, 0, 0, "mine"}, {Sheddable, 0, 0, ""}, // three have a place
			{CriticalPlus, 0, 0, ""}, {CriticalPlus, 0, 0, ""}, {CriticalPlus, 0, 0, ""},
		}, 2, 3, ReasonDisplaced, 0},
		{"the worst of them go", []comer{
			{Sheddable, 0, 0, ""}, {Sheddable, 0, 0, ""}, {Sheddable, 0, 0, ""},
			{Sheddable, 0, 0, "mine"}, {Sheddable, 0, 0, "mine"}, {Sheddable, 0, 0, "mine"}, {Sheddable, 0, 0, "mine"},
			{Sheddable, 0, 0, "mine"}, {SheddablePlus, 0, 0, "mine"}, // only the last has a place
			{CriticalPlus, 0, 0, ""}, {CriticalPlus, 0, 0, ""}, {CriticalPlus, 0, 0, ""},
		}, 5, 3, ReasonDisplaced, ReasonDisplaced},
		{"to a better tenant", []comer{
			{Critical, 1, 1, "mine"}, {Critical, 2, 1, "mine"}, {Critical, 50, 1, ""},
			{Critical, 100, 2, ""}, {Critical, 100, 2, ""}, {Critical, 100, 2, ""},
		}, 2, 3, ReasonTenant, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := mustNew(t, WithFixedLimit(4), WithBulkheads(shares{"mine": .5}))
				work(t, l, 100)
				for range 4 {
					mustAcquire(t, l)
				}
				spendCredit(l)
				spendGroupCredit(l)
				l.threshold.fits = placeOf(levels, 0)
				refused := map[string]Reason{}
				for i, comer := range c.comers {
					go func() {
						r := Request{Criticality: comer.criticality, Tenant: comer.tenant, Bulkhead: comer.bulkhead}
						var c claim
						c.fill(l, &r, other, 0)
						c.at = placeOf(r.Criticality.level(), comer.cohort)
						w, refusal := l.queue(&r, &c, nil, l.now())
						if refusal != nil {
							t.Errorf("comer %d refused: %v", i, refusal)
							return
						}
						if _, refusal := l.wait(t.Context(), w); refusal != nil && refusal.Reason != ReasonExpired {
							refused[comer.bulkhead] = refusal.Reason
						}
					}()
					synctest.Wait()
				}
				if got := bulkhead(t, l, "mine"); got.Waiting != c.waiting || l.line.ahead(0) != c.places {
					t.Errorf("%+v, %d places taken; want %d who wait, and %d places", got, l.line.ahead(0), c.waiting, c.places)
				}
				if refused[""] != c.refused || refused["mine"] != c.refusedMine {
					t.Errorf("refused %v, want %v, and of the group %v", refused, c.refused, c.refusedMine)
				}
			})
		})
	}
}

// Only its deadline refuses who is owed a permit.
func TestOwedIsRefusedByItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(4), WithBulkheads(shares{"mine": .5}))
		fillLine(t, l)
		ask := func(patience time.Duration) (Reason, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			start := time.Now()
			_, err := l.AcquireRequest(ctx, Request{Bulkhead: "mine"})
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("with %v: %v, want a refusal", patience, err)
			}
			return refusal.Reason, time.Since(start)
		}
		if reason, waited := ask(1500 * time.Microsecond); reason != ReasonDeadline || waited != 0 {
			t.Errorf("no time for the wait and the work: %v after %v, want deadline at once", reason, waited)
		}
		if reason, waited := ask(10 * time.Millisecond); reason != ReasonExpired || waited != 10*time.Millisecond {
			t.Errorf("no permit in time: %v after %v, want expired after 10ms", reason, waited)
		}
		for range 2 { // the group has what it is guaranteed, and the next of its own is half a service time away
			l.group("mine").inFlight.Add(1)
		}
		if reason, waited := ask(1200 * time.Microsecond); reason != ReasonDeadline || waited != 0 {
			t.Errorf("no time for the group's own permits: %v after %v, want deadline at once", reason, waited)
		}
		if reason, _ := ask(1700 * time.Microsecond); reason != ReasonExpired {
			t.Errorf("time enough for the group's own permits: %v, want expired", reason)
		}
	})
}

// What a group has above its guarantee it has like all others: by criticality.
func TestAboveTheGuaranteeCriticalityDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
		group := &flow{Request: Request{Criticality: CriticalPlus, Bulkhead: "mine"}, rate: 600, to: 2 * time.Second, counted: time.Second}
		flood := &flow{Request: Request{}, rate: 10_000, to: 2 * time.Second, counted: time.Second}
		runFlows(t, l, group, flood)
		if group.served < 590 || flood.served < 390 {
			t.Errorf("%d of the more critical and %d of the others served in a second, want 600 and 400", group.served, flood.served)
		}
	})
}

// A group that wants all takes nothing from its equals but what it is guaranteed.
func TestGreedyGroupLeavesTheRestToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .3}))
		group := &flow{Request: Request{Bulkhead: "mine"}, rate: 10_000, to: 2 * time.Second, counted: time.Second}
		others := &flow{Request: Request{}, rate: 10_000, to: 2 * time.Second, counted: time.Second}
		runFlows(t, l, group, others)
		if group.served < 290 || others.served < 340 {
			t.Errorf("%d and %d others served in a second, want the 300 guaranteed and half of the rest", group.served, others.served)
		}
		if group.most > 30*time.Millisecond {
			t.Errorf("waited up to %v, want no one left behind by its own group", group.most)
		}
	})
}

func TestSuspendedWorkIsNotCounted(t *testing.T) {
	l := mustNew(t, WithFixedLimit(10), WithBulkheads(shares{"mine": .5}))
	want := func(n int) {
		t.Helper()
		if got := bulkhead(t, l, "mine"); got.InFlight != n {
			t.Errorf("%+v, want %d in flight", got, n)
		}
	}
	acquire := func() Permit {
		p, err := l.AcquireRequest(t.Context(), Request{Bulkhead: "mine"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b, c := acquire(), acquire(), acquire()
	want(3)
	a.Suspend()
	a.Suspend()
	want(2)
	a.Resume()
	want(3)
	b.Cancel()
	b.Cancel()
	want(2)
	a.Suspend()
	a.Release(OK)
	want(1)
	c.Release(OK)
	c.Release(OK)
	want(0)
	p := mustAcquire(t, l) // takes a slot that was the group's
	want(0)
	p.Release(OK)
	want(0)
}

func TestGuarantees(t *testing.T) {
	for _, c := range []struct {
		limit  int
		shares []float64
		want   []int
	}{
		{10, []float64{.3}, []int{3}},
		{10, []float64{.31}, []int{4}},       // rounded up
		{13, []float64{.3, .7}, []int{4, 9}}, // the smallest first, as far as the limit goes
		{5, []float64{.5, .5}, []int{2, 3}},
		{10, []float64{.36, .32, .32}, []int{3, 3, 4}},
		{100, []float64{.29, .57, .14}, []int{29, 57, 14}}, // as decimals, not as floats
		{10, []float64{.1, .1, .1, .1, .1, .1, .1, .1, .1, .1}, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{10, []float64{.001}, []int{1}},
		{10, []float64{.9, .05, .05}, []int{8, 1, 1}}, // at least one, at the cost of the largest
		{10, []float64{.5, .49, .01}, []int{5, 4, 1}},
		{2, []float64{.5, .3, .2}, []int{1, 1, 0}}, // not all can have one
		{1, []float64{.2, .3, .5}, []int{0, 0, 1}},
		{1_000_000, []float64{.3, .7}, []int{300_000, 700_000}},
	} {
		table := shares{}
		for i, share := range c.shares {
			table[fmt.Sprint(i)] = share
		}
		l := mustNew(t, WithFixedLimit(c.limit), WithBulkheads(table))
		for i, want := range c.want {
			if got := bulkhead(t, l, fmt.Sprint(i)).Guarantee; got != want {
				t.Errorf("%v of %d: %d guaranteed to the share %v, want %d", c.shares, c.limit, got, c.shares[i], want)
			}
		}
	}
}

// Whatever the shares: the guarantees fit into the limit, each is what its share says, rounded up, or less where the
// limit has no more: one less, and one for each group that was raised. Nobody goes without where all can have one.
func TestGuaranteesFitIntoTheLimit(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	l := mustNew(t)
	for range 2000 {
		n, limit, part := 1+rng.IntN(maxBulkheads), 1+rng.IntN(200), 1-.5*float64(rng.IntN(2))
		table, sum := shares{}, 0.0
		for i := range n {
			share := math.Pow(rng.Float64(), 6) + 1e-6
			table[fmt.Sprint(i)] = share
			sum += share
		}
		for name := range table {
			table[name] *= part / sum
		}
		l.limit.Store(int64(limit))
		if err := l.SetBulkheads(table); err != nil {
			t.Fatal(err)
		}
		all, short := 0, false
		for _, b := range l.Bulkheads() {
			all += b.Guarantee
			exact := b.Share * float64(limit)
			if b.Guarantee < 1 && limit >= n || b.Guarantee < int(exact)-n || float64(b.Guarantee) > math.Ceil(exact) {
				t.Fatalf("limit %d, %d groups: %+v", limit, n, b)
			}
			short = short || float64(b.Guarantee) < exact-shareSlack
		}
		if all > limit || short && all < limit {
			t.Fatalf("%d guaranteed of %d", all, limit)
		}
	}
}

// The guarantees follow the limit, and nothing is lost when it shrinks to less than there are groups.
func TestGuaranteesFollowTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next, served atomic.Int64
		next.Store(10)
		l := mustNew(t, WithInitialLimit(10), WithBulkheads(shares{"a": .3, "b": .2}),
			WithController(controllerFunc(func(feedback.Sample) int { return int(next.Load()) })))
		var all sync.WaitGroup
		for i := range 3000 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 500 * time.Microsecond)
				p, err := l.AcquireRequest(t.Context(), Request{Criticality: Criticality(i % 5), Bulkhead: []string{"", "a", "b"}[i%3]})
				if err != nil {
					return
				}
				served.Add(1)
				time.Sleep(time.Millisecond)
				p.Release(OK)
			})
		}
		for _, c := range []struct{ limit, a, b int }{{20, 6, 4}, {4, 2, 1}, {1, 1, 0}, {10, 3, 2}, {1, 1, 0}, {40, 12, 8}} {
			next.Store(int64(c.limit))
			time.Sleep(100 * time.Millisecond)
			if a, b := bulkhead(t, l, "a"), bulkhead(t, l, "b"); a.Guarantee != c.a || b.Guarantee != c.b || a.Share != .3 {
				t.Errorf("limit %d: %+v and %+v, want %d and %d guaranteed", c.limit, a, b, c.a, c.b)
			}
		}
		all.Wait()
		wantEmpty(t, l)
		if n := served.Load(); n < 1000 {
			t.Errorf("%d of 3000 served, want a third at least", n)
		}
	})
}

func TestBadShares(t *testing.T) {
	many := shares{}
	for i := range maxBulkheads + 1 {
		many[fmt.Sprint(i)] = .001
	}
	for want, table := range map[string]shares{
		`the share 0 of "a"; want more than 0 and at most 1`: {"a": 0, "b": .5},
		`the share -0.1 of "b"`:                              {"a": .1, "b": -.1},
		`the share 1.2 of "b"`:                               {"a": .1, "b": 1.2},
		`the share NaN of "a"`:                               {"a": math.NaN()},
		`the share +Inf of "a"`:                              {"a": math.Inf(1)},
		`shares of 1.1 in all; want at most 1`:               {"a": .6, "b": .5},
		`a bulkhead without a name`:                          {"": .5},
		`65 bulkheads; want at most 64`:                      many,
	} {
		if _, err := New(WithBulkheads(table)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "limiter: WithBulkheads: ") {
			t.Errorf("New: error %v, want one that says %q", err, want)
		}
		l := mustNew(t, WithBulkheads(shares{"old": .5}))
		if err := l.SetBulkheads(table); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "limiter: SetBulkheads: ") {
			t.Errorf("SetBulkheads: error %v, want one that says %q", err, want)
		}
		if got := l.Bulkheads(); len(got) != 1 || got[0].Name != "old" || got[0].Share != .5 {
			t.Errorf("after an error %+v are in force, want the old ones", got)
		}
	}
	if _, err := New(WithBulkheads(nil)); err == nil || !strings.Contains(err.Error(), "WithBulkheads(nil)") {
		t.Errorf("nil: %v", err)
	}
	if _, err := New(WithBulkheads(shares{"a": .6}), WithBulkheads(shares{"b": .6})); err == nil {
		t.Error("two tables of .6 are accepted")
	}
	l := mustNew(t, WithBulkheads(shares{"b": .2, "a": .9}), WithBulkheads(shares{"a": .8}), WithBulkheads(shares{}))
	if got := l.Bulkheads(); len(got) != 2 || got[0] != (Bulkhead{Name: "a", Share: .8, Guarantee: 16}) || got[1] != (Bulkhead{Name: "b", Share: .2, Guarantee: 4}) {
		t.Errorf("two tables: %+v", got)
	}
}

// Other shares hold at once. What a group has it keeps; who waited for a guarantee that is gone waits in the line.
func TestSetBulkheads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(4), WithBulkheads(shares{"a": .5, "b": .25}))
		held := fillLine(t, l)
		acquired := make(chan Permit, 10)
		for range 2 {
			go func() {
				p, err := l.AcquireRequest(t.Context(), Request{Criticality: Sheddable, Bulkhead: "a"})
				if err != nil {
					t.Errorf("Acquire: %v", err)
				}
				acquired <- p
			}()
			synctest.Wait()
		}
		held[0].Release(OK)
		synctest.Wait()
		if got := bulkhead(t, l, "a"); got.InFlight != 1 || got.Waiting != 1 {
			t.Fatalf("%+v, want one in flight and one who waits", got)
		}
		if err := l.SetBulkheads(shares{"b": .5, "c": .5}); err != nil {
			t.Fatal(err)
		}
		if got := l.Bulkheads(); len(got) != 2 || got[0].Guarantee != 2 || got[1].Name != "c" {
			t.Errorf("in force: %+v", got)
		}
		held[1].Release(OK)
		synctest.Wait()
		if len(acquired) != 1 {
			t.Error("a request without a guarantee was served before more critical ones")
		}
		if err := l.SetBulkheads(shares{"a": .5}); err != nil {
			t.Fatal(err)
		}
		if got := bulkhead(t, l, "a"); got.InFlight != 1 || got.Waiting != 1 {
			t.Errorf("the name is back: %+v, want one in flight and one who waits", got)
		}
		held[2].Release(OK)
		synctest.Wait()
		if got := bulkhead(t, l, "a"); got.InFlight != 2 || got.Waiting != 0 {
			t.Errorf("with the guarantee back: %+v, want two in flight", got)
		}
		if err := l.SetBulkheads(nil); err != nil || len(l.Bulkheads()) != 0 {
			t.Errorf("SetBulkheads(nil): %v, and %+v are in force", err, l.Bulkheads())
		}
		(<-acquired).Release(OK)
		(<-acquired).Release(OK)
		held[3].Release(OK)
		if err := l.SetBulkheads(nil); err != nil || len(l.retired) != 0 {
			t.Errorf("%v, and %d groups are kept that have nothing", err, len(l.retired))
		}
	})
}

// A group that loses its guarantee while the line is full loses nobody, and waits like all others.
func TestReserveOfAGroupThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(4), WithBulkheads(shares{"a": .5}))
		held := fillLine(t, l)
		done := make(chan error, 2)
		for range 2 {
			go func() {
				p, err := l.AcquireRequest(t.Context(), Request{Criticality: Sheddable, Bulkhead: "a"})
				p.Release(OK)
				done <- err
			}()
			synctest.Wait()
		}
		if err := l.SetBulkheads(shares{}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = l.AcquireRequest(t.Context(), Request{Criticality: Sheddable, Patient: true}) }()
		synctest.Wait()
		if s := l.Stats(); s.Line != shortLine+3 {
			t.Errorf("%d in line, want %d", s.Line, shortLine+3)
		}
		for i, p := range held {
			p.Release(OK)
			synctest.Wait()
			if want := []int{0, 0, 0, 2}[i]; len(done) != want {
				t.Fatalf("%d of the group served after %d releases, want %d: before those who came later", len(done), i+1, want)
			}
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
}

// Many goroutines, random ends, and shares that change all the time: nothing is lost.
func TestSetBulkheadsWhileServing(t *testing.T) {
	const callers, rounds = 16, 400
	l := mustNew(t, WithFixedLimit(4))
	names := []string{"", "a", "b", "c", "unknown"}
	var serving, changing sync.WaitGroup
	stop := make(chan struct{})
	changing.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		for {
			select {
			case <-stop:
				return
			default:
			}
			table := shares{}
			for _, name := range names[1:4] {
				if rng.IntN(3) > 0 {
					table[name] = .01 + .3*rng.Float64()
				}
			}
			if err := l.SetBulkheads(table); err != nil {
				t.Error(err)
			}
			if s := l.Stats(); s.InFlight > 4+callers {
				t.Errorf("%d in flight", s.InFlight)
			}
			for _, b := range l.Bulkheads() {
				if b.InFlight < 0 || b.Waiting < 0 || b.Share != table[b.Name] {
					t.Errorf("%+v, want the share %v", b, table[b.Name])
				}
			}
		}
	})
	for caller := range callers {
		serving.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(caller), 9))
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(1000))*time.Microsecond)
				r := Request{Criticality: Criticality(rng.IntN(7)), Patient: rng.IntN(8) == 0, Bulkhead: names[rng.IntN(len(names))]}
				r.Tenant = Tenant(rng.IntN(3))
				l.Preview(ctx, r)
				p, err := l.AcquireRequest(ctx, r)
				if err == nil && rng.IntN(4) == 0 {
					p.Suspend()
					p.Resume()
				}
				if rng.IntN(8) == 0 {
					p.Cancel()
				}
				p.Release(Outcome(rng.IntN(8)))
				cancel()
			}
		})
	}
	serving.Wait()
	close(stop)
	changing.Wait()
	wantEmpty(t, l)
	if err := l.SetBulkheads(shares{"a": .1, "b": .1, "c": .1}); err != nil {
		t.Fatal(err)
	}
	for _, b := range l.Bulkheads() {
		if b.InFlight != 0 || b.Waiting != 0 {
			t.Errorf("at the end: %+v", b)
		}
	}
	if len(l.retired) != 0 {
		t.Errorf("%d groups kept that have nothing", len(l.retired))
	}
	s := l.Stats()
	sum := s.Admitted
	for _, n := range s.Refused {
		sum += n
	}
	if sum != callers*rounds {
		t.Errorf("%d admitted and refused, want %d", sum, callers*rounds)
	}
}

func TestBulkheadsAllocateNothing(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1), WithBulkheads(shares{"mine": .5, "yours": .5}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, name := range []string{"mine", "unknown"} {
		r := Request{Bulkhead: name}
		if n := testing.AllocsPerRun(1000, func() {
			p, err := l.AcquireRequest(ctx, r)
			if err != nil || l.Preview(ctx, r) != nil {
				t.Fatal(err)
			}
			p.Release(OK)
		}); n != 0 {
			t.Errorf("%q: admission allocates %v times, want 0", name, n)
		}
	}
}
