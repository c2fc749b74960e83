package interceptors

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// WithHedging sends unary calls of idempotent methods (see [WithIdempotent]) a second time when they take longer
// than 95 of 100 answers, and takes the first answer; the other call is cancelled. The second goes to another
// backend than the first, where there is one. None is sent to a backend that refuses anything or says that it is
// under pressure, none before a hundred answers are known, and none of messages that are not protobuf's. Hedges are
// at most a twentieth of a method's calls, and retries then too, so that both together stay a tenth. The default is
// no hedging: it is more work for the callee, and only helps where one slow answer says nothing of the next.
// [Client.SetOptions] rejects the option.
//
// The call options grpc.Header, grpc.Trailer and grpc.Peer see the answer that was taken, and grpc.OnFinish is called
// once. Interceptors inside of these see both calls.
//
// J. Dean and L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013.
func WithHedging() ClientOption {
	return startClientOption{"WithHedging", func(c *clientConfig) error {
		c.retries.hedging = true
		return nil
	}}
}

// hedgeShare is the part of the calls that may be sent twice.
const hedgeShare = 0.05

// hedges is the budget of a callee. It begins with nothing, and what is not used is kept for ten hedges at most.
type hedges struct {
	mu     sync.Mutex
	credit float64
}

// earn takes in that a call is sent.
func (h *hedges) earn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credit = min(10, h.credit+hedgeShare)
}

// spend reports whether there is room for a hedge, and takes it.
func (h *hedges) spend() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.credit < 1-1e-9 { // whatever the roundings
		return false
	}
	h.credit--
	return true
}

// refund takes back that a hedge was sent.
func (h *hedges) refund() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credit++
}

// hedgesAfter returns after which time the call is sent once more, 0 if never.
func (c *call) hedgesAfter(method string, reply any) time.Duration {
	if c.client.idempotent == nil || c.probe || !c.client.idempotent.has(method) {
		return 0
	}
	if _, ok := reply.(proto.Message); !ok {
		return 0
	}
	c.callee.hedges.earn()
	return time.Duration(c.callee.latencies.p95.Load())
}

// mayHedge reports whether a hedge is worth a try: the callee has refused nothing lately, and spoken of no pressure.
// Where backends are told apart, the hedge looks for one of which that is true.
func (c *call) mayHedge() bool {
	if c.callee.apart.Load() {
		return !c.dispatch.isProbe()
	}
	return c.callee.eased(c.criticality)
}

// attempt is one of at most two that a call is sent as.
type attempt struct {
	reply   any
	header  metadata.MD
	trailer metadata.MD
	peer    peer.Peer
	err     error
}

// send sends an attempt, and has what it ends with for itself.
func (a *attempt) send(ctx context.Context, method string, req any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts []grpc.CallOption) {
	opts = append(opts[:len(opts):len(opts)], grpc.Header(&a.header), grpc.Trailer(&a.trailer), grpc.Peer(&a.peer))
	a.err = invoker(ctx, method, req, a.reply, cc, opts...)
}

// decides reports whether an attempt has the answer: one that was lost on the way does not, and leaves it to the other.
func (a *attempt) decides() bool {
	return isAnswer(a.err) && status.Code(a.err) != codes.ResourceExhausted
}

// news returns what the callee said of its load.
func (a *attempt) news() news {
	n, _ := parseNews(a.trailer)
	return n
}

// hedge sends the call, and once more if there is no answer after a time. Both have ended when it returns: nobody reads
// the request or writes an answer any more.
func (c *call) hedge(
	after time.Duration, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts []grpc.CallOption,
) (metadata.MD, error) {
	shared, own := apart(opts)
	message := reply.(proto.Message)
	first, second := &attempt{reply: reply}, &attempt{reply: message.ProtoReflect().New().Interface()}
	firstCtx, cancelFirst := context.WithCancel(c.ctx)
	defer cancelFirst()
	secondCtx, cancelSecond := context.WithCancel(c.ctx)
	defer cancelSecond()
	won, over := false, make(chan struct{}) // won is read when over is closed
	timer := time.AfterFunc(after, func() {
		defer close(over)
		if !c.mayHedge() || !c.callee.hedges.spend() {
			return
		}
		d := &dispatch{call: c, hedge: true}
		second.send(context.WithValue(secondCtx, dispatchKey{}, d), method, req, cc, invoker, shared)
		if refusal, _ := d.end(second.err, second.news()); refusal != nil {
			c.callee.hedges.refund()
			return
		}
		c.callee.hedged.Add(1)
		if won = second.decides(); won {
			cancelFirst()
		}
	})
	first.send(firstCtx, method, req, cc, invoker, shared)
	_, first.err = c.dispatch.end(first.err, first.news())
	if !timer.Stop() {
		if first.decides() {
			cancelSecond()
		}
		<-over
		if won && !first.decides() {
			proto.Reset(message)
			proto.Merge(message, second.reply.(proto.Message))
			first = second
		}
	}
	show(own, first)
	return first.trailer, first.err
}

// apart returns the options that both attempts have, and those that see how a call ends: these see one end only.
func apart(opts []grpc.CallOption) (shared, own []grpc.CallOption) {
	for _, opt := range opts {
		switch opt.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
			own = append(own, opt)
		default:
			shared = append(shared, opt)
		}
	}
	return shared, own
}

// show tells the options how the call ended.
func show(opts []grpc.CallOption, a *attempt) {
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			*opt.HeaderAddr = a.header
		case grpc.TrailerCallOption:
			*opt.TrailerAddr = a.trailer
		case grpc.PeerCallOption:
			*opt.PeerAddr = a.peer
		case grpc.OnFinishCallOption:
			opt.OnFinish(a.err)
		}
	}
}
