package limiter

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// takeAll takes all permits of the limiter for a method, and returns them.
func takeAll(t *testing.T, l *Limiter, method string) (all []Permit) {
	t.Helper()
	for range l.Stats().Limit {
		p, err := l.AcquireRequest(t.Context(), Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// serves reports whether a request gets a permit within a time, and does 10 ms of work with it.
func serves(t *testing.T, l *Limiter, within time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	p, err := l.AcquireRequest(ctx, Request{Method: "call"})
	if err != nil {
		return false
	}
	time.Sleep(10 * time.Millisecond)
	p.Release(OK)
	return true
}

func wantParked(t *testing.T, l *Limiter, parked, inFlight int) {
	t.Helper()
	if s := l.Stats(); s.Parked != parked || s.InFlight != inFlight {
		t.Errorf("%d parked and %d in flight, want %d and %d", s.Parked, s.InFlight, parked, inFlight)
	}
}

// Requests that wait for what does not come hold others up for a second or so, and then nobody any more.
func TestWhoWaitsForGoodHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		watches := takeAll(t, l, "watch")
		if serves(t, l, leastStill) {
			t.Error("served at once, though as many as the limit are in flight")
		}
		if !serves(t, l, leastStill) {
			t.Errorf("not served after %v in which nothing ended", 2*leastStill)
		}
		wantParked(t, l, len(watches), 0)
		watches = append(watches, takeAll(t, l, "watch")...)
		if !serves(t, l, 2*leastStill) {
			t.Error("not served after twice as many")
		}
		wantParked(t, l, len(watches), 0)
		for _, w := range watches {
			w.Suspend() // a stream that sends something
			w.Resume()
		}
		wantParked(t, l, len(watches), 0)
		for i, w := range watches {
			if i%2 == 0 {
				w.Cancel()
			}
			w.Release(OK)
		}
		wantParked(t, l, 0, 0)
	})
}

// Also the first of all others gets a permit, though nobody comes after it, and it would wait for ever.
func TestWhoStandsStillNeedsNobodyElseToGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		takeAll(t, l, "watch")
		began := time.Now()
		mustAcquire(t, l)
		if took := time.Since(began); took > leastStill+leastStill/looks {
			t.Errorf("a permit after %v, want it after %v", took, leastStill)
		}
	})
}

// Where requests take long, nothing has stood still for long yet.
func TestVeryLongIsRelative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const service = 2 * time.Second
		l := mustNew(t)
		for range 2 {
			for _, p := range takeAll(t, l, "call") {
				time.AfterFunc(service, func() { p.Release(OK) })
			}
			time.Sleep(service + time.Millisecond)
		}
		takeAll(t, l, "watch")
		if serves(t, l, stillFor*service) {
			t.Errorf("served within %v, though requests take %v", stillFor*service, service)
		}
		if !serves(t, l, stillFor*service) {
			t.Errorf("not served after %v", 2*stillFor*service)
		}
	})
}

// While some wait and some are served all in flight count, however long they stay: they may be at work. When nobody waits
// any more those that have stayed for very long do not.
func TestNothingIsParkedWhileSomeWaitAndSomeAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithInitialLimit(5), WithController(constant(5)))
		jobs := takeAll(t, l, "watch")
		jobs[4].Release(OK)
		for range 200 {
			go serves(t, l, time.Minute)
			go serves(t, l, time.Minute)
			time.Sleep(25 * time.Millisecond)
		}
		wantParked(t, l, 0, 4)
		jobs[3].Release(OK)
		young, err := l.AcquireRequest(t.Context(), Request{Method: "watch"})
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			serves(t, l, time.Minute)
		}
		wantParked(t, l, 3, 1)
		young.Release(OK)
		for _, j := range jobs[:3] {
			j.Release(OK)
		}
		wantParked(t, l, 0, 0)
	})
}

// Whoever sets a limit gets it, for all that are under way; and where there is no memory for more, no more come.
func TestWhatIsParkedCountsForLimitsThatAreSet(t *testing.T) {
	for name, test := range map[string]struct {
		options []Option
		parked  int
	}{
		"fixed":      {[]Option{WithFixedLimit(20)}, 0},
		"max":        {[]Option{WithMaxLimit(20)}, 0},
		"higher max": {[]Option{WithMaxLimit(30)}, 10},
		"min":        {[]Option{WithMinLimit(20)}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := mustNew(t, test.options...)
				takeAll(t, l, "watch")
				if got, want := serves(t, l, 3*leastStill), test.parked > 0; got != want {
					t.Errorf("served: %v, want %v", got, want)
				}
				wantParked(t, l, test.parked, 20-test.parked)
			})
		})
	}
	t.Run("max, later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := mustNew(t, WithMaxLimit(30), WithController(constant(30)))
			takeAll(t, l, "watch")
			for range 50 {
				serves(t, l, 2*leastStill)
			}
			if s := l.Stats(); s.Limit+s.Parked != 30 {
				t.Errorf("a limit of %d and %d parked, want 30 in all", s.Limit, s.Parked)
			}
		})
	})
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := mustNew(t)
			l.room.Store(25)
			takeAll(t, l, "watch")
			serves(t, l, 3*leastStill)
			wantParked(t, l, 5, 15)
			if got := l.inside(); got != 20 {
				t.Errorf("%d are there, want all 20", got)
			}
		})
	})
}

