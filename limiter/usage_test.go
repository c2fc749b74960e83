package limiter

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// someTenants returns n hashes, always the same for a seed.
func someTenants(n int, seed uint64) []uint64 {
	rng := rand.New(rand.NewPCG(seed, 7))
	tenants := make([]uint64, n)
	for i := range tenants {
		tenants[i] = rng.Uint64()
	}
	return tenants
}

func spendAll(u *usage, tenants []uint64, cost float64) {
	for _, tenant := range tenants {
		u.spend(tenant, cost)
	}
}

// wantShares fails unless every tenant has between low and high shares.
func wantShares(t *testing.T, u *usage, tenants []uint64, low, high float64) {
	t.Helper()
	for _, tenant := range tenants {
		if got := u.shares(tenant); !(got >= low && got <= high) {
			t.Fatalf("a tenant has %v shares, want %v to %v", got, low, high)
		}
	}
}

func TestUsageOfNobody(t *testing.T) {
	u := newUsage()
	if got := u.shares(1); got != 0 {
		t.Errorf("%v shares before anybody spent, want 0", got)
	}
	for _, cost := range []float64{0, -1, math.NaN(), math.Inf(-1)} {
		u.spend(1, cost)
		if got := u.shares(1); got != 0 {
			t.Errorf("%v shares after spending %v, want 0", got, cost)
		}
	}
	u.decay(time.Hour, time.Second)
	if got := u.shares(1); got != 0 || u.active() != 1 {
		t.Errorf("%v shares of nothing, %v active; want 0 and 1", got, u.active())
	}
}

func TestUsageCountsTenants(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 500, 1000} {
		for seed := range uint64(30) {
			u := newUsage()
			for _, tenant := range someTenants(n, seed) {
				u.spend(tenant, float64(1+tenant%1000)) // how much does not matter
			}
			if got := u.active(); math.Abs(got/float64(n)-1) > .1 {
				t.Errorf("seed %d: %d tenants are counted as %.1f", seed, n, got)
			}
		}
	}
}

// Hashes that differ in few bits only.
func TestUsageCountsPoorHashes(t *testing.T) {
	for shift := range 55 {
		u := newUsage()
		for i := range uint64(500) {
			u.spend(i<<shift, 1)
		}
		if got := u.active(); math.Abs(got/500-1) > .1 {
			t.Errorf("500 tenants, numbered from bit %d on, are counted as %.1f", shift, got)
		}
	}
}

func TestUsageShares(t *testing.T) {
	u := newUsage()
	u.spend(1, 5)
	wantShares(t, u, []uint64{1}, 1, 1.01) // alone
	u.spend(2, 10)
	u.spend(3, 15)
	for tenant, want := range []float64{0, .5, 1, 1.5} {
		if got := u.shares(uint64(tenant)); math.Abs(got-want) > .01 {
			t.Errorf("tenant %d has %v shares, want %v", tenant, got, want)
		}
	}
}

// Nobody who spends as much as the others looks heavy, nor anybody who spends less.
func TestUsageOfManyIsAccurate(t *testing.T) {
	const n = 500
	for seed := range uint64(5) {
		tenants, rng := someTenants(n, seed), rand.New(rand.NewPCG(seed, 8))
		u, spent := newUsage(), make([]float64, n)
		for range 20 {
			spendAll(u, tenants, 1)
		}
		wantShares(t, u, tenants, .9, 1.2)

		u = newUsage()
		for range 50 * n { // the first have most
			i := int(n * math.Pow(rng.Float64(), 3))
			u.spend(tenants[i], 1)
			spent[i]++
		}
		for i, tenant := range tenants {
			want := spent[i] / 50
			if got := u.shares(tenant) / u.active() * n; got < want-.001 || got > want+.5 {
				t.Errorf("seed %d: tenant %d has %.3f shares, want %.3f to half a share more", seed, i, got, want)
			}
		}
	}
}

