package limiter

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

func mustNew(t testing.TB, opts ...Option) *Limiter {
	t.Helper()
	l, err := New(opts...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return l
}

// wantEmpty fails unless every permit came back and nobody waits.
func wantEmpty(t testing.TB, l *Limiter) {
	t.Helper()
	if s := l.Stats(); s.InFlight != 0 || s.Line != 0 {
		t.Errorf("%d in flight and %d in line at the end, want none", s.InFlight, s.Line)
	}
}

// spendCredit makes every line a standing one, until a window closes.
func spendCredit(l *Limiter) {
	for i := range l.line.queues {
		l.line.queues[i].credit = 0
		l.line.queues[i].counted = l.now() + time.Hour
		l.threshold.loads[i] = 2
	}
}

func mustAcquire(t testing.TB, l *Limiter) Permit {
	t.Helper()
	p, err := l.Acquire(t.Context())
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	return p
}

func TestAcquireAndRelease(t *testing.T) {
	l := mustNew(t, WithFixedLimit(2))
	a, b := mustAcquire(t, l), mustAcquire(t, l)
	if _, ok := l.TryAcquire(); ok {
		t.Error("TryAcquire gave a third permit of two")
	}
	a.Release(OK)
	c, ok := l.TryAcquire()
	if !ok {
		t.Error("TryAcquire gave no permit though one is free")
	}
	b.Release(Failed)
	c.Release(Ignored)
	wantEmpty(t, l)
	s := l.Stats()
	if s.Admitted != 3 || s.Refused[ReasonLimit] != 1 || s.Outcomes[OK] != 1 || s.Outcomes[Failed] != 1 || s.Outcomes[Ignored] != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestReleaseCountsOnce(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	p := mustAcquire(t, l)
	copied := p
	p.Release(OK)
	p.Release(OK)
	copied.Release(Panicked)
	q := mustAcquire(t, l) // takes the same slot
	copied.Release(OK)     // an old copy must not return it
	if got := l.Stats().InFlight; got != 1 {
		t.Errorf("%d in flight, want 1", got)
	}
	q.Release(OK)
	wantEmpty(t, l)
	Permit{}.Release(OK)
	Permit{}.Suspend()
	Permit{}.Resume()
}

func TestSuspendedWorkLeavesRoom(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	p := mustAcquire(t, l)
	p.Suspend()
	p.Suspend()
	q := mustAcquire(t, l)
	p.Resume() // never waits: two in flight at a limit of one
	p.Resume()
	if got := l.Stats().InFlight; got != 2 {
		t.Errorf("%d in flight, want 2", got)
	}
	q.Release(OK)
	p.Suspend()
	p.Release(OK) // also while suspended
	p.Resume()
	wantEmpty(t, l)
}

func TestContextEndedBefore(t *testing.T) {
	l := mustNew(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, c := range []struct {
		ctx  context.Context
		want error
	}{{canceled, context.Canceled}, {expired, context.DeadlineExceeded}} {
		_, err := l.Acquire(c.ctx)
		var refusal *Refusal
		if !errors.Is(err, ErrRefused) || !errors.Is(err, c.want) || !errors.As(err, &refusal) || refusal.Reason != ReasonExpired {
			t.Errorf("Acquire = %v, want a refusal for %v", err, c.want)
		}
	}
	wantEmpty(t, l)
}

func TestAcquireGivesUpAtDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		held := mustAcquire(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := l.Acquire(ctx)
		if !errors.Is(err, ErrRefused) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire past the limit = %v, want a refusal at the deadline", err)
		}
		if got := time.Since(start); got != 50*time.Millisecond {
			t.Errorf("waited %v, want exactly 50ms", got)
		}
		held.Release(OK)
		wantEmpty(t, l)
	})
}

func TestCancelledCallerLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		held := mustAcquire(t, l)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := l.Acquire(ctx)
			done <- err
		}()
		synctest.Wait()
		if got := l.Stats().Line; got != 1 {
			t.Fatalf("%d in line, want 1", got)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire = %v, want context.Canceled", err)
		}
		if got := l.Stats().Line; got != 0 {
			t.Errorf("%d in line after the caller left, want 0", got)
		}
		held.Release(OK)
		wantEmpty(t, l)
	})
}

