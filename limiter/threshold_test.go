package limiter

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/littles"
)

// windowOf returns a sample of a window of that length at that limit.
func windowOf(length time.Duration, limit int) feedback.Sample {
	return feedback.Sample{Window: littles.Window{End: length}, Limit: limit}
}

// tenMs is the pace of work that takes 10 ms. It has no slack, so that the threshold remembers nothing but the last
// window.
var tenMs = pace{service: 10 * time.Millisecond, slow: 1e7}

// above adds up what was offered from a place on.
func above(offered *[places]float64, from place) (sum float64) {
	for p := places - 1; p >= int(from); p-- {
		sum += offered[p]
	}
	return sum
}

// wantConsistent fails unless cut, fits and loads are what the offered loads say they should be.
func (t *threshold) wantConsistent(tb testing.TB) {
	tb.Helper()
	if t.cut >= places || t.fits > places {
		tb.Fatalf("cut %d, fits %d, of %d places", t.cut, t.fits, places)
	}
	// The load that passes is more than can be served, so that the cut alone leaves no permit idle; and to raise it by
	// one place would be too much.
	if t.cut > 0 && above(&t.offered, t.cut) <= 1+surplus {
		tb.Errorf("the cut at %d lets pass %v, want more than %v", t.cut, above(&t.offered, t.cut), 1.+surplus)
	}
	if above(&t.offered, t.cut+1) > 1+surplus {
		tb.Errorf("the cut at %d lets pass %v above its own place, want at most %v", t.cut, above(&t.offered, t.cut+1), 1.+surplus)
	}
	// All that stand at fits or above can be served, and one more place could not, or is cut.
	if above(&t.steady, t.fits) > 1-spare {
		tb.Errorf("%v fits from %d on, want at most %v", above(&t.steady, t.fits), t.fits, 1-spare)
	}
	if t.fits > 0 && t.fits-1 != t.cut && above(&t.steady, t.fits-1) <= 1-spare {
		tb.Errorf("%v would fit from %d on, and it says %d", above(&t.steady, t.fits-1), t.fits-1, t.fits)
	}
	if t.cut > 0 && t.fits <= t.cut {
		tb.Errorf("who fits stands at %d, not above the cut at %d", t.fits, t.cut)
	}
	for level := range levels {
		if want := above(&t.offered, placeOf(level, 0)); t.loads[level] != want {
			tb.Errorf("load %v of level %d and above, want %v", t.loads[level], level, want)
		}
	}
	for p, load := range t.offered {
		if !(load >= 0) || !(t.steady[p] >= 0) {
			tb.Fatalf("a load of %v at %d, of %v in the long run", load, p, t.steady[p])
		}
	}
}

func TestPlaces(t *testing.T) {
	last := -1
	for level := range levels {
		for cohort := range cohorts {
			p := placeOf(level, cohort)
			if int(p) != last+1 || p.level() != level || p.cohort() != cohort {
				t.Fatalf("cohort %d of level %d has place %d, which is cohort %d of level %d", cohort, level, p, p.cohort(), p.level())
			}
			last = int(p)
		}
	}
	if last != places-1 {
		t.Errorf("the last place is %d, want %d", last, places-1)
	}
}

// What comes a second, times how long it stays, over the limit: the load, by Little's law.
func TestThresholdLoads(t *testing.T) {
	for _, c := range []struct {
		what         string
		came         map[place]float64 // in a second of 1000 that can be served
		loads        [levels]float64
		cut, fits    place
		withoutTimes bool
	}{
		{what: "nobody"},
		{what: "half of what can be served", came: map[place]float64{placeOf(2, 5): 500}, loads: [levels]float64{.5, .5, .5, 0}},
		{what: "all that can be served", came: map[place]float64{placeOf(2, 5): 600, placeOf(2, 90): 400}, loads: [levels]float64{1, 1, 1, 0}, fits: placeOf(2, 5) + 1},
		{what: "twice that, and no more", came: map[place]float64{placeOf(1, 0): 2000}, loads: [levels]float64{2, 2, 0, 0}, fits: placeOf(1, 0) + 1},
		{
			what:  "three levels",
			came:  map[place]float64{placeOf(3, 7): 500, placeOf(2, 7): 1000, placeOf(1, 7): 1000, placeOf(0, 7): 4000},
			loads: [levels]float64{6.5, 2.5, 1.5, .5},
			cut:   placeOf(1, 7),
			fits:  placeOf(2, 7) + 1,
		},
		{
			what:  "two cohorts",
			came:  map[place]float64{placeOf(2, 3): 5000, placeOf(2, 100): 3000},
			loads: [levels]float64{8, 8, 8, 0},
			cut:   placeOf(2, 100),
			fits:  placeOf(2, 100) + 1,
		},
		{what: "all at the top", came: map[place]float64{places - 1: 100_000}, loads: [levels]float64{100, 100, 100, 100}, cut: places - 1, fits: places},
		{what: "all at the bottom", came: map[place]float64{0: 100_000}, loads: [levels]float64{100, 0, 0, 0}, fits: 1},
		{what: "before a service time is known", came: map[place]float64{7: 100_000}, withoutTimes: true},
	} {
		var came [places]float64
		for at, n := range c.came {
			came[at] = n
		}
		p := tenMs
		if c.withoutTimes {
			p = pace{}
		}
		var th threshold
		th.observe(windowOf(time.Second, 10), &came, p)
		th.wantConsistent(t)
		for level, want := range c.loads {
			if math.Abs(th.loads[level]-want) > 1e-9 {
				t.Errorf("%s: load %v of level %d and above, want %v", c.what, th.loads[level], level, want)
			}
		}
		if th.cut != c.cut || th.fits != c.fits {
			t.Errorf("%s: cut at %d, who fits from %d on; want %d and %d", c.what, th.cut, th.fits, c.cut, c.fits)
		}
	}
}

