package limiter_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// hold does some work with a permit, for somebody who has half a second.
func hold(t *testing.T, l *limiter.Limiter, work func()) error {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	permit, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	work()
	permit.Release(limiter.OK)
	return nil
}

// A mark is the wait of a newcomer over what the line may stand, half of the time that the typical request can spare; and 1
// once newcomers are refused.
func TestMarkIsTheWaitOfWhatMayStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const service = 5 * time.Millisecond
		l, err := limiter.New(limiter.WithFixedLimit(1))
		if err != nil {
			t.Fatal(err)
		}
		work := func() { _ = hold(t, l, func() { time.Sleep(service) }) }
		check := func(when string, want float64) {
			t.Helper()
			if got := l.Mark(limiter.Critical); math.Abs(got-want) > .03 {
				t.Errorf("%s: a mark of %v, want %v", when, got, want)
			}
		}
		check("before anything is known", 0)
		for range 100 {
			work()
		}
		check("where nobody waits", 0)
		room := (500*time.Millisecond - 5*service/2) / 2
		for range 11 {
			go work()
		}
		synctest.Wait()
		check("ten wait", float64(11*service)/float64(room))
		time.Sleep(5*service + time.Millisecond)
		check("five wait", float64(6*service)/float64(room))
		for range 100 {
			go work()
		}
		synctest.Wait()
		check("no more may wait", 1)
		time.Sleep(time.Second)
		check("all is over", 0)
	})
}

// Where no limit holds it back a line stands in the service, and is marked all the same: by how much more is in flight than
// in calm times.
func TestMarkSeesTheLineInTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const service = 5 * time.Millisecond
		l, err := limiter.New(limiter.WithFixedLimit(100))
		if err != nil {
			t.Fatal(err)
		}
		worker := make(chan struct{}, 1) // there is but one
		work := func() {
			if err := hold(t, l, func() {
				worker <- struct{}{}
				time.Sleep(service)
				<-worker
			}); err != nil {
				t.Error(err)
			}
		}
		for range 400 { // calm: half of what it can do
			go work()
			time.Sleep(2 * service)
		}
		if mark := l.Mark(limiter.Critical); mark != 0 {
			t.Errorf("a mark of %v in calm times, want 0", mark)
		}
		for range 400 { // all that it can do, behind 40 that came together
			go work()
			time.Sleep(service)
		}
		for range 40 {
			go work()
		}
		synctest.Wait()
		if mark := l.Mark(limiter.Critical); mark < .3 || mark > .6 {
			t.Errorf("a mark of %v where 40 wait in the service, 200 ms, want about .45", mark)
		}
		time.Sleep(time.Second)
	})
}

// Of marks the highest counts, and nonsense none.
func TestMarkMetIsTheHighest(t *testing.T) {
	limiter.NoteMark(t.Context(), 1) // nobody to hear of it
	if met := limiter.MarkMet(t.Context()); met != 0 {
		t.Errorf("a mark of %v met without a limiter, want 0", met)
	}
	ctx := limiter.ContextWithLimiter(t.Context(), nil, limiter.Unspecified)
	for _, c := range []struct{ note, want float64 }{
		{math.NaN(), 0}, {-1, 0}, {.25, .25}, {.125, .25}, {math.Inf(1), 1}, {.5, 1},
	} {
		limiter.NoteMark(ctx, c.note)
		if met := limiter.MarkMet(ctx); met != c.want {
			t.Errorf("a mark of %v met after %v, want %v", met, c.note, c.want)
		}
	}
	if met := limiter.PressureMet(ctx); met != 0 {
		t.Errorf("a pressure of %v met, want none", met)
	}
}

// What comes by chance while all fits is no line: hardly anything is marked at half load, and by little.
func TestChanceIsNotMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := limiter.New(limiter.WithFixedLimit(1000))
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		marked, sum := 0, 0.
		const calls = 5000
		for i := range calls {
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(time.Millisecond)))
			go func() {
				if err := hold(t, l, func() { time.Sleep(50 * time.Millisecond) }); err != nil {
					t.Error(err)
				}
			}()
			if mark := l.Mark(limiter.Critical); i > calls/2 && mark > 0 {
				marked++
				sum += mark
			}
		}
		if marked > calls/20 || sum > calls/500 {
			t.Errorf("%d of %d marked, with %.1f in all, want at most a tenth, with %v", marked, calls/2, sum, calls/500)
		}
		t.Logf("%d of %d marked, with %.1f in all", marked, calls/2, sum)
		time.Sleep(time.Second)
	})
}