// Without a deadline a request waits its turn and gets it.
func TestWithoutDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		held := mustAcquire(t, l)
		done := make(chan Permit)
		go func() {
			p, err := l.Acquire(context.Background())
			if err != nil {
				t.Errorf("Acquire: %v", err)
			}
			done <- p
		}()
		time.Sleep(20 * time.Millisecond)
		held.Release(OK)
		p := <-done
		if got := p.Sojourn(); got != 20*time.Millisecond {
			t.Errorf("sojourn %v, want 20ms", got)
		}
		p.Release(OK)
		wantEmpty(t, l)
	})
}

// Those who wait are served by criticality, and in the order in which they came within one.
func TestLineIsServedByCriticality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		work(t, l, 100)
		held := mustAcquire(t, l)
		var order []int
		for i, c := range []Criticality{Sheddable, CriticalPlus, Unspecified, Critical, SheddablePlus} {
			go func() {
				p, err := l.Acquire(ContextWithCriticality(t.Context(), c))
				if err != nil {
					t.Errorf("%v: %v", c, err)
					return
				}
				order = append(order, i)
				p.Release(OK)
			}()
			synctest.Wait()
		}
		held.Release(OK)
		synctest.Wait()
		if want := []int{1, 2, 3, 4, 0}; len(order) != len(want) || order[0] != 1 || order[1] != 2 || order[2] != 3 || order[3] != 4 || order[4] != 0 {
			t.Errorf("served in the order %v, want %v", order, want)
		}
		wantEmpty(t, l)
	})
}

// Before anything is known of the service, as many may wait as may be in flight, and no more.
func TestLineIsBoundedFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(10))
		var refused atomic.Int64
		free := make(chan struct{})
		for range 1000 {
			go func() {
				p, err := l.Acquire(t.Context())
				if err != nil {
					refused.Add(1)
					return
				}
				<-free
				p.Release(OK)
			}()
		}
		synctest.Wait()
		if s := l.Stats(); s.InFlight != 10 || s.Line != 10 || refused.Load() != 980 {
			t.Errorf("%d in flight, %d in line, %d refused; want 10, 10 and 980", s.InFlight, s.Line, refused.Load())
		}
		close(free)
		synctest.Wait()
		wantEmpty(t, l)
	})
}

// A request whose deadline the line cannot meet is told so at once.
func TestRefusesWhatCannotBeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		for range 20 { // learn that work takes 10 ms
			p := mustAcquire(t, l)
			time.Sleep(10 * time.Millisecond)
			p.Release(OK)
		}
		held := mustAcquire(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := l.Acquire(ctx)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Reason != ReasonDeadline || refusal.RetryAfter != 0 {
			t.Errorf("Acquire = %+v, want a refusal for the deadline without a hint to retry", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("refused after %v, want at once", waited)
		}
		held.Release(OK)
		wantEmpty(t, l)
	})
}

// A burst that can be served in time is served whole; when it does not end, the line becomes short.
func TestBurstWaitsAndOverloadDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		work := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			p, err := l.Acquire(ctx)
			if err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
			p.Release(OK)
			return nil
		}
		for range 200 { // two seconds without a line fill the credit
			if err := work(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		var refused atomic.Int64
		burst := func(n int) {
			refused.Store(0)
			var all sync.WaitGroup
			for range n {
				all.Go(func() {
					if work() != nil {
						refused.Add(1)
					}
				})
				time.Sleep(time.Microsecond)
			}
			if n < 100 {
				all.Wait()
			}
		}
		burst(40)
		if n := refused.Load(); n != 0 {
			t.Errorf("%d of a burst of 40 refused, all could be in time", n)
		}
		time.Sleep(time.Second)
		for range 40 { // 1.6 s of 4 times the capacity
			burst(16)
			time.Sleep(40 * time.Millisecond)
		}
		if got := l.Stats().Line; got > shortLine {
			t.Errorf("%d in line after long overload, want at most %d", got, shortLine)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantEmpty(t, l)
	})
}

