package limiter

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// station does the work of a request, and reports how it ended.
type station func(context.Context, *rand.Rand) Outcome

// poolOf is a pool that serves first come, first served. Whose deadline passes in its queue leaves it, and what is begun
// is finished, in time or not.
func poolOf(workers int, mean time.Duration) station {
	pool := make(chan struct{}, workers)
	return func(ctx context.Context, random *rand.Rand) Outcome {
		select {
		case pool <- struct{}{}:
		case <-ctx.Done():
			return Late
		}
		time.Sleep(time.Duration(random.ExpFloat64() * float64(mean)))
		<-pool
		return OK
	}
}

// roomForAll takes its time, however much it has to do.
func roomForAll(stay time.Duration) station {
	return func(context.Context, *rand.Rand) Outcome {
		time.Sleep(stay)
		return OK
	}
}

// roomForEach takes longer for some than for others.
func roomForEach(_ context.Context, random *rand.Rand) Outcome {
	time.Sleep(time.Duration(random.Int64N(int64(400 * time.Millisecond))))
	return OK
}

// stream is a load of Poisson arrivals.
type stream struct {
	rate     float64 // requests a second
	patience time.Duration
	request  Request
}

// verdicts are what became of a stream.
type verdicts struct {
	mu                   sync.Mutex
	all, refused, timely int
}

func (v *verdicts) share() float64 { return float64(v.refused) / float64(v.all) }

// offer sends streams of requests for a time, and returns what became of each once all have gone.
func offer(t *testing.T, l *Limiter, work station, span time.Duration, streams ...stream) []*verdicts {
	t.Helper()
	var all sync.WaitGroup
	var became []*verdicts
	for i, c := range streams {
		v := &verdicts{}
		became = append(became, v)
		all.Go(func() {
			arrivals := rand.New(rand.NewPCG(1, uint64(i)))
			start := time.Now()
			for next, n := start, uint64(0); next.Sub(start) < span; n++ {
				time.Sleep(time.Until(next))
				all.Go(func() { v.note(l, work, c, rand.New(rand.NewPCG(n, uint64(i)))) })
				next = next.Add(time.Duration(arrivals.ExpFloat64() / c.rate * float64(time.Second)))
			}
		})
	}
	all.Wait()
	return became
}

func (v *verdicts) note(l *Limiter, work station, c stream, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	permit, err := l.AcquireRequest(ctx, c.request)
	if err == nil {
		outcome := Panicked
		defer func() { permit.Release(outcome) }()
		outcome = work(ctx, random)
		permit.Release(outcome)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all++
	if err != nil || permit.Refusal() != nil {
		v.refused++
	}
	if err == nil && ctx.Err() == nil {
		v.timely++
	}
}

func wantNothingLeft(t *testing.T, l *Limiter) {
	t.Helper()
	wantEmpty(t, l)
	if n := l.Stats().DryRun; n != 0 {
		t.Errorf("%d requests of dry runs at the end, want none", n)
	}
	if n := l.dry.holders.Len(); n != 0 {
		t.Errorf("%d of them hold a permit, want none", n)
	}
}

const patient = 500 * time.Millisecond

// What a dry run would refuse is what is refused in earnest, though the service drowns in it: at 2x and 4x nearly all of
// what it answers is late.
func TestADryRunRefusesWhatIsRefusedInEarnest(t *testing.T) {
	for _, factor := range []float64{2, 4} {
		var share [2]float64
		for i, dry := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				l := mustNew(t)
				s := stream{factor * 1000, patient, Request{DryRun: dry}}
				v := offer(t, l, poolOf(10, 10*time.Millisecond), 5*time.Second, s)[0]
				share[i] = v.share()
				wantNothingLeft(t, l)
			})
		}
		t.Logf("%vx: %.3f in earnest, %.3f in a dry run", factor, share[0], share[1])
		if want := 1 - 1/factor; math.Abs(share[0]-want) > .1 || math.Abs(share[1]-share[0]) > .1 {
			t.Errorf("%vx: %.3f would be refused, and %.3f are in earnest; want both about %.2f", factor, share[1], share[0], want)
		}
	}
}

