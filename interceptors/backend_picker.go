package interceptors

import (
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/metadata"
)

const (
	// mostLooks bounds the backends that a call looks at, however many refuse.
	mostLooks = 16
	// mostReturns is how often the child may come back to the first of them. One that has no other does so at once. One
	// that draws lots may do so though it has others, more so where a backend draws calls by failing them quickly.
	mostReturns = 4
)

// backendPicker has its child pick, again and again, until a backend takes the call, by what is known of it.
type backendPicker struct{ child balancer.Picker }

func (p *backendPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	d, _ := info.Ctx.Value(dispatchKey{}).(*dispatch)
	if d == nil { // not a call of a Client
		_, result, err := p.pick(info)
		return result, err
	}
	r := newRound(d)
	for {
		b, result, err := p.pick(info)
		if err != nil {
			return result, err
		}
		if a, ok := r.offer(b); ok {
			if a.asked {
				result.Metadata = metadata.Join(result.Metadata, handoverQuestion)
			}
			done := result.Done
			result.Done = func(info balancer.DoneInfo) {
				d.ends(a, info)
				if done != nil {
					done(info)
				}
			}
			return result, nil
		}
		if result.Done != nil {
			result.Done(balancer.DoneInfo{}) // as gRPC does itself with what it does not use
		}
		if refusal := r.over(); refusal != nil {
			return balancer.PickResult{}, refusal // a status: gRPC ends the call with it, and tries no more
		}
	}
}

// pick returns what the child picks.
func (p *backendPicker) pick(info balancer.PickInfo) (*backend, balancer.PickResult, error) {
	result, err := p.child.Pick(info)
	if err != nil {
		return nil, result, err
	}
	sc := result.SubConn.(*backendConn) // all that the child knows are such
	result.SubConn = sc.SubConn
	return sc.backend, result, nil
}

// round is one look for a backend.
type round struct {
	d       *dispatch
	now     time.Time
	turns   *turns
	first   *backend // that was looked at; of a hedge, where the call is already
	passed  bool     // one backend was, for its line
	looked  int
	turned  int // looks at what is not broken
	returns int
	refusal *notSent
}

func newRound(d *dispatch) round {
	r := round{d: d, now: time.Now(), turns: &d.call.callee.turns[bounded(d.call.criticality)]}
	d.looks(r.now)
	if d.hedge {
		r.first = d.call.dispatch.at()
	}
	return r
}

// offer returns the attempt if a backend takes it.
func (r *round) offer(b *backend) (sending, bool) {
	r.looked++
	to := b.of(r.d.call.callee)
	if !r.passed && !r.d.hedge && to.detours[bounded(r.d.call.criticality)].takes(r.now) {
		r.passed = true
		return sending{}, false
	}
	if b == r.first {
		if r.returns++; !r.d.hedge || r.returns < mostReturns {
			return sending{}, false
		}
	}
	if r.first == nil {
		r.first = b
	}
	probe, refusal := r.asks(to)
	if refusal != errBroken {
		r.turned++
	}
	if refusal != nil {
		if r.refusal != errThrottled { // one that has too much to do is better than one that is broken
			r.refusal = refusal
		}
		return sending{}, false
	}
	r.count()
	r.d.goes(b, probe)
	r.d.handOver(to, r.now)
	return sending{to, r.now, probe, r.d.asks(to, r.now)}, true
}

// asks returns why a backend does not take the call, nil if it does.
func (r *round) asks(to *standing) (probe bool, refusal *notSent) {
	c := r.d.call
	if r.d.hedge {
		if !to.eased(c.criticality) {
			return false, errThrottled
		}
		return false, nil
	}
	level := bounded(c.criticality)
	if !to.throttles[level].send(r.now, r.turns.part(), c.callee.calls[level].Load()) {
		return false, errThrottled
	}
	if c.policy.withoutBreaker {
		return false, nil
	}
	probe, ok := to.breaker.send(r.now)
	if !ok {
		return false, errBroken
	}
	return probe, nil
}

// over returns why no backend takes the call, nil if more are to be looked at.
func (r *round) over() *notSent {
	if r.looked < mostLooks && r.returns < mostReturns {
		return nil
	}
	if r.refusal == nil { // of a hedge: there is but one backend
		r.refusal = errThrottled
	}
	r.count()
	r.d.stays(r.refusal)
	return r.refusal
}

// count takes in how many turns the call took. A hedge takes none: it goes only where there is room for all.
func (r *round) count() {
	if !r.d.hedge {
		r.turns.took(r.turned)
	}
}

// turns is how many backends the calls of a method and criticality look at, on average. While all have too much to do
// every call looks at many, so each of them sees more calls than are its part. It is to take its share of the part, so
// it counts each look as 1 / turns of a call. The zero value is 1.
type turns struct{ above atomic.Uint64 } // a float64, less 1

// turnsMemory is the number of calls that the average is of.
const turnsMemory = 64

func (t *turns) part() float64 { return 1 / (1 + math.Float64frombits(t.above.Load())) }

// took takes in the turns of one call. Of two that end together one may be lost.
func (t *turns) took(n int) {
	was := math.Float64frombits(t.above.Load())
	if n <= 1 && was == 0 {
		return
	}
	is := was + (float64(max(1, n)-1)-was)/turnsMemory
	if is < 1e-3 {
		is = 0
	}
	t.above.Store(math.Float64bits(is))
}
