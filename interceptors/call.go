package interceptors

import (
	"context"
	"time"

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
	probe       bool          // of the breaker
	permit      limiter.Permit
}

// begin returns the call, or an error if it is not worth sending. Whoever gets a call calls end, if it ends, and close.
func (c *Client) begin(ctx context.Context, p *clientPolicy, callee *callee, target, method string, unary bool) (*call, error) {
	ctx, criticality := c.carry(ctx)
	call := &call{client: c, policy: p, callee: callee, criticality: criticality, unary: unary, began: time.Now()}
	call.ctx, call.cancel, call.given = p.deadlines.set(ctx, callee, unary, call.began)
	if refusal := call.admit(target, method); refusal != nil {
		call.cancel()
		callee.notSent[refusal.obstacle].Add(1)
		if refusal.obstacle != broken {
			limiter.NotePressure(ctx, 1)
		}
		noteFailure(ctx, refusal)
		return nil, refusal
	}
	callee.sent.Add(1)
	return call, nil
}

// admit returns why the call is not worth sending, nil if it is. The breaker comes last, for what it lets through as a
// probe has to be sent.
func (c *call) admit(target, method string) (refusal *notSent) {
	if refusal := c.callee.refuses(c.ctx, c.criticality, c.began); refusal != nil {
		return refusal
	}
	if c.unary {
		if c.permit, refusal = c.client.shields.enter(c.ctx, target, method, c.criticality); refusal != nil {
			return refusal
		}
		c.began = c.began.Add(c.permit.Sojourn())
	}
	if c.policy.withoutBreaker {
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
	c.permit.Release(limiter.Panicked)
}

// end takes in how the call ended.
func (c *call) end(err error, trailer metadata.MD) {
	now := time.Now()
	n, why := parseNews(trailer[LoadTrailer])
	if why != notIgnored {
		c.client.callees.ignored[why].Add(1)
	}
	took, enough := now.Sub(c.began), c.hadEnoughTime()
	c.permit.Release(Outcome(err))
	switch {
	case !c.unary: // a stream's lifetime is no service time
	case err == nil:
		c.callee.observe(took)
		c.callee.latencies.observe(took)
	case c.given > 0 && took >= c.given: // it takes longer: the next one gets more
		c.callee.latencies.observe(took)
	}
	if c.callee.learn(c.criticality, now, err, n) {
		n.pressure = 1
	}
	if !c.policy.withoutBreaker {
		c.callee.breaker.end(now, c.probe, verdictOn(err, enough))
	}
	limiter.NotePressure(c.ctx, n.pressure)
	noteFailure(c.ctx, err)
}

// hadEnoughTime reports whether the callee had as much time as most of its answers take.
func (c *call) hadEnoughTime() bool {
	at, ok := c.ctx.Deadline()
	if !c.unary || !ok {
		return false
	}
	most := time.Duration(c.callee.latencies.p99.Load())
	if most == 0 {
		most = defaultLeastDeadline
	}
	return at.Sub(c.began) >= most
}