// Also where so little time is left that what waits in the service for its turn is soon gone.
func TestADryRunOfTheHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, work := mustNew(t), poolOf(10, 10*time.Millisecond)
		for _, factor := range []float64{.5, .9, 1.2, 1.5, 2, 4} {
			v := offer(t, l, work, 5*time.Second, stream{factor * 1000, 100 * time.Millisecond, Request{DryRun: true}})[0]
			if want := 1 - 1/factor; factor >= 1.5 && math.Abs(v.share()-want) > .15 {
				t.Errorf("%vx: %.3f would be refused, want %.3f", factor, v.share(), want)
			}
		}
	})
}

// A dry run would refuse those whom it hits in earnest.
func TestADryRunKnowsWhoIsCritical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		v := offer(t, l, poolOf(10, 10*time.Millisecond), 5*time.Second,
			stream{1500, patient, Request{DryRun: true, Criticality: Sheddable}},
			stream{500, patient, Request{DryRun: true, Criticality: CriticalPlus}})
		if low, high := v[0].share(), v[1].share(); high > .02 || math.Abs(low-2./3) > .1 {
			t.Errorf("%.3f of SHEDDABLE and %.3f of CRITICAL_PLUS would be refused; want .67 and none", low, high)
		}
		wantNothingLeft(t, l)
	})
}

// Where all fits, nothing would be refused, however much is in flight, and however far that is from the limit at the start.
func TestADryRunRefusesNothingOfWhatFits(t *testing.T) {
	for name, test := range map[string]struct {
		work func() station // made in the bubble
		rate float64
	}{
		"half of a pool":   {func() station { return poolOf(10, 10*time.Millisecond) }, 500},
		"100 in flight":    {func() station { return roomForAll(100 * time.Millisecond) }, 1000},
		"some take longer": {func() station { return roomForEach }, 1000},
		"300 in flight":    {func() station { return roomForAll(300 * time.Millisecond) }, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, work := mustNew(t), test.work()
				s := stream{test.rate, time.Second, Request{DryRun: true}}
				offer(t, l, work, 5*time.Second, s) // until the limit is found, from a cold start
				if v := offer(t, l, work, 5*time.Second, s)[0]; v.refused > 0 {
					t.Errorf("%d of %d would be refused; want none, the limit is %d", v.refused, v.all, l.Stats().Limit)
				}
				wantNothingLeft(t, l)
			})
		})
	}
}

// A callee that becomes 30 times slower, with room for all, is no overload either.
func TestADryRunFollowsASlowCallee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		s := stream{1000, time.Second, Request{DryRun: true}}
		offer(t, l, roomForAll(10*time.Millisecond), 5*time.Second, s)
		offer(t, l, roomForAll(300*time.Millisecond), 5*time.Second, s)
		if v := offer(t, l, roomForAll(300*time.Millisecond), 5*time.Second, s)[0]; v.refused > 0 {
			t.Errorf("%d of %d would be refused; want none, the limit is %d", v.refused, v.all, l.Stats().Limit)
		}
	})
}

func TestADryRunComesBackFromAnOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, work := mustNew(t), poolOf(10, 10*time.Millisecond)
		calm := stream{500, patient, Request{DryRun: true}}
		offer(t, l, work, 3*time.Second, calm)
		before := l.Stats().Limit
		offer(t, l, work, 3*time.Second, stream{4000, patient, Request{DryRun: true}})
		offer(t, l, work, time.Second, calm)
		if v := offer(t, l, work, 3*time.Second, calm)[0]; v.refused > 0 {
			t.Errorf("%d of %d would be refused after the overload; want none", v.refused, v.all)
		}
		if after := l.Stats().Limit; after < before*3/4 {
			t.Errorf("the limit is %d after a dry run under overload, and was %d before; want no less, for nothing was learned", after, before)
		}
		wantNothingLeft(t, l)
	})
}

// The limit follows what is under way only where all of it is finished, and where it holds back nobody in earnest.
func TestADryRunLiftsTheLimit(t *testing.T) {
	const under = 300 // way
	for name, test := range map[string]struct {
		asked, useful float64
		found         tally
		open          int64
		fixed         bool
		want          int
	}{
		"all is finished":          {asked: 100, useful: 95, found: tally{dry: 5}, open: under, want: under},
		"that is not sure":         {asked: 100, useful: 85, found: tally{dry: 5}, open: under, want: 100},
		"overload":                 {asked: 100, useful: 70, found: tally{dry: 5}, open: under},
		"it holds others back":     {asked: 100, useful: 95, found: tally{dry: 5, earnest: 6}, open: under},
		"the dry run is over":      {asked: 100, useful: 95},
		"the limit is a fixed one": {asked: 100, useful: 95, found: tally{dry: 5}, open: under, fixed: true},
	} {
		d := dryRuns{fixed: test.fixed, floor: 100}
		d.open.Store(test.open)
		d.follow(feedback.Sample{Asked: test.asked, Useful: test.useful}, test.found, 0)
		if d.floor != test.want {
			t.Errorf("%s: lifted to %d, want %d", name, d.floor, test.want)
		}
	}
}

