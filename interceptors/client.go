package interceptors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/spillway-go/spillway/limiter"
)

// Client is the caller's side: it carries the criticality of the request at hand on to the servers that are called
// for it, and takes their no for an answer: what they would refuse is not sent. It is safe for concurrent use, by any
// number of connections. Most callers want [DialOptions].
type Client struct {
	policy   atomic.Pointer[clientPolicy]
	incoming incoming
	callees  *callees
	shields  *shields
	config   string // the service config

	idempotent idempotent // of what is hedged; nil: nothing is

	registration metric.Registration
	closed       sync.Once
}

// clientPolicy is how calls are treated, as the options say. It is never changed, only replaced.
type clientPolicy struct {
	trust     trust
	deadlines deadlines
	fallbacks fallbacks

	withoutBreaker, handover bool
}

// DialOptions returns what a caller of protected servers needs, for [grpc.NewClient]. It needs no options. It panics on
// a bad one; [NewClient] returns the error instead.
//
// A call that its callee would refuse, by what it has refused lately and by what it says of its load ([LoadTrailer],
// [MarkTrailer]), is not sent there; nor is one of a method that fails nearly all of them ([WithoutBreaker]). It goes
// to another backend of the name, where there is one ([BackendPolicy]); else it fails at once with [ErrNotSent]. So
// does one that has less time left than the quickest answer takes. A share of the calls is always sent, to find out
// when there is room again. What is learned is kept for each backend, method and criticality. A server that meets the
// refusal of a callee tells its own caller so, whatever its handler makes of it.
//
// A unary call without a deadline gets one ([WithDefaultDeadline]). What a handler calls until its own deadline has a
// twentieth of the time left less than that, at most 50 ms, so that the handler can still answer. Where there is no
// answer, [WithFallback] may have one.
//
// Calls of idempotent methods are retried, by gRPC itself; see [WithIdempotent]. The policy is the connection's default
// service config: one that the resolver brings takes its place, and so does a grpc.WithDefaultServiceConfig after these
// options; before them, it is replaced itself ([WithServiceConfig] has both). Only calls that end with UNAVAILABLE are
// tried again, up to three times in all, after .1 and .2 s or as the server says, and all retries together are at most a
// tenth of a connection's calls. A server that answers with the failure of its own callee forbids its caller the next
// try, so that of many layers only one retries.
//
// Criticality is carried on. It is that of the call's context: what a server with [ServerOptions] put into its handler's context,
// or limiter.ContextWithCriticality. Where there is none, it is what came with the request that the context belongs
// to, read as a server reads it and believed up to [WithCriticalityCeiling]. It is sent as [CriticalityHeader], but
// for a call whose outgoing metadata has that header already: that one stays as it is.
func DialOptions(opts ...ClientOption) []grpc.DialOption {
	c, err := NewClient(opts...)
	if err != nil {
		panic(err)
	}
	return c.DialOptions()
}

// NewClient returns the caller's side, or an error that names the option that is wrong.
func NewClient(opts ...ClientOption) (*Client, error) {
	config, err := newClientConfig(opts)
	if err != nil {
		return nil, err
	}
	c := &Client{callees: new(callees), shields: &config.shields}
	c.policy.Store(&config.policy)
	if c.config, err = config.retries.serviceConfig(protoregistry.GlobalFiles); err != nil {
		return nil, err
	}
	if config.retries.hedging {
		c.idempotent = newIdempotent(append(config.retries.idempotent, idempotentMethods(protoregistry.GlobalFiles)...))
	}
	if err := c.report(config.meterProvider); err != nil {
		return nil, err
	}
	return c, nil
}

// DialOptions returns both interceptors and the service config as options for [grpc.NewClient]. The interceptors are
// chained: those of options before run outside of them, those of options after inside.
func (c *Client) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.UnaryInterceptor()),
		grpc.WithChainStreamInterceptor(c.StreamInterceptor()),
		grpc.WithDefaultServiceConfig(c.config),
	}
}

// UnaryInterceptor returns the interceptor for unary calls.
func (c *Client) UnaryInterceptor() grpc.UnaryClientInterceptor { return c.unary }

// StreamInterceptor returns the interceptor for streams.
func (c *Client) StreamInterceptor() grpc.StreamClientInterceptor { return c.stream }

func (c *Client) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	p := c.policy.Load()
	callee := c.callees.of(targetOf(cc), method)
	err := c.ask(ctx, p, callee, method, req, reply, cc, invoker, opts)
	return p.fallbacks.settle(ctx, callee, method, req, reply, err)
}