// A modest tenant does not look heavy beside one who takes a hundred times as much, also in a flood of names, and
// the heavy one does.
func TestUsageAbuser(t *testing.T) {
	const modest, rounds = 100, 200
	for _, names := range []int{0, 500, 5_000, 50_000, 1_000_000} {
		if testing.Short() && names > 50_000 {
			continue
		}
		tenants := someTenants(modest+1, 1)
		abuser, tenants := tenants[modest], tenants[:modest]
		rng := rand.New(rand.NewPCG(2, 2))
		u := newUsage()
		for range rounds { // four memories
			for range 100 {
				u.spend(abuser, 1)
			}
			spendAll(u, tenants, 1)
			for range names / rounds { // as much as a modest tenant in all four, for a hundredth of the requests
				u.spend(rng.Uint64(), 1)
			}
			u.decay(20*time.Millisecond, time.Second)
		}
		heaviest, lightest := 0.0, math.Inf(1)
		for _, tenant := range tenants {
			heaviest, lightest = max(heaviest, u.shares(tenant)), min(lightest, u.shares(tenant))
		}
		stranger := 0.0
		for range 1000 {
			stranger = max(stranger, u.shares(rng.Uint64()))
		}
		heavy := u.shares(abuser)
		t.Logf("%7d names: %4.0f active, modest %.2f to %.2f shares, abuser %6.2f, who never came up to %.2f",
			names, u.active(), lightest, heaviest, heavy, stranger)
		// Reckoned by hand: after four memories, of 50 rounds each, 50 * (1 - e^-4) = 49 rounds are remembered.
		spent, count := 49*(100+modest+float64(names)/rounds), u.active()
		if want := 49 * 100 / spent * count; heavy < .97*want || heavy > 1.1*want+1 {
			t.Errorf("%d names: the abuser has %.2f shares, want %.2f", names, heavy, want)
		}
		want := 49 / spent * count
		if lightest < .97*want || heaviest > 1.1*want+1 {
			t.Errorf("%d names: modest tenants have %.2f to %.2f shares, want %.2f to one more", names, lightest, heaviest, want)
		}
		if stranger > 1.2 {
			t.Errorf("%d names: one who never came has %.2f shares", names, stranger)
		}
		if names == 0 && (heaviest > .6 || heavy < 40) {
			t.Errorf("modest tenants have up to %.2f shares, the abuser %.2f; want .5 and 50", heaviest, heavy)
		}
	}
}

// Whoever takes enough to raise the mean does not thereby become the only one who counts.
func TestUsageAbuserCannotHideTheOthers(t *testing.T) {
	tenants := someTenants(20, 3)
	u := newUsage()
	spendAll(u, tenants, 1)
	u.spend(tenants[0], 1e6)
	if got := u.shares(tenants[0]); math.Abs(got-20) > 1 {
		t.Errorf("who has nearly all of what 20 have has %v shares, want 20", got)
	}
}

// A million names do not drive the count, nor what is read of anybody, to absurdity, and it is over when it is over.
func TestUsageFlood(t *testing.T) {
	tenants, rng := someTenants(10, 4), rand.New(rand.NewPCG(4, 4))
	u := newUsage()
	spendAll(u, tenants, 1000)
	for range 1_000_000 {
		u.spend(rng.Uint64(), 1)
	}
	if got := u.active(); got != usageColumns {
		t.Errorf("a million names are counted as %v, want %d", got, usageColumns)
	}
	wantShares(t, u, tenants, 1, 2)
	wantShares(t, u, someTenants(1000, 5), 0, 1)
	for range 500 { // ten memories of peace
		spendAll(u, tenants, 1000)
		u.decay(20*time.Millisecond, time.Second)
	}
	if got := u.active(); math.Abs(got-10) > 1 {
		t.Errorf("%v active long after the flood, want 10", got)
	}
	wantShares(t, u, tenants, .9, 1.1)
	wantShares(t, u, someTenants(1000, 5), 0, .01)
}

