package feedback

import (
	"math"
	"sync"
	"time"

	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/spillway-go/spillway/littles"
)

// FromLimit returns a Controller that asks a go-concurrency-limits limit, such as its Vegas or Gradient2.
//
// The limit sees one sample a window, from one place: the window's mean latency by Little's law, the most that
// were in flight, and as a drop that any request ended late or for want of a resource. A window in which
// nothing completed tells such a limit nothing and is not passed on: it would read as a latency of 0.
// Some of these limits can lose themselves (an estimate that is not positive); the last good one then stays.
func FromLimit(limit core.Limit) Controller { return fromLimit{limit} }

type fromLimit struct{ limit core.Limit }

func (f fromLimit) Update(s Sample) int {
	if s.Completions == 0 || s.Latency() <= 0 {
		return s.Limit
	}
	f.limit.OnSample(int64(s.Start), int64(s.Latency()), s.Peak, s.Late > 0 || s.Overloaded > 0)
	if next := f.limit.EstimatedLimit(); next >= 1 && next <= math.MaxInt32 {
		return next
	}
	return s.Limit
}

// Limit is a [Controller] as a go-concurrency-limits core.Limit: it gathers single samples into windows for it.
// It is safe for concurrent use, as core.Limit requires.
type Limit struct {
	controller Controller

	mu        sync.Mutex // guards all below
	limit     int
	sample    Sample
	listeners []core.LimitChangeListener
}

// NewLimit returns controller as a core.Limit that starts at the given limit (at least 1).
func NewLimit(controller Controller, initial int) *Limit {
	return &Limit{controller: controller, limit: max(1, initial)}
}

// EstimatedLimit returns the limit in force.
func (l *Limit) EstimatedLimit() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// NotifyOnChange calls consumer with every new limit, after it is in force and with no lock held.
func (l *Limit) NotifyOnChange(consumer core.LimitChangeListener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners = append(l.listeners, consumer)
}

// OnSample takes one finished request: when it started (ns since any epoch), how long it took (ns), how many
// were in flight, and whether it was dropped or timed out.
func (l *Limit) OnSample(startTime, rtt int64, inFlight int, didDrop bool) {
	limit, listeners := l.observe(time.Duration(startTime+rtt), time.Duration(rtt), inFlight, didDrop)
	for _, listener := range listeners {
		listener(limit)
	}
}

// observe adds the request and returns whom to tell of a new limit: nobody where it did not change.
func (l *Limit) observe(end, rtt time.Duration, inFlight int, didDrop bool) (int, []core.LimitChangeListener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sample.Completions == 0 && l.sample.End == 0 { // the very first
		l.sample.Start, l.sample.End = end-rtt, end-rtt
	}
	w := &l.sample
	if end > w.End {
		w.Area += float64(inFlight) * (end - w.End).Seconds()
		w.End = end
	}
	w.Arrivals++
	w.Completions++
	w.Sum += rtt.Seconds()
	w.Squares += rtt.Seconds() * rtt.Seconds()
	w.Peak = max(w.Peak, inFlight)
	if didDrop {
		w.Late++
	} else {
		w.Good++
	}
	if inFlight >= l.limit {
		w.Waited++
	}
	if w.Completions < MinCompletions || w.Length() < w.Latency() {
		return l.limit, nil
	}
	w.Limit = l.limit
	next := l.controller.Update(*w)
	l.sample = Sample{Window: littles.Window{Start: end, End: end}}
	if next < 1 || next == l.limit {
		return l.limit, nil
	}
	l.limit = next
	return next, append([]core.LimitChangeListener(nil), l.listeners...)
}
