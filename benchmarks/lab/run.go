package lab

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// call is one try of a request.
type call struct {
	method *grpc.UnaryServerInfo
	who    sleeper
	work   func() error // what the server does
}

// caller sends one call, and returns when it is answered or its deadline has passed.
type caller func(context.Context, call) error

// Mode is how calls reach the contestant. stop waits for the handlers that still work.
type Mode func(t *testing.T, s Scenario, unary grpc.UnaryServerInterceptor) (call caller, stop func())

// Direct calls the interceptor as a function. The caller gives up at its deadline, while the server works on.
func Direct(_ *testing.T, s Scenario, unary grpc.UnaryServerInterceptor) (caller, func()) {
	serve := func(ctx context.Context, c call) error {
		ctx = grpc.NewContextWithServerTransportStream(ctx, deaf{c.method.FullMethod})
		_, err := unary(ctx, nil, c.method, func(context.Context, any) (any, error) { return nil, c.work() })
		return err
	}
	if s.Tries <= 1 {
		// A caller that has given up does nothing more, so the goroutine may as well go on as the server's.
		return func(ctx context.Context, c call) error { return cmp.Or(serve(ctx, c), ctx.Err()) }, func() {}
	}
	var serving sync.WaitGroup
	return func(ctx context.Context, c call) error {
		answer := make(chan error, 1)
		serving.Go(func() { answer <- serve(ctx, c) })
		select {
		case err := <-answer:
			if ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
		}
		return ctx.Err() // whichever case an answer at the very deadline took
	}, serving.Wait
}

// deaf takes what a handler adds to its answer. Without it grpc.SetTrailer writes an error with the whole context in
// it, which costs more than all else that a refusal does.
type deaf struct{ method string }

func (d deaf) Method() string             { return d.method }
func (deaf) SetHeader(metadata.MD) error  { return nil }
func (deaf) SendHeader(metadata.MD) error { return nil }
func (deaf) SetTrailer(metadata.MD) error { return nil }

// errFailFast is how a callee fails that fails fast.
var errFailFast = status.Error(codes.Unavailable, "the callee fails fast")

// Run plays a scenario with a contestant. The same seed gives the same figures.
func Run(t *testing.T, s Scenario, c Contestant, seed uint64, mode Mode) Figures {
	var f Figures
	synctest.Test(t, func(t *testing.T) {
		f = run(t, s, c, seed, mode)
	})
	return f
}

func run(t *testing.T, s Scenario, c Contestant, seed uint64, mode Mode) Figures {
	time.Sleep(time.Hour) // for contestants that measure from a clock started outside the bubble
	all := s.load(seed)
	ideal := s.ideal(all)
	unary, limit, stop := c.New(s)
	call, hangUp := mode(t, s, unary)
	time.Sleep(next(clock(), 0, 0) - clock())
	r := &runner{scenario: s, station: s.Station(), call: call, books: newBooks(s), instants: newInstants()}
	for _, m := range s.methods() {
		r.methods = append(r.methods, m.info())
	}
	var open sync.WaitGroup
	stopClock := r.clock(limit)
	for _, req := range all {
		time.Sleep(time.Until(r.books.start.Add(req.at)))
		open.Go(func() { r.play(req) })
	}
	open.Wait()
	stopClock()
	hangUp()
	stop()
	return r.books.figures(c, seed, ideal)
}

// runner sends the requests of a run.
type runner struct {
	scenario Scenario
	station  Station
	methods  []*grpc.UnaryServerInfo
	call     caller
	books    *books
	instants *instants
}

// clock lets the events of the scenario happen and keeps the trace, until it is stopped.
func (r *runner) clock(limit func() int) (stop func()) {
	done := make(chan struct{})
	go func() {
		time.Sleep(tickPlace)
		ticks := time.NewTicker(tick)
		defer ticks.Stop()
		for now := time.Duration(0); ; now += tick {
			if r.scenario.Events != nil {
				r.scenario.Events(r.station, now)
			}
			if now%pointEvery == 0 {
				inForce := 0
				if limit != nil {
					inForce = limit()
				}
				r.books.point(inForce)
			}
			select {
			case <-ticks.C:
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// play sends a request, again if need be.
func (r *runner) play(req request) {
	r.books.offer(req)
	backoff := 100 * ms
	for try := 1; ; try++ {
		if done := r.try(req, r.sleeper(req, try)); done || try >= r.scenario.Tries {
			return
		}
		r.sleeper(req, try+1).sleep(backoff/2 + time.Duration(req.size.Nanoseconds()*7919%int64(backoff)))
		backoff *= 2
	}
}

// sleeper is one try of a request. The server may still work on one when its caller sends the next.
func (r *runner) sleeper(req request, try int) sleeper {
	return sleeper{r.instants, req.number*(r.scenario.Tries+2) + try}
}

// try sends a request once, and reports whether there is no more to be had by trying again.
func (r *runner) try(req request, who sleeper) (done bool) {
	s := r.scenario
	v := r.books.try(req)
	ctx := context.Background()
	if !s.waits(req) {
		var cancel func()
		ctx, cancel = context.WithDeadline(ctx, v.sent.Add(s.deadline(req)+deadlineLag))
		defer cancel()
	}
	if criticality := s.criticality(req); criticality != limiter.Unspecified {
		ctx = context.WithValue(ctx, criticalityKey{}, criticality)
	}
	if len(s.Tenants) > 0 || s.Apart {
		ctx = context.WithValue(ctx, tenantKey{}, limiter.Tenant(req.tenant+1))
	}
	err := r.call(ctx, call{r.methods[req.method], who, func() error {
		v.begin()
		defer v.finish()
		who.turn()
		if req.fails {
			who.sleep(ms)
			return errFailFast
		}
		if s.waits(req) {
			who.sleep(req.size)
		} else {
			r.station.Do(who, req.size)
		}
		return nil
	}})
	return v.end(err) || errors.Is(err, errFailFast)
}
