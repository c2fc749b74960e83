package limiter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// outcome returns how a request with a deadline counts that is given up after so long.
func outcome(t *testing.T, l *Limiter, given Outcome, deadline, after time.Duration) Outcome {
	t.Helper()
	ctx, cancel := t.Context(), context.CancelFunc(func() {})
	if deadline > 0 {
		ctx, cancel = context.WithTimeout(ctx, deadline)
	}
	defer cancel()
	before := l.Stats().Outcomes
	p, err := l.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	p.Release(given)
	for o, n := range l.Stats().Outcomes {
		if n > before[o] {
			return Outcome(o)
		}
	}
	t.Fatal("nothing was counted")
	return 0
}

func TestWhatIsGivenUpNearItsDeadlineIsLate(t *testing.T) {
	const ms = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		for _, c := range []struct {
			given           Outcome
			deadline, after time.Duration
			want            Outcome
		}{
			{Ignored, 320 * ms, 309 * ms, Ignored},
			{Ignored, 320 * ms, 310 * ms, Late},
			{Ignored, 320 * ms, 319 * ms, Late},
			{Ignored, 320 * ms, 321 * ms, Late},
			{Ignored, 320 * ms, 0, Ignored},
			{Ignored, 0, time.Hour, Ignored}, // no deadline
			{OK, 320 * ms, 319 * ms, OK},
			{OK, 320 * ms, 321 * ms, Late},
			{Failed, 320 * ms, 319 * ms, Failed},
			{Late, 320 * ms, 319 * ms, Failed}, // somebody else's deadline
			{Late, 320 * ms, 321 * ms, Late},
		} {
			if got := outcome(t, l, c.given, c.deadline, c.after); got != c.want {
				t.Errorf("%v after %v of %v counts as %v, want %v", c.given, c.after, c.deadline, got, c.want)
			}
		}
	})
}

// Callers that go for reasons of their own, at any time of their requests, do not look like overload: the law lets 3%
// be late.
func TestCancellationsAreNoLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t)
		late := 0
		const all = 1000
		for i := range all {
			if outcome(t, l, Ignored, time.Second, time.Second*time.Duration(i)/all) == Late {
				late++
			}
		}
		if late > all*33/1000 {
			t.Errorf("%d of %d that were cancelled, evenly over their time, count as late; want 3%% at most", late, all)
		}
	})
}