// The load is remembered for some time, however many windows that time is made of.
func TestThresholdRemembers(t *testing.T) {
	p := pace{service: 10 * time.Millisecond, slow: 1e7, slack: 225 * time.Millisecond}
	memory := loadMemory * p.fullCredit()
	if memory != 200*time.Millisecond {
		t.Fatalf("a memory of %v, want 200ms", memory)
	}
	for _, windows := range []int{1, 2, 10, 100} {
		var th threshold
		var came, nobody [places]float64
		came[300] = 3000 * memory.Seconds() / float64(windows)
		length := memory / time.Duration(windows)
		for range windows {
			th.observe(windowOf(length, 10), &came, p)
		}
		if want := 3 * (1 - math.Exp(-1)); math.Abs(th.loads[0]-want) > 1e-9 {
			t.Errorf("%d windows: a load of %v after a memory, want %v", windows, th.loads[0], want)
		}
		for range windows {
			th.observe(windowOf(length, 10), &nobody, p)
		}
		if want := 3 * (1 - math.Exp(-1)) * math.Exp(-1); math.Abs(th.loads[0]-want) > 1e-9 {
			t.Errorf("%d windows: a load of %v a memory after the last, want %v", windows, th.loads[0], want)
		}
	}
}

// Who fits is known by as many requests as it takes to tell, while the cut follows what came just now.
func TestFitsIsSteady(t *testing.T) {
	p := pace{service: 10 * time.Millisecond, slow: 1e7, slack: 100 * time.Millisecond, drain: 1000}
	const window = 16 * time.Millisecond
	var th threshold
	observe := func(perSecond float64) {
		var came [places]float64
		came[300] = perSecond * window.Seconds()
		th.observe(windowOf(window, 10), &came, p)
		th.wantConsistent(t)
	}
	for range 200 {
		observe(800)
	}
	for range 4 { // half as many more for 64 ms, by chance
		observe(1200)
	}
	if th.loads[0] < 1 || th.fits > 300 {
		t.Errorf("a load of %.2f, and who fits stands at %d; want more than 1, and 300 at most", th.loads[0], th.fits)
	}
	for range 50 { // and for good
		observe(1200)
	}
	if th.fits <= 300 {
		t.Errorf("who fits stands at %d though 1.2 times what can be served stand at 300", th.fits)
	}
}

// Whatever comes, in whatever order and of whatever length the windows are: the cut lets more pass than can be served,
// and refuses nobody while there are less than that.
func FuzzThreshold(f *testing.F) {
	f.Add([]byte{1, 10, 1, 200, 100, 0, 255, 3, 3})
	f.Add([]byte("a flood of the first level, and then one of the last"))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 500 {
			return
		}
		var th threshold
		var books census
		var naive map[place]float64
		var sum float64
		clear := func() { naive, sum = map[place]float64{}, 0 }
		for clear(); len(script) > 2; script = script[3:] {
			at, work := place(int(script[0])|int(script[1])<<8)%places, 1.5*float64(script[2])
			for range script[2] {
				books.add(at, 1.5)
			}
			naive[at] += work
			sum += work
			if script[2]%4 != 0 {
				continue
			}
			var came [places]float64
			came[3] = .5 // of another shard
			if got := books.drain(&came); got != sum {
				t.Fatalf("%v came, the census says %v", sum, got)
			}
			came[3] -= .5
			for at, n := range came {
				if n != naive[place(at)] {
					t.Fatalf("%v came for place %d, the census says %v", naive[place(at)], at, n)
				}
			}
			if books != (census{}) {
				t.Fatal("the census is not empty after it was drained")
			}
			clear()
			p := pace{
				service: time.Duration(script[0]) * time.Millisecond, slow: float64(script[0]) * 1e6,
				slack: time.Duration(script[1]) * 10 * time.Millisecond, drain: littles.Rate(script[2]),
			}
			th.observe(windowOf(time.Duration(1+work)*time.Millisecond, 1+int(script[1])), &came, p)
			th.wantConsistent(t)
		}
	})
}

