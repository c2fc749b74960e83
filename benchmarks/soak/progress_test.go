package soak

import (
	"flag"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "100 million permits and a million calls, in minutes")

// progress counts what is done of a total.
type progress struct {
	total int64
	done  atomic.Int64
}

// want returns how much there is to do.
func want(few, all int64) *progress {
	if *full {
		return &progress{total: all}
	}
	return &progress{total: few}
}

// claim takes n of what is to do, and reports false if no more are left up to a point on the way.
func (p *progress) claim(n, upTo int64) bool {
	if p.done.Add(n) <= upTo {
		return true
	}
	p.done.Add(-n)
	return false
}

// show logs how far it is, every few seconds until the function returned is called, which logs how long it took. Only
// what is shown depends on the clock.
func (p *progress) show(t *testing.T, what string) (stop func()) {
	began, ticker, done := time.Now(), time.NewTicker(10*time.Second), make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				t.Logf("%3d%% of %d %s, %v, %d goroutines",
					100*p.done.Load()/p.total, p.total, what, time.Since(began).Round(time.Second), runtime.NumGoroutine())
			case done <- struct{}{}:
				return
			}
		}
	}()
	return func() {
		<-done
		ticker.Stop()
		t.Logf("%d %s in %v", p.total, what, time.Since(began).Round(time.Millisecond))
	}
}