// A more critical request takes the place of a less critical one in a full line.
func TestDisplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		for range 20 {
			p := mustAcquire(t, l)
			time.Sleep(10 * time.Millisecond)
			p.Release(OK)
		}
		held := mustAcquire(t, l)
		spendCredit(l)
		reasons := make(chan Reason, 10)
		acquire := func(c Criticality) {
			p, err := l.Acquire(ContextWithCriticality(t.Context(), c))
			var refusal *Refusal
			if errors.As(err, &refusal) {
				reasons <- refusal.Reason
			}
			p.Release(OK)
		}
		for range shortLine {
			go acquire(Sheddable)
			synctest.Wait()
		}
		go acquire(Sheddable)
		synctest.Wait()
		if got := <-reasons; got != ReasonLimit {
			t.Errorf("a fourth in a line of %d: %v, want limit", shortLine, got)
		}
		go acquire(CriticalPlus)
		synctest.Wait()
		if got := <-reasons; got != ReasonDisplaced {
			t.Errorf("the worst in line: %v, want displaced", got)
		}
		held.Release(OK)
		synctest.Wait()
		wantEmpty(t, l)
	})
}

func TestPatientRequestsAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		for range 20 {
			p := mustAcquire(t, l)
			time.Sleep(10 * time.Millisecond)
			p.Release(OK)
		}
		held := mustAcquire(t, l)
		var served atomic.Int64
		for range 1000 {
			go func() {
				p, err := l.AcquireRequest(t.Context(), Request{Patient: true})
				if err == nil {
					served.Add(1)
				}
				p.Release(OK)
			}()
		}
		synctest.Wait()
		if got := l.Stats().Line; got != 1000 {
			t.Errorf("%d in line, want all 1000", got)
		}
		held.Release(OK)
		synctest.Wait()
		if n := served.Load(); n != 1000 {
			t.Errorf("%d served, want 1000", n)
		}
		wantEmpty(t, l)
	})
}

func TestLateIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		p, err := l.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Millisecond)
		p.Release(OK)
		if s := l.Stats(); s.Outcomes[Late] != 1 || s.Outcomes[OK] != 0 {
			t.Errorf("outcomes %v, want one late", s.Outcomes)
		}
		// A callee's deadline is not ours.
		for _, ctx := range []context.Context{context.Background(), ContextWithCriticality(t.Context(), Sheddable)} {
			p, err := l.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			p.Release(Late)
		}
		if s := l.Stats(); s.Outcomes[Late] != 1 || s.Outcomes[Failed] != 2 {
			t.Errorf("outcomes %v, want two failed besides the late one", s.Outcomes)
		}
	})
}

// Preview says what Acquire would, and holds nothing.
func TestPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, WithFixedLimit(1))
		if r := l.Preview(t.Context(), Request{}); r != nil {
			t.Errorf("Preview of an idle limiter = %v", r)
		}
		for range 20 {
			p := mustAcquire(t, l)
			time.Sleep(10 * time.Millisecond)
			p.Release(OK)
		}
		held := mustAcquire(t, l)
		spendCredit(l)
		for range shortLine {
			go func() {
				p, _ := l.Acquire(t.Context())
				p.Release(OK)
			}()
			synctest.Wait()
		}
		if r := l.Preview(t.Context(), Request{}); r == nil || r.Reason != ReasonLimit {
			t.Errorf("Preview of a full line = %v, want limit", r)
		}
		if r := l.Preview(t.Context(), Request{Criticality: Sheddable}); r == nil || r.Reason != ReasonCriticality {
			t.Errorf("Preview for a lower criticality = %v, want criticality", r)
		}
		if r := l.Preview(t.Context(), Request{Criticality: CriticalPlus}); r != nil {
			t.Errorf("Preview for a higher criticality = %v, want none", r)
		}
		if r := l.Preview(t.Context(), Request{Patient: true}); r != nil {
			t.Errorf("Preview for a patient request = %v, want none", r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if r := l.Preview(ctx, Request{Criticality: CriticalPlus}); r == nil || r.Reason != ReasonDeadline {
			t.Errorf("Preview with 1ms left for 10ms of work = %v, want deadline", r)
		}
		held.Release(OK)
		synctest.Wait()
		if r := l.Preview(t.Context(), Request{}); r != nil {
			t.Errorf("Preview after the overload = %v", r)
		}
		wantEmpty(t, l)
	})
}

