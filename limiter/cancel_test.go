package limiter

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// sampled is a controller that keeps the limit and what it saw.
type sampled struct {
	limit                          int
	arrivals, offered, completions int64
	asked                          float64
}

func (s *sampled) Update(sample feedback.Sample) int {
	s.arrivals += sample.Arrivals
	s.offered += sample.Offered
	s.completions += sample.Completions
	s.asked += sample.Asked
	return s.limit
}

// A permit that is cancelled leaves no trace of load: otherwise streams, whose opening takes a permit that no work is
// done with, would look like twice the load that they are.
func TestWhatIsCancelledWasNeverOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		law := &sampled{limit: 5}
		l := mustNew(t, WithInitialLimit(5), WithController(law))
		for range 100 {
			mustAcquire(t, l).Cancel()
			p := mustAcquire(t, l)
			p.Suspend()
			p.Cancel()
			p = mustAcquire(t, l)
			time.Sleep(time.Millisecond)
			p.Release(OK)
			p.Cancel()
		}
		if law.completions == 0 || law.arrivals != law.completions || law.offered != law.completions {
			t.Errorf("%d arrived and %d were offered, want as many as were completed: %d", law.arrivals, law.offered, law.completions)
		}
		if want := float64(law.completions); law.asked < want*.999 || law.asked > want*1.001 {
			t.Errorf("work of %v was asked for, want %v", law.asked, want)
		}
		wantEmpty(t, l)
	})
}
