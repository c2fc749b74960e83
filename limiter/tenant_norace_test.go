//go:build !race

// The race detector takes ten times as long to come to the same figures.

package limiter

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// crowd is a number of tenants that each send so many requests a second, at random.
type crowd struct {
	tenants     int
	rate        float64
	criticality Criticality
	names       bool          // each request has a name of its own
	from        time.Duration // 0: from the start
	until       time.Duration // 0: to the end
}

// shared is a limiter in front of ten workers, who take 10 ms a request in the mean: 1000 a second. What happens in the first
// seconds does not count: who has had what has to be seen first.
type shared struct {
	limiter  *Limiter
	patience time.Duration // of every request; 0: no deadline
	seed     uint64
	start    time.Time
}

const (
	sharedWorkers = 10
	sharedService = 10 * time.Millisecond
	sharedRate    = 1000
	sharedWarmUp  = 5 * time.Second
	sharedLength  = 20 * time.Second // that count
)

// fate is what became of the requests of a tenant that count.
type fate struct{ asked, served int }

func (f fate) part() float64 { return float64(f.served) / float64(max(1, f.asked)) }

// run returns the fates of each crowd's tenants, and the share of what the workers could do that they did.
func (s *shared) run(t *testing.T, crowds ...crowd) (fates [][]fate, goodput float64) {
	t.Helper()
	s.limiter = mustNew(t, WithFixedLimit(sharedWorkers))
	s.start = time.Now()
	var all sync.WaitGroup
	for i, c := range crowds {
		fates = append(fates, make([]fate, c.tenants))
		for j := range c.tenants {
			all.Go(func() { s.send(&all, c, uint64(i)<<32|uint64(j), &fates[i][j]) })
		}
	}
	all.Wait()
	wantEmpty(t, s.limiter)
	for _, f := range fates {
		goodput += float64(total(f).served) / (sharedRate * sharedLength.Seconds())
	}
	return fates, goodput
}

// send sends the requests of one tenant.
func (s *shared) send(all *sync.WaitGroup, c crowd, id uint64, f *fate) {
	rng := rand.New(rand.NewPCG(s.seed, id))
	var mu sync.Mutex
	tenant := Tenant(max(1, rng.Uint64())) // as of a name, but the same each time
	time.Sleep(c.from)
	for {
		time.Sleep(time.Duration(rng.ExpFloat64() / c.rate * float64(time.Second)))
		now := time.Since(s.start)
		if now > sharedWarmUp+sharedLength || c.until > 0 && now > c.until {
			return
		}
		if c.names {
			tenant = Tenant(max(1, rng.Uint64()))
		}
		request, service := Request{Criticality: c.criticality, Tenant: tenant}, time.Duration(rng.ExpFloat64()*float64(sharedService))
		all.Go(func() {
			err := s.serve(request, service)
			if now < sharedWarmUp {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			f.asked++
			if err == nil {
				f.served++
			}
		})
	}
}

func (s *shared) serve(r Request, service time.Duration) error {
	ctx := context.Background()
	if s.patience > 0 {
		within, cancel := context.WithTimeout(ctx, s.patience)
		defer cancel()
		ctx = within
	}
	permit, err := s.limiter.AcquireRequest(ctx, r)
	if err != nil {
		return err
	}
	time.Sleep(service)
	permit.Release(OK)
	return nil
}

func total(fates []fate) (sum fate) {
	for _, f := range fates {
		sum.asked += f.asked
		sum.served += f.served
	}
	return sum
}

func worstOf(fates []fate) float64 {
	return slices.MinFunc(fates, func(a, b fate) int { return int(math.Copysign(1, a.part()-b.part())) }).part()
}

// jain returns the fairness index of R. Jain, D.-M. Chiu and W. Hawe, DEC-TR-301, 1984: 1 where all have the same, 1/n
// where one of n has everything.
func jain(fates []fate) float64 {
	sum, squares := 0.0, 0.0
	for _, f := range fates {
		sum += float64(f.served)
		squares += float64(f.served) * float64(f.served)
	}
	return sum * sum / (float64(len(fates)) * squares)
}

// Tenants that ask for the same get the same, though each moment some are refused and some are not.
func TestEqualTenantsGetTheSame(t *testing.T) {
	for _, tenants := range []int{10, 100} {
		for _, patience := range []time.Duration{0, 500 * time.Millisecond, 100 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				s := shared{patience: patience, seed: 1}
				fates, goodput := s.run(t, crowd{tenants: tenants, rate: 3 * sharedRate / float64(tenants)})
				index := jain(fates[0])
				t.Logf("%3d tenants at three times the limit, patience %5v: fairness %.3f, the worst has %.2f of %.2f, goodput %.3f",
					tenants, patience, index, worstOf(fates[0]), total(fates[0]).part(), goodput)
				if index < .95 {
					t.Errorf("%d tenants, patience %v: fairness %.3f, want .95", tenants, patience, index)
				}
				if goodput < .95 {
					t.Errorf("%d tenants, patience %v: goodput %.3f, want .95", tenants, patience, goodput)
				}
			})
		}
	}
}