func TestUsageForgets(t *testing.T) {
	left := func(u *usage) float64 { return math.Float64frombits(u.spent[usageHash(1)%usageSums].sum.Load()) }
	for _, c := range []struct {
		calls           int
		elapsed, memory time.Duration
		want            float64
	}{
		{1, time.Second, time.Second, math.Exp(-1)},
		{1000, time.Millisecond, time.Second, math.Exp(-1)},
		{7, time.Second / 7, time.Second, math.Exp(-1)},
		{2000, time.Minute / 1000, time.Minute, math.Exp(-2)},
		{1, 1000 * time.Hour, time.Nanosecond, 0},
		{1, math.MaxInt64, time.Second, 0},
		{1, time.Nanosecond, 0, 0},
		{1, time.Nanosecond, -1, 0},
		{1000, time.Nanosecond, math.MaxInt64, 1},
		{1000, 0, time.Second, 1},
		{1000, -time.Hour, time.Second, 1},
		{1000, math.MinInt64, 0, 1},
	} {
		u := newUsage()
		u.spend(1, 1)
		for range c.calls {
			u.decay(c.elapsed, c.memory)
		}
		least := math.Inf(1)
		for row := range usageRows {
			had, _ := u.read(usageCell(u.cell(row, usageHash(1)).Load()), u.clock.Load())
			least = min(least, float64(had))
		}
		const tick = 1.05 / usageTicks
		if got := left(u); got < c.want*(1-tick) || got > c.want*(1+tick) {
			t.Errorf("%d times %v of %v: %v is left in all, want %v", c.calls, c.elapsed, c.memory, got, c.want)
		}
		if least < c.want*(1-tick) || least > c.want*(1+tick) {
			t.Errorf("%d times %v of %v: %v is left of the tenant, want %v", c.calls, c.elapsed, c.memory, least, c.want)
		}
		if got := u.shares(1); math.Abs(got-min(1, math.Ceil(c.want))) > .001 {
			t.Errorf("%d times %v of %v: %v shares of one who is alone", c.calls, c.elapsed, c.memory, got)
		}
		u.spend(2, 1)
		u.spend(2, math.Inf(1)) // and no harm is done by what came after
		wantShares(t, u, []uint64{2}, .9, 2.1)
	}
}

// A heavy tenant that stops is light again after some memories: from 50 shares, e^-1 a memory.
func TestUsageForgives(t *testing.T) {
	tenants := someTenants(101, 6)
	u := newUsage()
	second := func(abuser float64) {
		for range 32 {
			spendAll(u, tenants[1:], 1)
			u.spend(tenants[0], abuser)
			u.decay(time.Second/32, time.Second)
		}
	}
	for range 10 {
		second(100)
	}
	wantShares(t, u, tenants[:1], 48, 53)
	for range 5 {
		second(0)
	}
	wantShares(t, u, tenants[:1], .3, .9) // 100 e^-5 = .67
	wantShares(t, u, tenants[1:], .9, 1.1)
}

// A crowd that leaves, and a time when nobody comes, make those who stay neither light nor heavy.
func TestUsageAfterACrowdLeft(t *testing.T) {
	tenants, crowd := someTenants(10, 8), someTenants(200, 9)
	u := newUsage()
	for i := range 200 {
		if i < 100 {
			spendAll(u, crowd, 1)
		}
		spendAll(u, tenants, 1)
		wantShares(t, u, tenants, .85, 1.15)
		u.decay(50*time.Millisecond, time.Second)
	}
	if got := u.active(); math.Abs(got-10) > 1.5 {
		t.Errorf("%v active, want the 10 that stayed", got)
	}
	u.decay(3*time.Second, time.Second)
	spendAll(u, tenants, 1)
	wantShares(t, u, tenants, .85, 1.15)
}

// A tick that passes while somebody spends costs no more than the tick.
func TestUsageOfASlowSpender(t *testing.T) {
	u := newUsage()
	u.spend(1, 100)
	u.decay(time.Second, time.Second)
	now := u.clock.Load()
	u.decay(2*time.Second/usageTicks, time.Second)
	u.spend(1, 1000)
	cell := u.cell(0, usageHash(1))
	before := usageCell(cell.Load())
	if marked := u.add(cell, now, 10); marked != 0 {
		t.Errorf("a cell that somebody has just used is fresher by %v", marked)
	}
	after := usageCell(cell.Load())
	if after.stamp() != before.stamp() || after.sum() != before.sum()+10 {
		t.Errorf("a cell of %v at %d is %v at %d after 10 more", before.sum(), before.stamp(), after.sum(), after.stamp())
	}
}