// refusedByCut returns which places are refused now, the line put aside.
func refusedByCut(l *Limiter, tenant Tenant) (refused [places]bool) {
	var gates [levels]*Refusal
	for level := range gates {
		gates[level] = l.gates[level].Swap(nil)
	}
	for at := range refused {
		refused[at] = l.refuses(&Request{Tenant: tenant}, place(at)) != nil
	}
	for level := range gates {
		l.gates[level].Store(gates[level])
	}
	return refused
}

// Whatever came before, and whoever is in flight: nobody of a lower place passes the cut while one of a higher place is
// refused by it, and never is everybody refused.
func FuzzNobodyPassesBeforeABetter(f *testing.F) {
	f.Add([]byte("many of the first level, then many of the last, then nobody for a while ... and all at once")) // it has a cut
	f.Add([]byte{255, 254, 253, 252, 251, 250, 249, 248, 0, 0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			l := mustNew(t, WithFixedLimit(4))
			for i, op := range script {
				for j := range 1 + int(op%16) { // a burst of one criticality
					ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond+time.Duration(i<<8+j))
					r := Request{Criticality: Criticality(op>>4%4) + 1, Tenant: Tenant(op >> 6 * uint8(j%5))}
					go func() {
						defer cancel()
						if p, err := l.AcquireRequest(ctx, r); err == nil {
							time.Sleep(5 * time.Millisecond)
							p.Release(OK)
						}
					}()
				}
				synctest.Wait()
				for _, tenant := range []Tenant{0, 1} {
					refused := refusedByCut(l, tenant)
					for at := 1; at < places; at++ {
						if refused[at] && !refused[at-1] {
							t.Fatalf("after %d steps place %d is refused, and %d passes", i+1, at, at-1)
						}
					}
					if refused[places-1] {
						t.Fatalf("after %d steps everybody is refused", i+1)
					}
				}
				time.Sleep(time.Duration(op%8) * time.Millisecond)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			wantEmpty(t, l)
		})
	})
}

// A cut that a flood has left behind refuses nobody who can be served: as long as permits are free it is not asked.
func TestStaleCutDoesNotLockOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10)) // of work of 10 ms: 1000 a second
		rng := rand.New(rand.NewPCG(1, 1))
		send := func(c Criticality, rate float64, length time.Duration) (asked int64, served *atomic.Int64) {
			served = new(atomic.Int64)
			for start := time.Now(); time.Since(start) < length; time.Sleep(time.Duration(rng.ExpFloat64() / rate * float64(time.Second))) {
				asked++
				service := time.Duration(rng.ExpFloat64() * float64(10*time.Millisecond))
				go func() {
					p, err := l.AcquireRequest(t.Context(), Request{Criticality: c})
					if err != nil {
						return
					}
					served.Add(1)
					time.Sleep(service)
					p.Release(OK)
				}()
			}
			synctest.Wait()
			return asked, served
		}
		send(CriticalPlus, 10_000, 5*time.Second)
		if c := l.cut.Load(); c == nil || c.from.level() != CriticalPlus.level() {
			t.Fatalf("a flood of the highest criticality left the cut %+v, want one through it", c)
		}
		time.Sleep(50 * time.Millisecond) // those in flight finish
		asked, served := send(Sheddable, 500, 100*time.Millisecond)
		if l.cut.Load() == nil {
			t.Error("the cut is gone before it could do harm: this shows nothing")
		}
		if got := served.Load(); got < asked*9/10 {
			t.Errorf("%d of %d served right after the flood, want nine tenths", got, asked)
		}
		asked, served = send(Sheddable, 700, 5*time.Second)
		if got := served.Load(); got < asked*95/100 {
			t.Errorf("%d of %d served in the seconds after, want .95", got, asked)
		}
		time.Sleep(time.Second)
		wantEmpty(t, l)
	})
}

// A request with a deadline has the same place in the tap and after it: it is not drawn twice.
func TestPlaceIsKept(t *testing.T) {
	l := mustNew(t)
	for i := range 1000 {
		l.usage.spend(uint64(i%7), 1)
		r := Request{Tenant: Tenant(i % 7)}
		deadline := time.Duration(i) * time.Second / 7
		if i == 0 {
			continue // none
		}
		if a, b := l.placeFor(&r, 2, deadline), l.placeFor(&r, 2, deadline); a != b || a.level() != 2 {
			t.Fatalf("place %d and then %d, want the same, of level 2", a, b)
		}
	}
}

