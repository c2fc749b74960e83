package faults

import (
	"context"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// What is asked of a caller: a request at each interval, that waits so long for its answer.
const (
	interval = 5 * time.Millisecond
	patience = 500 * time.Millisecond
)

// trouble is what befalls a caller.
type trouble struct {
	begin, end func()
	lasts      func(*load) bool // whether there has not been enough of it, of a load that is counted from its start
}

// failing lasts until so many requests have failed that the limit and the line have had to do with it.
func failing(l *load) bool { return l.failed.Load() < 200 }

// limping lasts until some have failed, and so many have been answered all the same that it was more than chance.
func limping(l *load) bool { return l.failed.Load() < 10 || l.answered.Load() < 50 }

// survive asks a caller before, during and after some trouble. It ends with nothing in flight, while the trouble lasts
// and after, and with everybody answered again.
func survive(t *testing.T, c *caller, with trouble) {
	t.Helper()
	before := ask(t, c)
	await(t, "answers at first", func() bool { return before.answered.Load() >= 100 })
	with.begin()
	during := ask(t, c)
	await(t, "enough of the trouble", func() bool { return !with.lasts(during) })
	before.stop()
	during.stop()
	await(t, "nothing in flight while the trouble lasts", c.idle)
	with.end()
	after := ask(t, c)
	await(t, "answers again", func() bool { return after.answered.Load() >= 100 })
	after.stop()
	await(t, "nothing in flight at the end", c.idle)
}

// idle reports whether nothing is in flight and nobody waits.
func (c *caller) idle() bool {
	s := c.protection.Limiter().Stats()
	return s.InFlight == 0 && s.Line == 0
}

// load is requests that come whether the last are answered or not.
type load struct {
	answered, failed atomic.Int64
	stop             func() // and wait for the last answer
}

func ask(t *testing.T, c *caller) *load {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	l := &load{stop: func() { cancel(); all.Wait() }}
	all.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				all.Go(func() { l.one(t, c) })
			case <-ctx.Done():
				return
			}
		}
	})
	return l
}

func (l *load) one(t *testing.T, c *caller) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := c.client.UnaryCall(ctx, &testpb.SimpleRequest{})
	switch status.Code(err) {
	case codes.OK:
		l.answered.Add(1)
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		l.failed.Add(1)
	default:
		t.Errorf("a request ended with %v", err)
	}
	if s := c.protection.Limiter().Stats(); s.InFlight > maxLimit || s.Line > int(2*patience/interval) {
		t.Errorf("%d in flight and %d in line, want at most %d and %d", s.InFlight, s.Line, maxLimit, int(2*patience/interval))
	}
}

// await waits for what must come to be, and gives it a minute.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited for a minute for this: %s", what)
		}
	}
}

// leaks returns a function that waits until there are no more goroutines than when leaks was called.
func leaks(t *testing.T) (none func()) {
	before := runtime.NumGoroutine()
	return func() {
		t.Helper()
		t.Cleanup(func() {
			if t.Failed() {
				var stacks strings.Builder
				_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
				t.Log(stacks.String())
			}
		})
		await(t, "no more goroutines than before", func() bool { return runtime.NumGoroutine() <= before })
	}
}