// The clock comes round, and nobody notices.
func TestUsageClockComesRound(t *testing.T) {
	u := newUsage()
	tenants := someTenants(50, 10)
	u.clock.Store(math.MaxUint32 - 3*usageForgotten)
	for range 6 * usageForgotten {
		spendAll(u, tenants, 1)
		wantShares(t, u, tenants, .9, 1.1)
		u.decay(time.Second/usageTicks, time.Second)
	}
	u.clock.Add(1 << 31)
	wantShares(t, u, tenants, 0, 0)
}

// What two spend at once is all counted, also for the same tenant. Of more at the very same time a part is.
func TestUsageIsSafeForConcurrentUse(t *testing.T) {
	for _, c := range []struct {
		spenders int
		least    float64
	}{{2, .99}, {8, .25}} {
		const rounds = 20_000
		tenants := someTenants(c.spenders+1, 11) // one each, and one for all
		u := newUsage()
		var all sync.WaitGroup
		for i := range c.spenders {
			all.Go(func() {
				for range rounds {
					u.spend(tenants[i], 1)
					u.spend(tenants[c.spenders], 1)
					if got := u.shares(tenants[i]); !(got >= 0 && got <= usageColumns) {
						t.Errorf("%v shares", got)
						return
					}
				}
			})
		}
		all.Wait()
		spent := 0.0
		for i := range u.spent {
			spent += math.Float64frombits(u.spent[i].sum.Load())
		}
		if want := 2 * float64(c.spenders) * rounds; spent != want {
			t.Errorf("%v spent in all, want %v", spent, want)
		}
		n := float64(c.spenders + 1)
		if got := u.active(); math.Abs(got/n-1) > .05 {
			t.Errorf("%v active, want %v", got, n)
		}
		wantShares(t, u, tenants[:c.spenders], .94*n/2/(n-1), 1.06*n/2/(n-1))
		wantShares(t, u, tenants[c.spenders:], .94*n/2*c.least, 1.06*n/2)
	}
}

func TestUsageForgetsWhileOthersSpend(t *testing.T) {
	tenants := someTenants(50, 12)
	u := newUsage()
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 12))
			for {
				select {
				case <-stop:
					return
				default:
				}
				spendAll(u, tenants, 1)
				u.spend(rng.Uint64(), 1)
				if got := u.shares(tenants[0]); !(got >= 0 && got <= usageColumns) {
					t.Errorf("%v shares", got)
					return
				}
			}
		})
	}
	for range 5000 {
		u.decay(time.Second/100, time.Second)
	}
	u.decay(time.Hour, time.Second) // longer than anything is remembered
	for range 100 {
		u.decay(time.Second/100, time.Second)
	}
	close(stop)
	all.Wait()
	u.decay(time.Hour, time.Second)
	wantShares(t, u, tenants, 0, 0)
	for range 500 {
		spendAll(u, tenants, 1)
		u.decay(time.Second/50, time.Second)
	}
	wantShares(t, u, tenants, .9, 1.1)
}