// Those without a tenant are spread over all cohorts alike, and so is a tenant that is alone.
func TestRequestsAreSpread(t *testing.T) {
	const n = 100_000
	l := mustNew(t)
	for name, deadline := range map[string]func(i int) time.Duration{
		"without a deadline": func(int) time.Duration { return 0 },
		"with deadlines":     func(i int) time.Duration { return time.Duration(1+i) * time.Microsecond },
	} {
		var counts [cohorts]int
		for i := range n {
			counts[l.placeFor(&Request{}, 0, deadline(i)).cohort()]++
		}
		for cohort, got := range counts {
			if want := n / cohorts; math.Abs(float64(got-want)) > 6*math.Sqrt(float64(want)) {
				t.Errorf("%s: %d of %d in cohort %d, want about %d", name, got, n, cohort, want)
			}
		}
	}
}

// The place falls with what a tenant had, and rises with its hash; what it had counts for more.
func TestMoved(t *testing.T) {
	for _, shares := range []float64{0, lightest, .5, 1, 2, 10, 1000} {
		last := -1.
		for i := range 1001 {
			u := float64(i) / 1001
			at := moved(u, shares)
			if !(at >= 0 && at <= 1) || at < last {
				t.Fatalf("%v shares: %v is moved to %v, after %v", shares, u, at, last)
			}
			last = at
			if more := moved(u, max(shares, lightest)*1.1); u > 0 && more >= at {
				t.Fatalf("at %v, %v shares move to %v, and a tenth more to %v", u, shares, at, more)
			}
		}
	}
	for _, shares := range []float64{lightest, 1, 30} {
		if best, worst := moved(.995, 1.6*shares), moved(.005, shares); best > worst {
			t.Errorf("one with the best hash and %v shares stands at %v, before one with the worst hash and %v, at %v", 1.6*shares, best, shares, worst)
		}
	}
	for u := range 2 {
		if at := moved(float64(u)*(1-0x1p-53), math.Inf(1)); !(at >= 0 && at <= 1) {
			t.Errorf("%v for the heaviest of all", at)
		}
	}
}

// Cohorts are dealt anew, but not too often: over many turns every equal tenant is refused equally often.
func TestCohortsTurnOver(t *testing.T) {
	const tenants, turns = 40, 2000
	l := mustNew(t)
	l.pace = pace{service: 10 * time.Millisecond, slow: 1e7, slack: 525 * time.Millisecond}
	turn := cohortTurn*l.pace.fullCredit() + time.Millisecond
	half := place(moved(.5, 1) * cohorts) // refused is who stands below, which is half of those who are alike
	now := time.Duration(0)
	var refused [tenants]int
	together := 0 // turns in which the first two shared their fate
	for range turns {
		for tenant := range uint64(tenants) {
			l.usage.spend(scatter(tenant), 1)
		}
		before := l.salt.Load()
		l.turnOver(now+turn/2, 0)
		if l.salt.Load() != before {
			t.Fatal("dealt anew after half a turn")
		}
		now += turn
		l.turnOver(now, 0)
		if l.salt.Load() == before {
			t.Fatal("not dealt anew after a whole turn")
		}
		var low [tenants]bool
		for tenant := range low {
			low[tenant] = l.placeFor(&Request{Tenant: Tenant(scatter(uint64(tenant)))}, 0, now) < half
			if low[tenant] {
				refused[tenant]++
			}
		}
		if low[0] == low[1] {
			together++
		}
	}
	mean := 0.0
	for _, n := range refused {
		mean += float64(n) / tenants
	}
	deviation := math.Sqrt(turns) / 2 // of a fair coin
	for tenant, n := range refused {
		if math.Abs(float64(n)-mean) > 5*deviation {
			t.Errorf("tenant %d was refused %d times in %d turns, the mean is %.0f", tenant, n, turns, mean)
		}
	}
	if math.Abs(float64(together)-turns/2) > 5*deviation {
		t.Errorf("two tenants shared their fate in %d of %d turns, want about half", together, turns)
	}
}

func BenchmarkPlaceFor(b *testing.B) {
	l := mustNew(b)
	l.usage.spend(7, 1)
	for name, r := range map[string]Request{"nobody": {}, "tenant": {Tenant: 7}} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				l.placeFor(&r, 2, time.Duration(i+1))
			}
		})
	}
}

func BenchmarkThresholdObserve(b *testing.B) {
	var th threshold
	var came [places]float64
	for at := range came {
		came[at] = 1
	}
	for b.Loop() {
		th.observe(windowOf(time.Second, 10), &came, tenMs)
	}
}