// Those of a dry run take the service, as they do without any limiter, but no permits that they would not have. So those in
// earnest are refused as if all were, where the service has room for all, and elsewhere for no more than what is left.
func TestADryRunTakesNoPermitsFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var share [2]float64
		for i, dry := range []bool{false, true} {
			l := mustNew(t, WithFixedLimit(10))
			v := offer(t, l, roomForAll(10*time.Millisecond), 5*time.Second,
				stream{1000, patient, Request{}}, stream{1000, patient, Request{DryRun: dry}})
			share[i] = v[0].share()
			wantNothingLeft(t, l)
		}
		if share[1] > share[0]+.02 {
			t.Errorf("%.3f refused beside a dry run; want no more than the %.3f if all are in earnest", share[1], share[0])
		}
	})
	const capacity = 1000.
	for _, rates := range [][2]float64{{1900, 100}, {1500, 500}, {1100, 200}, {800, 800}} {
		synctest.Test(t, func(t *testing.T) {
			l := mustNew(t)
			v := offer(t, l, poolOf(10, 10*time.Millisecond), 5*time.Second,
				stream{rates[0], patient, Request{Method: "a"}}, stream{rates[1], patient, Request{Method: "b", DryRun: true}})
			t.Logf("%v and %v of a dry run: %.3f refused, %.3f would be", rates[0], rates[1], v[0].share(), v[1].share())
			if most := 1 - (capacity-rates[1])/rates[0] + .05; v[0].share() > most {
				t.Errorf("%v beside %v of a dry run: %.3f refused; want at most %.3f", rates[0], rates[1], v[0].share(), most)
			}
			wantNothingLeft(t, l)
		})
	}
}

func TestADryRunLeavesAFixedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10))
		v := offer(t, l, roomForAll(10*time.Millisecond), 5*time.Second, stream{2000, patient, Request{DryRun: true}})[0]
		if limit := l.Stats().Limit; limit != 10 || v.timely != v.all {
			t.Errorf("the limit is %d, and %d of %d were served; want 10, and all", limit, v.timely, v.all)
		}
	})
}

// Who would wait goes on at once, gives its place up when it is done, and is refused if it is late by then.
func TestADryRunHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ask := func() Permit {
			p, err := l.AcquireRequest(ctx, Request{DryRun: true})
			if err != nil || l.Preview(ctx, Request{DryRun: true}) != nil {
				t.Fatalf("AcquireRequest = %v; want a permit, and Preview to foretell it", err)
			}
			return p
		}
		first, second, third := ask(), ask(), ask()
		if s := l.Stats(); s.InFlight != 1 || s.Line != 2 || s.DryRun != 2 {
			t.Errorf("%d in flight, %d in line, %d without; want 1, 2 and 2", s.InFlight, s.Line, s.DryRun)
		}
		second.Suspend() // its work is done for now
		second.Resume()
		second.Release(OK)
		if s := l.Stats(); s.InFlight != 1 || s.Line != 1 {
			t.Errorf("%d in flight, %d in line after one has left the line; want 1 and 1", s.InFlight, s.Line)
		}
		time.Sleep(2 * time.Second)
		third.Release(Late)
		third.Release(OK) // does nothing
		first.Cancel()
		for name, p := range map[string]Permit{"first": first, "second": second} {
			if r := p.Refusal(); r != nil {
				t.Errorf("the %s would be refused: %v; want it to be served", name, r)
			}
		}
		if r := third.Refusal(); r == nil || r.Reason != ReasonExpired {
			t.Errorf("Refusal of the late one = %v, want %v", r, ReasonExpired)
		}
		if p, err := l.AcquireRequest(ctx, Request{DryRun: true}); err != nil || p.Refusal() == nil {
			t.Errorf("AcquireRequest past the deadline = %v, %v; want a permit with a refusal", p.Refusal(), err)
		} else {
			p.Release(Ignored)
		}
		wantNothingLeft(t, l)
	})
}
