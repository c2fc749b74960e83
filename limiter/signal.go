package limiter

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/feedback"
)

// Memory is the state of a memory that the requests in flight fill, all in bytes. See [WithMemory].
type Memory struct {
	Used      uint64 // what was found in use last; another value is news
	Limit     uint64 // how much of that there may be; 0: no limit
	Allocated uint64 // what was ever asked for, garbage included
}

// WithMemory makes read the source of what is known of memory. The default is the heap of the process, as the last
// garbage collection found it, under the lower of GOMEMLIMIT and the memory limit of the cgroup; without either nothing
// is held back, and in a testing/synctest bubble, where the process says nothing of the work, none is read.
//
// What one request takes is learned, and no more requests are let in than there is memory for: the limit and the line
// are held down to that, with the reason [ReasonMemory]. [WithMinLimit] is kept. Under a cgroup's limit alone, garbage
// takes as much again as what is in use; with GOMEMLIMIT at nine tenths of it, twice as many requests fit.
//
// read is called at most once a millisecond, by one goroutine at a time, on the path of a request. One that panics is
// counted in [Stats], and one that does not return costs that request: what was known before then stays. [New] rejects
// nil.
func WithMemory(read func() Memory) Option {
	return optionFunc(func(c *config) error {
		c.memory = read
		if read == nil {
			return errors.New("limiter: WithMemory(nil); want a function, or leave the option out")
		}
		return nil
	})
}

// WithoutSignals leaves the process out of account: the limit follows the requests alone, and memory may run out. The
// default is that of [WithMemory], which it excludes.
func WithoutSignals() Option {
	return optionFunc(func(c *config) error {
		c.withoutSignals = true
		return nil
	})
}

// checkSignals chooses where the signals come from, nil for none.
func (c *config) checkSignals() error {
	if c.withoutSignals && c.memory != nil {
		return errors.New("limiter: WithoutSignals and WithMemory exclude each other; leave one out")
	}
	_, fixed := c.controller.(feedback.Fixed) // which holds whatever happens
	if c.memory == nil && !c.withoutSignals && !fixed && !inBubble(time.Now()) {
		c.memory = processMemory()
	}
	return nil
}

// inBubble reports whether the time is that of a testing/synctest bubble, which begins with the year 2000.
func inBubble(now time.Time) bool { return now.Year() < 2025 }

// signal is what the limiter hears from outside of it.
type signal struct {
	read   func() Memory // nil: nothing
	due    atomic.Int64  // when it may be read
	last   Memory        // of whoever reads it
	panics atomic.Uint64
}

// sense lets the limiter know what has become of memory, at most once in a minWindow. Like control it runs on the path
// of a request, but for itself: a signal that never returns does not hold up the law.
func (l *Limiter) sense(now time.Duration) {
	s := &l.signal
	due := s.due.Load()
	if s.read == nil || int64(now) < due || !s.due.CompareAndSwap(due, math.MaxInt64) {
		return
	}
	if heard, ok := s.ask(); ok && heard != s.last {
		l.mu.Lock()
		if l.memory.observe(heard, heard.Used != s.last.Used, int(l.inside())) {
			l.setLimit(now)
		}
		l.mu.Unlock()
		s.last = heard
	}
	s.due.Store(int64(now + minWindow))
}

// ask reads the signal; ok is false if it panicked.
func (s *signal) ask() (heard Memory, ok bool) {
	defer func() {
		if !ok {
			_ = recover() // as for the controller
			s.panics.Add(1)
		}
	}()
	return s.read(), true
}

// told returns the reason for a refusal as the caller gets it.
func (l *Limiter) told(reason Reason) Reason {
	if reason == ReasonLimit && l.scarce.Load() {
		return ReasonMemory
	}
	return reason
}
