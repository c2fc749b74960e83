package limiter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// What the service was seen to do at its limit is remembered while less is asked of it, and is more when more is done.
func TestCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(WithFixedLimit(10))
		if err != nil {
			t.Fatal(err)
		}
		load := func(rate int, work time.Duration) {
			for range 3 * rate {
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if permit, err := l.Acquire(ctx); err == nil {
						time.Sleep(work)
						permit.Release(OK)
					}
				}()
				time.Sleep(time.Second / time.Duration(rate))
			}
		}
		check := func(when string, want float64) {
			t.Helper()
			s := l.Stats()
			if s.Capacity < .95*want || s.Capacity > 1.05*want {
				t.Errorf("%s: capacity %v, want %v", when, s.Capacity, want)
			}
			if s.Age > 50*time.Millisecond {
				t.Errorf("%s: as of %v ago, want the last window", when, s.Age)
			}
		}
		load(500, 10*time.Millisecond)
		check("at half of the load", 0)
		load(2000, 10*time.Millisecond)
		check("at twice the load", 1000)
		load(500, 10*time.Millisecond)
		check("at half of it again", 1000)
		load(1500, 5*time.Millisecond)
		check("when it does more without being full", 1500)
		time.Sleep(time.Minute)
		if age := l.Stats().Age; age < 59*time.Second {
			t.Errorf("as of %v ago after a minute of nothing", age)
		}
	})
}

// While the law tries limits, what can be served stays what it was, and so does the load.
func TestLoadDoesNotSwingWithTheLimit(t *testing.T) {
	var p pace
	for i := range 100 {
		limit := 14
		if i/10%2 == 1 {
			limit = 11
		}
		s := windowOf(16*time.Millisecond, limit)
		s.Completions, s.Good, s.Waited, s.Work = 16, 16, 1, 16
		s.Area = float64(limit) * .016
		if i%10 == 0 && limit == 11 {
			s.Area = 13 * .016 // who came before the limit fell has to leave
		}
		s.Sum = s.Area
		p.observe(s, 0)
		p.learn(s)
		if load := p.load(900, s); load < .89 || load > .91 {
			t.Errorf("window %d, with a limit of %d: a load of %v, want .9", i, limit, load)
		}
	}

	// What came before says nothing of a limit that does not hold the load back: by Little's law it would let more through.
	free := windowOf(16*time.Millisecond, 100)
	free.Completions, free.Good, free.Work, free.Area, free.Sum = 16, 16, 16, .16, .16
	for range 100 {
		p.observe(free, 0)
	}
	if load := p.load(900, free); load < .089 || load > .091 {
		t.Errorf("with room for a hundred: a load of %v, want .09", load)
	}
}