func (c *Client) ask(
	ctx context.Context, p *clientPolicy, callee *callee, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts []grpc.CallOption,
) error {
	call, err := c.begin(ctx, p, callee, targetOf(cc), method, true)
	if err != nil {
		return err
	}
	defer call.close()
	var trailer metadata.MD
	if after := call.hedgesAfter(method, reply); after > 0 {
		trailer, err = call.hedge(after, method, req, reply, cc, invoker, opts)
		return call.end(err, trailer)
	}
	err = invoker(call.ctx, method, req, reply, cc, append(opts[:len(opts):len(opts)], grpc.Trailer(&trailer))...)
	return call.end(err, trailer)
}

func (c *Client) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	target := targetOf(cc)
	call, err := c.begin(ctx, c.policy.Load(), c.callees.of(target, method), target, method, false)
	if err != nil {
		return nil, err
	}
	inner, err := streamer(call.ctx, desc, cc, method, opts...)
	if err != nil {
		err = call.end(err, nil)
		call.close()
		return nil, err
	}
	call.count()
	return &clientStream{ClientStream: inner, call: call, many: desc.ServerStreams}, nil
}

// targetOf returns the target of a connection; whoever calls an interceptor by hand may have none.
func targetOf(cc *grpc.ClientConn) string {
	if cc == nil {
		return ""
	}
	return cc.Target()
}

// clientStream tells how a stream ended.
type clientStream struct {
	grpc.ClientStream
	call *call
	many bool // the server sends more than one message
	once sync.Once
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case errors.Is(err, io.EOF):
		_ = s.end(nil)
	case err != nil || !s.many:
		return s.end(err)
	}
	return err
}

// end takes in how the stream ended, once, and returns the error that its caller gets.
func (s *clientStream) end(err error) error {
	s.once.Do(func() {
		err = s.call.end(err, s.Trailer())
		s.call.close()
	})
	return err
}

// carry returns a context with what is to be sent, and the criticality of the call. Where nobody said anything, it is
// ctx itself.
func (c *Client) carry(ctx context.Context) (context.Context, limiter.Criticality) {
	t := &c.policy.Load().trust
	explicit := metadata.ValueFromOutgoingContext(ctx, CriticalityHeader)
	criticality, _ := parseCriticality(explicit)
	if len(explicit) == 0 {
		criticality = c.criticalityOf(ctx, t)
	}
	if criticality == limiter.Unspecified {
		return ctx, criticality
	}
	if len(explicit) == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, CriticalityHeader, criticality.String())
	}
	if t.baggage {
		ctx = withBaggage(ctx, criticality)
	}
	return ctx, criticality
}

func (c *Client) criticalityOf(ctx context.Context, t *trust) limiter.Criticality {
	if criticality := limiter.CriticalityFromContext(ctx); criticality != limiter.Unspecified {
		return bounded(criticality)
	}
	criticality, _ := t.criticality(ctx, c.incoming.metadata(ctx))
	return criticality
}

// ClientOption changes a default of [NewClient] and [DialOptions]. None is needed.
type ClientOption interface{ applyClient(*clientConfig) error }

// SharedOption is an option of servers and clients alike.
type SharedOption interface {
	Option
	ClientOption
}

type trustOption func(*trust) error

func (f trustOption) apply(c *config) error             { return f(&c.trust) }
func (f trustOption) applyClient(c *clientConfig) error { return f(&c.policy.trust) }

// clientOptionFunc is an option that can be changed while connected.
type clientOptionFunc func(*clientPolicy) error

func (f clientOptionFunc) applyClient(c *clientConfig) error { return f(&c.policy) }

// startClientOption is an option that holds from [NewClient] on.
type startClientOption struct {
	name string
	f    func(*clientConfig) error
}

func (o startClientOption) lasts() string                     { return o.name }
func (o startClientOption) applyClient(c *clientConfig) error { return o.f(c) }

type clientConfig struct {
	policy        clientPolicy
	retries       retries
	shields       shields
	meterProvider metric.MeterProvider
}

func newClientConfig(opts []ClientOption) (*clientConfig, error) {
	c := &clientConfig{policy: clientPolicy{
		trust:     trust{ceiling: defaultCeiling},
		deadlines: deadlines{defaultLeastDeadline, defaultMostDeadline},
		fallbacks: fallbacks{},
	}}
	for i, opt := range opts {
		if isNil(opt) {
			return nil, fmt.Errorf("interceptors: option %d is nil; leave it out", i)
		}
		if err := opt.applyClient(c); err != nil {
			return nil, err
		}
	}
	if c.meterProvider == nil {
		c.meterProvider = otel.GetMeterProvider()
	}
	return c, nil
}
