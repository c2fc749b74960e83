package limiter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever comes, in whatever order: the limit holds at every admission, nothing is lost, and while a permit is free
// nobody waits.
func FuzzLimiter(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	f.Add([]byte("a burst, then a lull........................then more"))
	f.Add([]byte{250, 250, 250, 250, 3, 3, 3, 3, 3, 3, 9, 9, 9, 9, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 300 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			l := mustNew(t, WithInitialLimit(3), WithMaxLimit(20))
			asked, answered := 0, make(chan bool, len(script))
			for _, op := range script {
				hold, patience := time.Duration(op%16)*time.Millisecond, time.Duration(op/16)*3*time.Millisecond
				asked++
				go func() {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					p, err := l.AcquireRequest(ctx, Request{Criticality: Criticality(op % 5), Patient: op%11 == 0})
					if err == nil {
						time.Sleep(hold)
						p.Release(Outcome(op % 7))
						p.Release(OK)
					}
					answered <- err == nil
				}()
				if op%3 == 0 {
					time.Sleep(time.Millisecond)
				}
				synctest.Wait()
				s := l.Stats()
				if s.InFlight < 0 || s.Line < 0 || s.Limit < 1 || s.Limit > 20 {
					t.Fatalf("%+v", s)
				}
				if s.Line > 0 && s.InFlight < s.Limit {
					t.Fatalf("%d wait while %d of %d are in flight: a wake-up was lost", s.Line, s.InFlight, s.Limit)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			wantEmpty(t, l)
			if len(answered) != asked {
				t.Fatalf("%d of %d answered", len(answered), asked)
			}
			s := l.Stats()
			sum := s.Admitted
			for _, n := range s.Refused {
				sum += n
			}
			if sum != uint64(asked) {
				t.Fatalf("%d counted, %d asked", sum, asked)
			}
		})
	})
}

// A naive twin of the line: a slice, searched from end to end.
type naiveLine []*waiter

func (n naiveLine) next() *waiter {
	var best *waiter
	for _, w := range n {
		if best == nil || w.level > best.level {
			best = w // the first of the highest
		}
	}
	return best
}

func (n naiveLine) worst(level int) *waiter {
	for at := range level {
		for _, w := range n {
			if w.level == at {
				if w.patient {
					break // the oldest of its level stays
				}
				return w
			}
		}
	}
	return nil
}

func (n naiveLine) ahead(level int) (count int) {
	for _, w := range n {
		if w.level >= level {
			count++
		}
	}
	return count
}

func FuzzLineAndItsNaiveTwin(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 100, 101, 5, 200, 6, 102})
	f.Fuzz(func(t *testing.T, script []byte) {
		var fast line
		var naive naiveLine
		for i, op := range script {
			now := time.Duration(i)
			level := int(op % levels)
			var gone *waiter
			switch {
			case op < 150:
				w := &waiter{level: level, patient: op%5 == 0, came: now}
				fast.push(now, w, false, pace{}, &threshold{})
				naive = append(naive, w)
			case op < 200:
				gone = fast.next()
			case len(naive) > 0:
				gone = naive[int(op)%len(naive)]
			}
			if gone != nil {
				fast.remove(now, gone, pace{}, &threshold{})
				kept := naive[:0]
				for _, w := range naive {
					if w != gone {
						kept = append(kept, w)
					}
				}
				naive = kept
			}
			if fast.length != len(naive) || fast.next() != naive.next() || fast.worst(level) != naive.worst(level) || fast.ahead(level) != naive.ahead(level) {
				t.Fatalf("after %d steps: %d %p %p %d, naive %d %p %p %d", i+1, fast.length, fast.next(), fast.worst(level), fast.ahead(level),
					len(naive), naive.next(), naive.worst(level), naive.ahead(level))
			}
		}
	})
}
