package limiter

import (
	"context"
	"fmt"
	"sync"
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
	wantInFlight(t, l, 0, 2)
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

// A dry run hands over the permit that it has, and keeps its place in the line.
func TestADryRunHandsOver(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	ctx, p := working(t, l, Request{DryRun: true})
	waits, q := working(t, l, Request{DryRun: true})
	h := HandOver(waits)
	if s := l.Stats(); s.InFlight != 1 || s.Line != 1 {
		t.Errorf("%d in flight and %d in line, want 1 and 1", s.InFlight, s.Line)
	}
	h.TakeBack()
	h = HandOver(ctx)
	if s := l.Stats(); s.InFlight != 1 || s.Line != 0 { // the other has its permit now
		t.Errorf("%d in flight and %d in line, want 1 and none", s.InFlight, s.Line)
	}
	h.TakeBack()
	if s := l.Stats(); s.InFlight != 2 {
		t.Errorf("%d in flight, want 2", s.InFlight)
	}
	p.Release(OK)
	q.Release(OK)
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

// A handler that waits for a service with a limit of its own.
func ExampleHandOver() {
	l, err := New()
	if err != nil {
		fmt.Println(err)
		return
	}
	// The interceptors do this.
	permit, err := l.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer permit.Release(OK)
	ctx := ContextWithPermit(context.Background(), l, Critical, permit)

	waiting := HandOver(ctx)
	fmt.Println("in flight while it waits:", l.Stats().InFlight)
	waiting.TakeBack()
	fmt.Println("in flight after:", l.Stats().InFlight)
	// Output:
	// in flight while it waits: 0
	// in flight after: 1
}
