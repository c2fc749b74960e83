package limiter_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// A mark is the wait over what the line may stand: half of the time that the typical request can spare.
func TestMarkIsTheWaitOfWhatMayStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := limiter.New(limiter.WithFixedLimit(1))
		if err != nil {
			t.Fatal(err)
		}
		waits := make(chan time.Duration, 8)
		work := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			permit, err := l.Acquire(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if wait := permit.Sojourn(); wait > 0 {
				waits <- wait
			}
			time.Sleep(5 * time.Millisecond)
			permit.Release(limiter.OK)
		}
		if mark := l.Mark(limiter.Critical, time.Second); mark != 0 {
			t.Errorf("a mark of %v before anything is known, want 0", mark)
		}
		for range 100 {
			work()
			time.Sleep(time.Millisecond)
		}
		for range 3 {
			go work()
		}
		synctest.Wait()
		room := (500*time.Millisecond - 25*time.Millisecond/2) / 2
		for wait, want := range map[time.Duration]float64{
			-time.Second: 0, 0: 0, room / 10: .1, room / 2: .5, 2 * room: 1,
		} {
			if got := l.Mark(limiter.Critical, wait); math.Abs(got-want) > .01 {
				t.Errorf("a mark of %v after a wait of %v, want %v", got, wait, want)
			}
		}
		<-waits
		<-waits
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
