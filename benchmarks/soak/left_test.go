package soak

import (
	"runtime"
	"testing"

	"github.com/spillway-go/spillway/limiter"
)

// left is what there is while nothing is going on.
type left struct {
	goroutines int
	heap       uint64 // bytes
}

// heapMargin is by how much the heap may be larger at the end than it was after the first tenth: in full, a byte for
// each call and a hundredth of a byte for each permit, so that nothing can be left behind by all, or by one in a hundred.
// What may come later than in the first tenth has bounds of its own: the runtime keeps the descriptors, of half a KiB
// each, of as many goroutines as there ever were at a time, and for a while timers that were stopped; the interceptors
// keep the answers to the refusals met, a thousand at most, of one KiB each.
const heapMargin = 1 << 20

// look collects the garbage twice, since the first time only sets aside what is in a sync.Pool.
func look() left {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return left{runtime.NumGoroutine(), m.HeapAlloc}
}

// compare fails the test if there is more than before.
func (before left) compare(t *testing.T) {
	t.Helper()
	after := look()
	t.Logf("heap %d KiB before, %d KiB after; goroutines %d before, %d after",
		before.heap>>10, after.heap>>10, before.goroutines, after.goroutines)
	if after.goroutines != before.goroutines {
		t.Errorf("%d goroutines, %d before", after.goroutines, before.goroutines)
	}
	if after.heap > before.heap+heapMargin {
		t.Errorf("%d bytes of heap in use, %d before; want at most %d more", after.heap, before.heap, heapMargin)
	}
}

// wantEmpty fails the test if anything of a request is left in the limiter.
func wantEmpty(t *testing.T, l *limiter.Limiter) {
	t.Helper()
	s := l.Stats()
	t.Logf("limit %d, admitted %d, refused %v, outcomes %v", s.Limit, s.Admitted, s.Refused, s.Outcomes)
	if s.InFlight != 0 || s.Line != 0 {
		t.Errorf("%d in flight and %d in line at the end, want none", s.InFlight, s.Line)
	}
	if s.ControllerPanics != 0 {
		t.Errorf("the controller panicked %d times", s.ControllerPanics)
	}
	for _, group := range l.Bulkheads() {
		if group.InFlight != 0 || group.Waiting != 0 {
			t.Errorf("bulkhead %q: %d in flight and %d waiting at the end, want none", group.Name, group.InFlight, group.Waiting)
		}
	}
}
