package lab

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// books are what is counted during a run. Requests count themselves, from goroutines of their own.
type books struct {
	scenario Scenario
	start    time.Time

	mu                sync.Mutex // guards all below
	all               counter
	tiers             []counter
	tenants, methods  []counter // none where the scenario has none
	answers, refusals []time.Duration
	work, inVain      float64
	trace             []Point
	sent, answered    float64 // since the last point of the trace
	inFlight, line    int
}

func newBooks(s Scenario) *books {
	return &books{
		scenario: s, start: time.Now(), tiers: make([]counter, max(1, len(s.Tiers))),
		tenants: make([]counter, len(s.Tenants)), methods: make([]counter, len(s.Methods)),
	}
}

// counter counts requests, such as those of a tier or tenant.
type counter struct{ offered, good, work float64 } // work: of the good, in seconds

// count lets all counters of a request count it. The caller holds mu.
func (b *books) count(req request, by func(*counter)) {
	by(&b.all)
	by(&b.tiers[req.tier])
	if len(b.tenants) > 0 {
		by(&b.tenants[req.tenant])
	}
	if len(b.methods) > 0 {
		by(&b.methods[req.method])
	}
}

// offer counts a request that arrives, however often it is then tried.
func (b *books) offer(req request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent++
	if req.at >= b.scenario.Judged {
		b.count(req, func(c *counter) { c.offered++ })
	}
}

// visit is one try of a request: its caller's side and its server's side, of which either may end first.
type visit struct {
	books *books
	req   request
	sent  time.Time
	began time.Time // when the handler took it; zero: not yet
	gone  bool      // the caller no longer waits
}

// try counts one that comes to the contestant.
func (b *books) try(req request) *visit {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line++
	return &visit{books: b, req: req, sent: time.Now()}
}

// begin is called by the handler as it starts.
func (v *visit) begin() {
	b := v.books
	b.mu.Lock()
	defer b.mu.Unlock()
	v.began = time.Now()
	b.inFlight++
	if !v.gone {
		b.line--
	}
}

// finish is called by the handler at its end. Work is in vain when its caller's deadline has passed.
func (v *visit) finish() {
	b := v.books
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	if v.req.fails || b.scenario.waits(v.req) || v.began.Sub(b.start) < b.scenario.Judged {
		return
	}
	b.work += v.req.size.Seconds()
	if time.Since(v.sent) > b.scenario.deadline(v.req) {
		b.inVain += v.req.size.Seconds()
	}
}

// end is called by the caller when it has an answer or gives up, and reports whether all was well. Who waited until
// the deadline and was never let in, got a NO too: the slowest possible. Nobody waits beyond the deadline, whatever
// the server goes on to do.
func (v *visit) end(err error) bool {
	b := v.books
	took := time.Since(v.sent)
	b.mu.Lock()
	defer b.mu.Unlock()
	v.gone = true
	if v.began.IsZero() {
		b.line--
	}
	judged := v.req.at >= b.scenario.Judged
	deadline := b.scenario.deadline(v.req)
	if err != nil || took > deadline {
		if judged && (v.began.IsZero() || status.Code(err) == codes.ResourceExhausted) {
			b.refusals = append(b.refusals, min(took, deadline))
		}
		return false
	}
	b.answered++
	if judged {
		b.answers = append(b.answers, took)
		b.count(v.req, func(c *counter) {
			c.good++
			if !b.scenario.waits(v.req) {
				c.work += v.req.size.Seconds()
			}
		})
	}
	return true
}

// point adds to the trace, once a pointEvery.
func (b *books) point(limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	perSecond := float64(time.Second / pointEvery)
	b.trace = append(b.trace, Point{
		At: time.Since(b.start), Offered: perSecond * b.sent, Goodput: perSecond * b.answered,
		Limit: limit, InFlight: b.inFlight, Line: b.line,
	})
	b.sent, b.answered = 0, 0
}
