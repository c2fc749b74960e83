package lab

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// method is what every call of the lab calls.
var method = &grpc.UnaryServerInfo{FullMethod: "/lab.Station/Do"}

// caller sends one call, and returns when it is answered or its deadline has passed. work is what the server does.
type caller func(ctx context.Context, work func() error) error

// Mode is how calls reach the contestant.
type Mode func(t *testing.T, unary grpc.UnaryServerInterceptor) (call caller, stop func())

// Direct calls the interceptor as a function. The caller gives up at its deadline, while the server works on.
func Direct(_ *testing.T, unary grpc.UnaryServerInterceptor) (caller, func()) {
	return func(ctx context.Context, work func() error) error {
		_, err := unary(ctx, nil, method, func(context.Context, any) (any, error) { return nil, work() })
		if err == nil {
			err = ctx.Err()
		}
		return err
	}, func() {}
}

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
	station := s.Station()
	unary, stats, stop := c.New(s)
	call, hangUp := mode(t, unary)
	r := &runner{scenario: s, station: station, call: call, start: time.Now(), stats: stats,
		tiers: make([]counter, max(1, len(s.Tiers))), tenants: make([]counter, len(s.Tenants))}
	events := time.NewTicker(tick)
	done := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			if s.Events != nil {
				s.Events(station, time.Duration(i)*tick)
			}
			if i%10 == 0 {
				r.point()
			}
			select {
			case <-events.C:
			case <-done:
				return
			}
		}
	}()
	for _, req := range all {
		time.Sleep(time.Until(r.start.Add(req.at)))
		r.open++
		go r.play(req)
	}
	for r.open > 0 {
		time.Sleep(time.Second)
	}
	close(done)
	events.Stop()
	hangUp()
	stop()
	synctest.Wait()
	return r.figures(c, seed, ideal)
}

// runner keeps the books of a run. One goroutine of the bubble runs at a time: the lab runs on one processor.
type runner struct {
	scenario Scenario
	station  Station
	call     caller
	start    time.Time
	stats    func() limiter.Stats

	open              int // requests under way, and work that nobody waits for any more
	offered, good     float64
	answers, refusals []time.Duration
	work, inVain      float64
	tiers, tenants    []counter
	lastBad           time.Duration
	trace             []Point
	nowOffered        float64
	nowGood           float64
}

// play sends a request, again if need be, and counts what became of it.
func (r *runner) play(req request) {
	s := r.scenario
	defer func() { r.open-- }()
	judged := req.at >= s.Judged
	r.nowOffered++
	if judged {
		r.offered++
		r.tiers[req.tier].offered++
		if len(r.tenants) > 0 {
			r.tenants[req.tenant].offered++
		}
	}
	backoff := 100 * ms
	for try := 1; ; try++ {
		sent := time.Now()
		ctx, cancel := context.WithDeadline(context.Background(), sent.Add(s.Deadline))
		if len(s.Tiers) > 0 {
			ctx = context.WithValue(ctx, criticalityKey{}, s.Tiers[req.tier].Criticality)
		}
		err := r.call(ctx, func() error {
			if req.fails {
				time.Sleep(ms)
				return errFailFast
			}
			began := time.Now()
			r.station.Do(req.size)
			if began.Sub(r.start) >= s.Judged {
				r.work += req.size.Seconds()
				if time.Since(sent) > s.Deadline {
					r.inVain += req.size.Seconds()
				}
			}
			return nil
		})
		took := time.Since(sent)
		cancel()
		if err == nil && took <= s.Deadline {
			r.nowGood++
			if judged {
				r.good++
				r.answers = append(r.answers, took)
				r.tiers[req.tier].good++
				if len(r.tenants) > 0 {
					r.tenants[req.tenant].good++
				}
			}
			return
		}
		if judged && status.Code(err) == codes.ResourceExhausted {
			r.refusals = append(r.refusals, took)
		}
		if try >= s.Tries || errors.Is(err, errFailFast) {
			if judged {
				r.lastBad = time.Since(r.start)
			}
			return
		}
		time.Sleep(backoff/2 + time.Duration(req.size.Nanoseconds()*7919%int64(backoff)))
		backoff *= 2
	}
}

// point adds to the trace.
func (r *runner) point() {
	p := Point{At: time.Since(r.start), Offered: 10 * r.nowOffered, Goodput: 10 * r.nowGood}
	r.nowOffered, r.nowGood = 0, 0
	if r.stats != nil {
		s := r.stats()
		p.Limit, p.InFlight, p.Line = s.Limit, s.InFlight, s.Line
	}
	r.trace = append(r.trace, p)
}

func (r *runner) figures(c Contestant, seed uint64, ideal float64) Figures {
	s := r.scenario
	seconds := (s.Length - s.Judged).Seconds()
	f := Figures{
		Case: s.Name, Contestant: c.Name, Seed: seed,
		OfferedPerS: r.offered / seconds, GoodputPerS: r.good / seconds, ShareOfIdeal: r.good / ideal,
		P50Ms: percentile(r.answers, 0.50), P99Ms: percentile(r.answers, 0.99), RefusalP99Ms: percentile(r.refusals, 0.99),
		Refused: len(r.refusals), SuccessByTier: shares(r.tiers), ByTenant: shares(r.tenants), Trace: r.trace,
	}
	if r.work > 0 {
		f.InVain = r.inVain / r.work
	}
	for _, p := range r.trace { // the first second in which goodput keeps up
		if p.At >= s.Judged && p.Goodput >= 0.9*p.Offered && p.Offered > 0 {
			f.RecoveryMs = float64(p.At-s.Judged) / float64(ms)
			break
		}
	}
	return f
}