func TestUsageAllocatesNothing(t *testing.T) {
	u := newUsage()
	tenant := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		tenant++
		u.spend(tenant%100, 1)
		u.shares(tenant)
		u.decay(time.Millisecond, time.Second)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// A naive twin: one number a tenant, and all of them multiplied at each tick.
type naiveUsage struct {
	ticks float64
	ever  float64 // spent, and never forgotten
	spent map[uint64]float64
	fresh map[uint64]float64
}

func (n *naiveUsage) spend(tenant uint64, cost float64) {
	if cost > 0 {
		n.ever += cost
		n.spent[tenant] += cost
		n.fresh[tenant] = 1
	}
}

func (n *naiveUsage) decay(elapsed, memory time.Duration) {
	whole := math.Floor(n.ticks + float64(elapsed)/float64(memory)*usageTicks)
	n.ticks += float64(elapsed)/float64(memory)*usageTicks - whole
	for tenant := range n.spent {
		n.spent[tenant] *= math.Exp(-whole / usageTicks)
		n.fresh[tenant] *= math.Exp(-whole / usageTicks)
	}
}

func (n *naiveUsage) active() (count float64) {
	for _, fresh := range n.fresh {
		count += fresh
	}
	return max(1, count)
}

func (n *naiveUsage) all() (all float64) {
	for _, spent := range n.spent {
		all += spent
	}
	return all
}

// Among few tenants the sketch says what the naive twin says.
func FuzzUsageAndItsNaiveTwin(f *testing.F) {
	f.Add([]byte{1, 100, 2, 100, 1, 3, 200, 7, 3, 9, 230, 1, 4, 1})
	f.Add([]byte("some spend, some wait, and some have spent before"))
	f.Add([]byte{0, 255, 255, 255, 1, 1, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255, 1, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 2000 {
			return
		}
		const tenants = 32
		const memory = 1 << 15 * time.Millisecond // so that no tick is lost or gained in rounding
		fast := newUsage()
		naive := &naiveUsage{spent: map[uint64]float64{}, fresh: map[uint64]float64{}}
		for ; len(script) > 1; script = script[2:] {
			op, arg := script[0], script[1]
			switch {
			case op < 200:
				tenant, cost := uint64(op%tenants), math.Exp2(float64(arg%16))-1
				fast.spend(tenant, cost)
				naive.spend(tenant, cost)
			default:
				elapsed := time.Duration(arg) * time.Duration(arg) * time.Millisecond // up to two memories
				fast.decay(elapsed, memory)
				naive.decay(elapsed, memory)
			}
		}
		count, want := fast.active(), naive.active()
		if math.Abs(count-want) > .1+.1*want { // two who share a cell of one row count for 1.75
			t.Errorf("%v active, naive %v", count, want)
		}
		all := naive.all()
		rest := naive.ever * math.Exp(-15.9) // what the sketch may have forgotten altogether
		for tenant := range uint64(tenants) {
			got, want := fast.shares(tenant)/count*all, naive.spent[tenant]
			if math.Abs(got-want) > 1e-4*all+rest {
				t.Errorf("tenant %d has had %v of %v, naive %v", tenant, got, all, want)
			}
		}
	})
}

// Whatever is sent, in whatever numbers, shares are numbers.
func FuzzUsage(f *testing.F) {
	f.Add(uint64(1), uint64(2), 1.0, 1e300, int64(time.Second), int64(time.Second))
	f.Add(uint64(0), uint64(0x9e3779b97f4a7c15), 5e-324, math.Inf(1), int64(-1), int64(0))
	f.Fuzz(func(t *testing.T, a, b uint64, x, y float64, elapsed, memory int64) {
		u := newUsage()
		for range 3 {
			u.spend(a, x)
			u.spend(b, y)
			for _, tenant := range []uint64{a, b, a + 1} {
				if got := u.shares(tenant); !(got >= 0 && got <= 2.01) {
					t.Fatalf("%v shares of two tenants", got)
				}
			}
			u.decay(time.Duration(elapsed), time.Duration(memory))
		}
	})
}

func BenchmarkUsageSpend(b *testing.B) {
	tenants := someTenants(256, 1)
	for name, n := range map[string]int{"one": 1, "256": 256} {
		b.Run(name, func(b *testing.B) {
			u := newUsage()
			for i := 0; b.Loop(); i++ {
				u.spend(tenants[i&(n-1)], 1)
				if i%10_000 == 0 {
					u.decay(time.Second/usageTicks, time.Second)
				}
			}
		})
	}
	b.Run("flood", func(b *testing.B) {
		u := newUsage()
		for i := uint64(0); b.Loop(); i++ {
			u.spend(i, 1)
			if i%10_000 == 0 {
				u.decay(time.Second/usageTicks, time.Second)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		u := newUsage()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				u.spend(tenants[i&255], 1)
			}
		})
	})
}

func BenchmarkUsageShares(b *testing.B) {
	tenants := someTenants(256, 1)
	u := newUsage()
	spendAll(u, tenants, 1)
	u.decay(time.Second, time.Second)
	for i := 0; b.Loop(); i++ {
		u.shares(tenants[i&255])
	}
}

func BenchmarkUsageDecay(b *testing.B) {
	u := newUsage()
	spendAll(u, someTenants(256, 1), 1)
	for b.Loop() {
		u.decay(time.Second/usageTicks, time.Second) // always a tick
	}
}

// What an admission pays for the time, for comparison.
func BenchmarkUsageBesideAClock(b *testing.B) {
	start := time.Now()
	for b.Loop() {
		_ = time.Since(start)
	}
}