// One who sends a hundred times as much as each of nine others, whose load fits, takes nothing from them: at most 2% of
// what they ask. It is hardest where they ask for .8: what they leave is no more than twice what each of them has. In front
// of workers who are never idle they are an M/M/1 queue, by which a ten-thousandth of them would be late at best.
func TestAbuserTakesNothing(t *testing.T) {
	const others = 9
	for _, load := range []float64{.5, .8} {
		for _, patience := range []time.Duration{0, 500 * time.Millisecond, 100 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				rate := load * sharedRate / others
				s := shared{patience: patience, seed: 1}
				fates, goodput := s.run(t, crowd{tenants: others, rate: rate}, crowd{tenants: 1, rate: 100 * rate})
				worst, index := worstOf(fates[0]), jain(fates[0])
				t.Logf("others' load %.1f, patience %5v: the worst of them gets %.3f of what it asks, all %.3f, the abuser %.3f; fairness %.3f, goodput %.3f",
					load, patience, worst, total(fates[0]).part(), total(fates[1]).part(), index, goodput)
				if worst < .98 {
					t.Errorf("load %v, patience %v: the worst of the others gets %.3f, want .98", load, patience, worst)
				}
				if index < .95 {
					t.Errorf("load %v, patience %v: fairness %.3f among the others, want .95", load, patience, index)
				}
				if goodput < .97 {
					t.Errorf("load %v, patience %v: goodput %.3f, want .97", load, patience, goodput)
				}
			})
		}
	}
}

// A crowd of tenants of a lower criticality takes nothing from those of a higher one, whose load fits. Nor does it make
// them look heavier than they are among themselves: where one of them asks for too much, the others still have all.
func TestTenantsOfALowerCriticalityTakeNothing(t *testing.T) {
	low := crowd{tenants: 1000, rate: 5, criticality: Sheddable} // five times the limit
	for _, patience := range []time.Duration{0, 500 * time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			s := shared{patience: patience, seed: 1}
			fitting := crowd{tenants: 20, rate: 40, criticality: Critical}
			alone, _ := s.run(t, fitting)
			beside, goodput := s.run(t, fitting, low)
			had, have := total(alone[0]).part(), total(beside[0]).part()
			t.Logf("patience %5v: %.3f alone, %.3f beside the crowd, which gets %.3f; goodput %.3f", patience, had, have, total(beside[1]).part(), goodput)
			if have < had-.01 {
				t.Errorf("patience %v: %.3f beside a crowd of a lower criticality, want the %.3f that they had alone", patience, have, had)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			s := shared{patience: patience, seed: 1}
			fates, goodput := s.run(t, crowd{tenants: 10, rate: 10}, crowd{tenants: 1, rate: 1500}, low)
			worst := worstOf(fates[0])
			t.Logf("patience %5v: with one who asks for 1.5 times the limit the worst of the others gets %.3f, that one %.3f, the crowd %.3f; goodput %.3f",
				patience, worst, total(fates[1]).part(), total(fates[2]).part(), goodput)
			if worst < .98 {
				t.Errorf("patience %v: the worst of the others gets %.3f, want .98", patience, worst)
			}
		})
	}
}

// A million names take no memory and do not keep the workers from working. What they take from tenants that come again
// is shown and not judged: each looks like somebody who has had nothing yet, which is why names should cost something.
func TestFloodOfNames(t *testing.T) {
	if size := unsafe.Sizeof(usage{}); size > 36_000 {
		t.Errorf("to remember tenants takes %d bytes, want 36 kB at most", size)
	}
	synctest.Test(t, func(t *testing.T) {
		var before, during runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		go func() {
			time.Sleep(sharedWarmUp + sharedLength - time.Millisecond)
			runtime.GC()
			runtime.ReadMemStats(&during)
		}()
		s := shared{seed: 1}
		fates, goodput := s.run(t, crowd{tenants: 20, rate: 25}, crowd{tenants: 10, rate: 5000, names: true, from: sharedWarmUp})
		names, grown := total(fates[1]).asked, int64(during.HeapAlloc)-int64(before.HeapAlloc)
		t.Logf("%d names: %d bytes more in use, goodput %.3f; those who were there before get %.3f, the flood %.3f",
			names, grown, goodput, total(fates[0]).part(), total(fates[1]).part())
		if names < 990_000 {
			t.Errorf("%d names, want a million", names)
		}
		if grown > 1<<20 {
			t.Errorf("%d bytes more in use after %d names, want less than a megabyte", grown, names)
		}
		if goodput < .95 {
			t.Errorf("goodput %.3f, want .95", goodput)
		}
	})
}

// Soon after a flood, within half a memory, it is as if it had not been: an abuser does not hide among its names.
func TestFloodOfNamesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shared{seed: 1}
		fates, goodput := s.run(t, crowd{tenants: 20, rate: 25}, crowd{tenants: 1, rate: 2500},
			crowd{tenants: 10, rate: 5000, names: true, until: sharedWarmUp / 2})
		worst := worstOf(fates[0])
		t.Logf("after the flood the worst gets %.3f, the abuser %.3f; goodput %.3f", worst, total(fates[1]).part(), goodput)
		if worst < .98 {
			t.Errorf("the worst gets %.3f after the flood, want .98", worst)
		}
	})
}
