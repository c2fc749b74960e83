package interceptors

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/spillway-go/spillway/limiter"
)

// call is one call, or one stream, that is sent.
type call struct {
	ctx         context.Context // that it is sent with
	cancel      context.CancelFunc
	client      *Client
	policy      *clientPolicy
	callee      *callee
	criticality limiter.Criticality
	unary       bool
	began       time.Time
	given       time.Duration // the deadline that it got by default; 0: it came with one, or has none
	probe       bool          // of the breaker, where backends are not told apart
	asked       bool          // whether the callee holds its load, the same
	permit      limiter.Permit
	dispatch    dispatch
	counted     bool // among those that were sent
}

// begin returns the call, or an error if it is not worth sending. Whoever gets a call calls end, if it ends, and close.
func (c *Client) begin(ctx context.Context, p *clientPolicy, callee *callee, target, method string, unary bool) (*call, error) {
	ctx, criticality := c.carry(ctx)
	call := &call{client: c, policy: p, callee: callee, criticality: criticality, unary: unary, began: time.Now()}
	call.ctx, call.cancel, call.given = p.deadlines.set(ctx, callee, unary, call.began)
	call.dispatch.call = call
	if refusal := call.admit(target, method); refusal != nil {
		call.cancel()
		call.stays(refusal, refusal)
		return nil, refusal
	}
	call.ctx = context.WithValue(call.ctx, dispatchKey{}, &call.dispatch)
	if !callee.apart.Load() {
		if call.asked = call.dispatch.asks(&callee.standing, call.began); call.asked {
			call.ctx = metadata.AppendToOutgoingContext(call.ctx, HandoverHeader, handoverVersion)
		}
		call.dispatch.handOver(&callee.standing, call.began)
	}
	return call, nil
}

// admit returns why the call is not worth sending, nil if it is. The breaker comes last, for what it lets through as a
// probe has to be sent. Where backends are told apart, they are asked when gRPC picks one.
func (c *call) admit(target, method string) (refusal *notSent) {
	apart := c.callee.apart.Load()
	level := bounded(c.criticality)
	calls := c.callee.calls[level].Add(1)
	if c.callee.isTooLate(c.ctx, c.began) {
		return errTooLate
	}
	if !apart && !c.callee.throttles[level].send(c.began, 1, calls) {
		return errThrottled
	}
	if c.unary {
		if c.permit, refusal = c.client.shields.enter(c.ctx, target, method, c.criticality); refusal != nil {
			return refusal
		}
		c.began = c.began.Add(c.permit.Sojourn())
	}
	if apart || c.policy.withoutBreaker {
		return nil
	}
	var ok bool
	if c.probe, ok = c.callee.breaker.send(c.began); !ok {
		c.permit.Cancel()
		return errBroken
	}
	return nil
}

// close frees what the call holds, also of one that panicked.
func (c *call) close() {
	c.cancel()
	c.dispatch.close()
	c.permit.Release(limiter.Panicked)
}

// stays takes in that the call was not sent, and what its caller gets for it.
func (c *call) stays(refusal *notSent, err error) {
	c.callee.notSent[refusal.obstacle].Add(1)
	if refusal.obstacle != broken {
		limiter.NotePressure(c.ctx, 1)
		limiter.NoteMark(c.ctx, 1)
	}
	noteFailure(c.ctx, err)
}

// count takes in that the call was sent.
func (c *call) count() {
	if !c.counted {
		c.counted = true
		c.callee.sent.Add(1)
	}
}

// end takes in how the call ended, and returns the error that its caller gets.
func (c *call) end(err error, trailer metadata.MD) error {
	n, why := parseNews(trailer)
	refusal, err := c.dispatch.end(err, n)
	if refusal != nil {
		c.permit.Cancel()
		c.stays(refusal, err)
		return err
	}
	c.count()
	now := time.Now()
	if why != notIgnored {
		c.client.callees.ignored[why].Add(1)
	}
	took := now.Sub(c.began)
	c.permit.Release(Outcome(err))
	switch {
	case !c.unary: // a stream's lifetime is no service time
	case err == nil:
		c.callee.observe(took)
		c.callee.latencies.observe(took)
	case c.given > 0 && took >= c.given: // it takes longer: the next one gets more
		c.callee.latencies.observe(took)
	}
	c.learn(now, err, n)
	if refusedBy(err) != nobody {
		n = news{pressure: 1, mark: 1}
	}
	limiter.NotePressure(c.ctx, n.pressure)
	limiter.NoteMark(c.ctx, n.mark)
	noteFailure(c.ctx, err)
	return err
}

// learn takes in what the end of the call says of its target, where backends are not told apart. A call that never came
// to the load balancing says nothing of whether they are.
func (c *call) learn(now time.Time, err error, n news) {
	own := sending{&c.callee.standing, c.began, c.probe, c.asked}
	switch {
	case c.dispatch.isApart():
		if c.probe {
			own.to.breaker.end(now, true, c.verdict(own, err), &c.callee.tally)
		}
	case isAnswer(err) || !c.callee.apart.Load():
		c.callee.apart.Store(false)
		c.judge(own, now, err, n)
	}
}

// judge takes in what the end of an attempt says of where it went.
func (c *call) judge(a sending, now time.Time, err error, n news) {
	a.to.learn(c.criticality, now, a.began, err, n, c.back())
	if c.policy.handover {
		a.to.acceptance.learn(now, err, a.asked, n)
	}
	if !c.policy.withoutBreaker {
		v := c.verdict(a, err)
		c.callee.tally.add(v)
		a.to.breaker.end(now, a.probe, v, &c.callee.tally)
	}
}

// back is what a refusal takes of the share that is sent.
func (c *call) back() float64 {
	if grpc.ServerTransportStreamFromContext(c.ctx) != nil { // it serves a request
		return throttleBackServing
	}
	return throttleBack
}

func (c *call) verdict(a sending, err error) verdict {
	return verdictOn(err, c.hadEnoughTime(a.began))
}

// hadEnoughTime reports whether the callee had as much time as most of its answers take.
func (c *call) hadEnoughTime(began time.Time) bool {
	at, ok := c.ctx.Deadline()
	if !c.unary || !ok {
		return false
	}
	most := time.Duration(c.callee.latencies.p99.Load())
	if most == 0 {
		most = defaultLeastDeadline
	}
	return at.Sub(began) >= most
}