// What has always ended and now does not is stuck: to send more after it would only make the heap higher.
func TestWhatIsStuckIsNotParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		for range 50 {
			serves(t, l, time.Second)
		}
		stuck := takeAll(t, l, "call")
		if serves(t, l, time.Minute) {
			t.Error("served while all calls are stuck")
		}
		wantParked(t, l, 0, len(stuck))
		stuck[0].Release(OK)
		p, err := l.AcquireRequest(t.Context(), Request{Method: "watch"})
		if err != nil {
			t.Fatal(err)
		}
		if !serves(t, l, 2*leastStill) {
			t.Error("not served, though one of those in flight only waits")
		}
		wantParked(t, l, 1, len(stuck)-1)
		p.Release(OK)
	})
}

// Who has a deadline ends by itself.
func TestNothingIsParkedThatHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 20 {
			if _, err := l.AcquireRequest(ctx, Request{Method: "watch"}); err != nil {
				t.Fatal(err)
			}
		}
		if serves(t, l, 10*leastStill) {
			t.Error("served while all have a deadline")
		}
		wantParked(t, l, 0, 20)
	})
}

// Work that takes long is not taken for what only waits, for longer than the first of it takes: else a server would have no
// limit whose requests all take long.
func TestSlowWorkIsNotParkedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const service, workers, jobs = 3 * time.Second, 10, 1200
		l := mustNew(t)
		pool := make(chan struct{}, workers)
		var done atomic.Int64
		most := 0
		for range jobs { // three times as many as the workers can do
			go func() {
				p, err := l.AcquireRequest(t.Context(), Request{Method: "job"})
				if err != nil {
					return
				}
				pool <- struct{}{}
				time.Sleep(service)
				<-pool
				p.Release(OK)
				done.Add(1)
			}()
			time.Sleep(service / workers / 3)
			s := l.Stats()
			most = max(most, s.InFlight+s.Parked)
		}
		if can := jobs / 3; float64(done.Load()) < .9*float64(can) {
			t.Errorf("%d of %d that could be done are done", done.Load(), can)
		}
		if s := l.Stats(); most > 6*workers || s.Parked > 0 || s.InFlight > 3*workers {
			t.Errorf("%d under way at most, %d at the end and %d parked; want %d, %d and none", most, s.InFlight, s.Parked, 6*workers, 3*workers)
		}
		time.Sleep(10 * time.Minute)
		wantEmpty(t, l)
	})
}

// What is parked teaches nothing else: how long it stays has nothing to do with the service.
func TestNothingIsLearnedOfWhatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		watches := takeAll(t, l, "watch")
		for range 100 {
			serves(t, l, 2*leastStill)
		}
		before := l.Stats()
		for _, w := range watches {
			w.Release(OK)
		}
		for range 100 {
			serves(t, l, time.Second)
		}
		after := l.Stats()
		if after.Service != before.Service || after.Service > 11*time.Millisecond {
			t.Errorf("requests take %v, and %v after those that were parked have ended; want 10ms", before.Service, after.Service)
		}
		if got := after.Outcomes[OK] - before.Outcomes[OK]; got != 120 {
			t.Errorf("%d have ended well, want all 120", got)
		}
		for _, m := range l.Methods() {
			if m.Name == "watch" {
				t.Errorf("a watch is known to take %v", m.Stay)
			}
		}
	})
}

// Of a bulkhead that is full of those who wait, what is guaranteed is free again.
func TestWhatIsParkedLeavesItsBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithBulkheads(map[string]float64{"a": .5}))
		var watches []Permit
		for range 20 {
			p, err := l.AcquireRequest(t.Context(), Request{Bulkhead: "a"})
			if err != nil {
				t.Fatal(err)
			}
			watches = append(watches, p)
		}
		serves(t, l, 2*leastStill)
		if b := bulkhead(t, l, "a"); b.InFlight != 0 {
			t.Errorf("%d of the bulkhead in flight, want none", b.InFlight)
		}
		for _, w := range watches {
			w.Release(OK)
		}
		if b := bulkhead(t, l, "a"); b.InFlight != 0 {
			t.Errorf("%d of the bulkhead in flight after all have ended, want none", b.InFlight)
		}
		wantEmpty(t, l)
	})
}
