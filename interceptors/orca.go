package interceptors

import (
	"context"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/orca"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/limiter"
)

// WithLoadReports sends a load report along with each answer, as a trailer of grpc-go's package orca, for clients that
// share calls by it, such as those with the balancer weighted_round_robin. Refusals carry none. A report costs a call 6 µs
// and 34 allocations, its reading by the client included: where the clients ask for reports out of band,
// [Server.LoadReports] does the same for nothing. The default is no reports. [Server.SetOptions] rejects it.
func WithLoadReports() Option {
	return startOption{"WithLoadReports", func(c *config) error {
		c.reported = true
		return nil
	}}
}

// LoadReports returns the source of the server's load reports, for clients that ask for them out of band:
//
//	err := orca.Register(srv, orca.ServiceOptions{ServerMetricsProvider: protection.LoadReports()})
//
// A report says how many requests were finished lately, per second, and how many of these failed or came too late.
// The application utilisation is that rate over what it was when the limit last held the load back: where it never did,
// it is the mean number in flight over the limit. It is .8 at most without pressure, and under it 1 at most and up to a
// fifth more by the pressure on the least critical, so that it is above 1 where more is asked for than can be done. Rate over utilisation, by which
// weighted_round_robin shares calls, is thus what the server can do, however much it has to do now.
//
// A limit says little of what a server can do as long as it does not bind, for it keeps head-room over what is in use.
// So clients learn how strong servers are once each of them was full for a moment.
func (s *Server) LoadReports() orca.ServerMetricsProvider { return s.reports }

// loadReports makes load reports of what the limiter knows.
type loadReports struct {
	limiter *limiter.Limiter

	mu           sync.Mutex // guards all below
	report       orca.ServerMetricsRecorder
	made         time.Time // when the report was
	done, failed uint64    // what had ended when the report was made, and which part of it in vain
	all, vain    float64   // the same, of lately
}

const (
	// reportPeriod is how long a report is good for: no client weighs servers anew more often.
	reportPeriod = 100 * time.Millisecond

	// reportMemory is how long failures are remembered: as long as clients wait by default before they look again.
	reportMemory = time.Second

	// silence is after how many times the usual length of a window what was learned in the last is no news any more.
	silence = 10

	// excess is what the pressure adds to the utilisation: enough to show, and too little for clients to swing from one
	// server to the other.
	excess = 0.2

	// eased is the most that a server without pressure does of what it can. One that was taken for weaker than it is would
	// stay so, for it gets no more to do than it was thought to be able to, while others refuse.
	eased = 0.8
)

func newLoadReports(l *limiter.Limiter) *loadReports {
	return &loadReports{limiter: l, report: orca.NewServerMetricsRecorder()}
}

// ServerMetrics returns a report of its own to each caller, for package orca.
func (r *loadReports) ServerMetrics() *orca.ServerMetrics {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.made) >= reportPeriod {
		r.renew(now, r.limiter.Stats())
	}
	return r.report.ServerMetrics()
}

// renew makes a report. The caller holds mu.
func (r *loadReports) renew(now time.Time, s limiter.Stats) {
	r.count(now, s)
	rate, utilisation := s.Throughput, utilisation(s, r.limiter.Pressure(limiter.Sheddable))
	if s.Age.Seconds() > silence*max(s.Service.Seconds(), feedback.MinCompletions/rate) { // nothing to do, or stuck
		rate, utilisation = feedback.MinCompletions/s.Age.Seconds(), float64(s.InFlight)/float64(s.Limit)
	}
	r.report.SetQPS(rate)
	r.report.SetEPS(rate * r.vain / max(1, r.all))
	r.report.SetApplicationUtilization(utilisation)
}

// utilisation returns which part of what the server can do it does, and more than 1 under pressure.
func utilisation(s limiter.Stats, pressure float64) float64 {
	can := s.Capacity
	if can == 0 {
		can = float64(s.Limit) / max(s.Service.Seconds(), 1e-9) // as much as the limit lets in, by Little's law
	}
	if pressure == 0 {
		return min(eased, s.Throughput/can)
	}
	return min(1, s.Throughput/can) + excess*pressure
}

// count takes in what has ended since the last report.
func (r *loadReports) count(now time.Time, s limiter.Stats) {
	done, failed := uint64(0), uint64(0)
	for outcome, n := range s.Outcomes {
		done += n
		if o := limiter.Outcome(outcome); o != limiter.OK && o != limiter.Ignored {
			failed += n
		}
	}
	keep := math.Exp(-now.Sub(r.made).Seconds() / reportMemory.Seconds())
	r.all = keep*r.all + float64(done-r.done)
	r.vain = keep*r.vain + float64(failed-r.failed)
	r.made, r.done, r.failed = now, done, failed
}

// serverOptions return the interceptors that send a report with each answer. Package orca has one sent where somebody has
// asked for its recorder; a handler that does so, to tell more, adds to ours.
func (r *loadReports) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		orca.CallMetricsServerOption(r),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			orca.CallMetricsRecorderFromContext(ctx)
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			orca.CallMetricsRecorderFromContext(stream.Context())
			return handler(srv, stream)
		}),
	}
}
