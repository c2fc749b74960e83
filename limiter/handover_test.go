package limiter

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// working returns the context of work that has a permit.
func working(t *testing.T, l *Limiter, r Request) (context.Context, Permit) {
	t.Helper()
	p, err := l.AcquireRequest(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return ContextWithPermit(t.Context(), l, r.Criticality, p), p
}

func wantInFlight(t *testing.T, l *Limiter, inFlight, handedOver int) {
	t.Helper()
	if s := l.Stats(); s.InFlight != inFlight || s.HandedOver != handedOver {
		t.Errorf("%d in flight and %d handed over, want %d and %d", s.InFlight, s.HandedOver, inFlight, handedOver)
	}
}

// Work is in flight unless it waits for a callee, however many it waits for, and however it ends.
func TestWhatIsHandedOverIsNotInFlight(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	ctx, p := working(t, l, Request{})
	first := HandOver(ctx)
	second := HandOver(context.WithValue(ctx, waiterKey{}, 1))
	wantInFlight(t, l, 0, 1)
	other := mustAcquire(t, l)
	first.TakeBack()
	wantInFlight(t, l, 1, 1)
	second.TakeBack() // at once, though the limit is reached
	wantInFlight(t, l, 2, 0)
	other.Release(OK)

	third := HandOver(ctx)
	p.Release(OK) // the handler does not wait for its call
	wantInFlight(t, l, 0, 1)
	third.TakeBack()
	wantInFlight(t, l, 0, 0)
	HandOver(ctx).TakeBack()
	wantEmpty(t, l)
}

type waiterKey struct{}

// Other work has nothing to hand over.
func TestOnlyWorkWithAPermitIsHandedOver(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	p := mustAcquire(t, l)
	for _, ctx := range []context.Context{t.Context(), ContextWithLimiter(t.Context(), l, Critical)} {
		if h := HandOver(ctx); h != (Handover{}) {
			t.Errorf("%v hands over %v", ctx, h)
		}
	}
	Handover{}.TakeBack()
	wantInFlight(t, l, 1, 0)
	p.Release(OK)
	wantEmpty(t, l)
}

// What a callee takes is neither the service time of its caller, nor time that too much in flight has cost.
func TestTheCalleesTimeIsNotTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		for range 200 {
			ctx, p := working(t, l, Request{})
			time.Sleep(10 * time.Millisecond)
			h := HandOver(ctx)
			time.Sleep(90 * time.Millisecond)
			h.TakeBack()
			p.Release(OK)
		}
		if got := l.Stats().Service; got != 10*time.Millisecond {
			t.Errorf("a service time of %v, want the 10ms that the work itself took", got)
		}
		wantEmpty(t, l)
	})
}

// The work of a dry run hands over nothing: its permit may be another's before it is taken back.
func TestADryRunHandsOverNothing(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	ctx, p := working(t, l, Request{DryRun: true})
	HandOver(ctx)
	wantInFlight(t, l, 1, 0)
	p.Release(OK)
	wantEmpty(t, l)
}

// A handover that is taken back twice takes nothing from the next.
func TestAHandoverTakenBackTwice(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	ctx, p := working(t, l, Request{})
	h := HandOver(ctx)
	h.TakeBack()
	h.TakeBack()
	h = HandOver(ctx)
	wantInFlight(t, l, 0, 1)
	h.TakeBack()
	wantInFlight(t, l, 1, 0)
	p.Release(OK)
	wantEmpty(t, l)
}

// No more requests are inside than there is memory for, whether they are in flight or handed over.
func TestHandingOverKeepsToMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each, room = 1 << 20, 20 // of which a fifth stays free
		var inside, allocated, most atomic.Int64
		l := mustNew(t, WithMemory(func() Memory {
			return Memory{Used: uint64(inside.Load()*each + 1), Limit: room * each, Allocated: uint64(allocated.Load())}
		}))
		ask := func(waits time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			p, err := l.Acquire(ctx)
			if err != nil {
				return
			}
			allocated.Add(each)
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(10 * time.Millisecond)
			h := HandOver(ContextWithPermit(ctx, l, Critical, p))
			time.Sleep(waits)
			h.TakeBack()
			inside.Add(-1)
			p.Release(OK)
		}
		for range 100 {
			ask(0)
		}
		var all sync.WaitGroup
		for range 3000 { // 30 at a time, were all let in
			all.Go(func() { ask(300 * time.Millisecond) })
			time.Sleep(10 * time.Millisecond)
		}
		all.Wait()
		if n := most.Load(); n > room {
			t.Errorf("%d requests inside at a time, want the %d that there is memory for", n, room)
		}
		wantInFlight(t, l, 0, 0)
	})
}

// Work may end while a callee is taken back: what is in flight is right all the time.
func TestTakingBackWhileTheWorkEnds(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1000))
	for range 5000 {
		ctx, p := working(t, l, Request{})
		h := HandOver(ctx)
		var all sync.WaitGroup
		all.Go(h.TakeBack)
		all.Go(func() { p.Release(OK) })
		if n := l.load.inFlight(); n > 1 {
			t.Fatalf("%d in flight, want 1 at most", n)
		}
		all.Wait()
	}
	wantInFlight(t, l, 0, 0)
	wantEmpty(t, l)
}

// Whatever the order of the calls of many goroutines, the work is in flight at the end.
func TestHandingOverAtTheSameTime(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	ctx, p := working(t, l, Request{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				HandOver(ctx).TakeBack()
			}
		})
	}
	all.Wait()
	wantInFlight(t, l, 1, 0)
	p.Release(OK)
	wantEmpty(t, l)
}
