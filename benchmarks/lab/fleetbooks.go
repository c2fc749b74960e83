package lab

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// fleetBooks count the requests of a fleet as [books] do, and what they met on their way.
type fleetBooks struct {
	*books
	fleet    Fleet
	seed     uint64
	journeys []journey // by the number of the request, less 1
}

// journey is a request on its way through the services.
type journey struct {
	request
	seed uint64

	mu       sync.Mutex // guards all below
	visits   uint64     // of handlers
	attempts []int      // that were sent, by service
	refused  int        // of those that the client sent
	work     time.Duration
	good     bool
}

// begin is called by a handler of a service as it starts, and returns how long its work takes and a rank that no other
// sleeper has.
func (j *journey) begin(f Fleet, service int) (size time.Duration, rank int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.visits++
	return f.sizeAt(service, j.number, j.seed), j.number<<10 + int(j.visits)
}

// worked is called by a handler when its work is done.
func (j *journey) worked(size time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.work += size
}

func (j *journey) end(good bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.good = good
}

// journeyKey carries a journey to those who watch its calls.
type journeyKey struct{}

// journeyWatch sees what really is sent by a connection to a service.
type journeyWatch struct {
	service int
	client  bool // it is that of a client
}

// TagRPC tells attempts apart.
func (*journeyWatch) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, attemptKey{}, new(attempt))
}

func (*journeyWatch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*journeyWatch) HandleConn(context.Context, stats.ConnStats)                       {}

// attempt is one that gRPC makes. Only one whose headers leave is sent.
type attempt struct{ sent bool }

type attemptKey struct{}

// HandleRPC counts the attempts that are sent.
func (w *journeyWatch) HandleRPC(ctx context.Context, event stats.RPCStats) {
	j, a := ctx.Value(journeyKey{}).(*journey), ctx.Value(attemptKey{}).(*attempt)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch event := event.(type) {
	case *stats.OutHeader:
		a.sent = true
		j.attempts[w.service]++
	case *stats.End:
		if w.client && a.sent && status.Code(event.Error) == codes.ResourceExhausted {
			j.refused++
		}
	}
}

func newFleetBooks(f Fleet, seed uint64, all []request) *fleetBooks {
	b := &fleetBooks{fleet: f, seed: seed, journeys: make([]journey, len(all))}
	for i, req := range all {
		b.journeys[i] = journey{request: req, seed: seed, attempts: make([]int, len(f.Services))}
	}
	return b
}

// open starts to count.
func (b *fleetBooks) open() { b.books = newBooks(b.fleet.Scenario) }

// FleetFigures are what a run of a fleet gave. Work in vain is that for requests which were not answered in time, whoever
// did it.
type FleetFigures struct {
	Figures
	Sent        float64 `json:"sent"`         // share of the requests that their clients sent
	SentRefused float64 `json:"sent_refused"` // attempts of clients that were answered with a refusal, for each request
	Attempts    float64 `json:"attempts"`     // for each request that was sent, at the service that got most of them, over those that it takes
	Lost        int     `json:"lost"`         // requests without an answer in time
}

// figures are taken after the last handler has ended.
func (b *fleetBooks) figures(c Caller, best ideal) FleetFigures {
	f := FleetFigures{Figures: b.books.figures(Contestant{Name: c.Name}, b.seed, best)}
	var offered, sent, refused, attempts, work, vain float64
	for i := range b.journeys {
		j := &b.journeys[i]
		if j.at < b.fleet.Judged {
			continue
		}
		offered++
		refused += float64(j.refused)
		work += j.work.Seconds()
		if !j.good {
			f.Lost++
			vain += j.work.Seconds()
		}
		needs, most := b.fleet.needs(j.tenant), 0.0
		for service, n := range j.attempts {
			most = max(most, float64(n)/float64(max(1, needs[service])))
		}
		if most > 0 {
			sent++
			attempts += most
		}
	}
	f.Sent, f.SentRefused, f.Attempts, f.InVain = sent/offered, refused/offered, attempts/sent, vain/work
	return f
}