type controllerFunc func(feedback.Sample) int

func (f controllerFunc) Update(s feedback.Sample) int { return f(s) }

// work runs n requests of 1 ms through the limiter, one after the other.
func work(t *testing.T, l *Limiter, n int) {
	for range n {
		p := mustAcquire(t, l)
		time.Sleep(time.Millisecond)
		p.Release(OK)
	}
}

func TestPanickingControllerLeavesTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		l := mustNew(t, WithInitialLimit(7), WithController(controllerFunc(func(feedback.Sample) int {
			calls++
			panic("controller")
		})))
		work(t, l, 100)
		s := l.Stats()
		if s.Limit != 7 || calls < 2 || s.ControllerPanics != uint64(calls) {
			t.Errorf("limit %d, %d calls, %d panics seen; want 7 and all seen", s.Limit, calls, s.ControllerPanics)
		}
		wantEmpty(t, l)
	})
}

// A controller that never returns costs the one request that called it.
func TestStuckControllerStopsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		l := mustNew(t, WithInitialLimit(3), WithController(controllerFunc(func(feedback.Sample) int {
			<-free
			return 9
		})))
		for range 2 {
			go work(t, l, 100)
		}
		time.Sleep(time.Second)
		if got := l.Stats().Outcomes[OK]; got < 100 {
			t.Errorf("%d requests served, want those of the other caller", got)
		}
		close(free)
		synctest.Wait()
		if got := l.Stats().Limit; got != 9 {
			t.Errorf("limit %d after the controller came back, want 9", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		wantEmpty(t, l)
	})
}

func TestAbsurdLimitsAreClamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := 0
		l := mustNew(t, WithMinLimit(2), WithMaxLimit(50), WithController(controllerFunc(func(feedback.Sample) int { return next })))
		for _, c := range []struct{ next, want int }{{-5, 2}, {0, 2}, {1 << 40, 50}, {10, 10}} {
			next = c.next
			work(t, l, 40)
			if got := l.Stats().Limit; got != c.want {
				t.Errorf("controller says %d: limit %d, want %d", c.next, got, c.want)
			}
		}
	})
}

// Many goroutines, random ends, cancellations and pauses: nothing is lost and the limit holds.
func TestNothingIsLost(t *testing.T) {
	const limit, callers, rounds = 4, 32, 300
	l := mustNew(t, WithFixedLimit(limit))
	var inFlight, most int
	var mu sync.Mutex
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(caller), 9))
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(1000))*time.Microsecond)
				p, err := l.AcquireRequest(ctx, Request{Criticality: Criticality(rng.IntN(7)), Patient: rng.IntN(8) == 0})
				if err == nil {
					mu.Lock()
					inFlight++
					most = max(most, inFlight)
					inFlight--
					mu.Unlock()
					p.Release(Outcome(rng.IntN(8)))
				}
				cancel()
				p.Release(OK)
			}
		})
	}
	all.Wait()
	wantEmpty(t, l)
	s := l.Stats()
	sum := s.Admitted
	for _, n := range s.Refused {
		sum += n
	}
	if sum != callers*rounds {
		t.Errorf("%d admitted and refused, want %d", sum, callers*rounds)
	}
	if most > limit {
		t.Errorf("%d in flight at once, limit %d", most, limit)
	}
}

func TestAdmissionAndRefusalAllocateNothing(t *testing.T) {
	l := mustNew(t, WithFixedLimit(1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if n := testing.AllocsPerRun(1000, func() {
		p, err := l.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p.Release(OK)
	}); n != 0 {
		t.Errorf("admission allocates %v times, want 0", n)
	}
	held := mustAcquire(t, l)
	defer held.Release(OK)
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := l.TryAcquire(); ok {
			t.Fatal("a second permit of one")
		}
	}); n != 0 {
		t.Errorf("refusal allocates %v times, want 0", n)
	}
}
