package interceptors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/spillway-go/spillway/limiter"
)

// Client is the caller's side: it carries the criticality of the request at hand on to the servers that are called
// for it, and takes their no for an answer: what they would refuse is not sent. It is safe for concurrent use, by any
// number of connections. Most callers want [DialOptions].
type Client struct {
	trust    atomic.Pointer[trust]
	incoming incoming
	callees  callees
	retrying string // the service config; "": none
}

// DialOptions returns what a caller of protected servers needs, for [grpc.NewClient]. It needs no options. It panics on
// a bad one; [NewClient] returns the error instead.
//
// A call that its callee would refuse, by what it has refused lately and by what it says of its load ([LoadTrailer]), is
// not sent, and fails at once with [ErrNotSent]; so does one that has less time left than the quickest answer takes. A
// share of the calls is always sent, to find out when there is room again. What is learned is kept for each target,
// method and criticality. A server that meets the refusal of a callee tells its own caller so, whatever its handler
// makes of it.
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
	c := new(Client)
	c.trust.Store(&config.trust)
	if c.retrying, err = config.retries.serviceConfig(protoregistry.GlobalFiles); err != nil {
		return nil, err
	}
	return c, nil
}

// DialOptions returns both interceptors and the service config as options for [grpc.NewClient]. The interceptors are
// chained: those of options before run outside of them, those of options after inside.
func (c *Client) DialOptions() []grpc.DialOption {
	opts := []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.UnaryInterceptor()),
		grpc.WithChainStreamInterceptor(c.StreamInterceptor()),
	}
	if c.retrying != "" {
		opts = append(opts, grpc.WithDefaultServiceConfig(c.retrying))
	}
	return opts
}

// UnaryInterceptor returns the interceptor for unary calls.
func (c *Client) UnaryInterceptor() grpc.UnaryClientInterceptor { return c.unary }

// StreamInterceptor returns the interceptor for streams.
func (c *Client) StreamInterceptor() grpc.StreamClientInterceptor { return c.stream }

func (c *Client) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	ctx, criticality := c.carry(ctx)
	call, err := c.begin(ctx, cc, method, criticality)
	if err != nil {
		return err
	}
	var trailer metadata.MD
	err = invoker(ctx, method, req, reply, cc, append(opts[:len(opts):len(opts)], grpc.Trailer(&trailer))...)
	call.end(err, trailer, time.Since(call.began))
	return err
}

func (c *Client) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, criticality := c.carry(ctx)
	call, err := c.begin(ctx, cc, method, criticality)
	if err != nil {
		return nil, err
	}
	inner, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		call.end(err, nil, 0)
		return nil, err
	}
	return &clientStream{ClientStream: inner, call: call, many: desc.ServerStreams}, nil
}

// call is one call that is sent.
type call struct {
	ctx         context.Context
	callee      *callee
	criticality limiter.Criticality
	began       time.Time
}

// begin returns the call, or an error if it is not worth sending.
func (c *Client) begin(ctx context.Context, cc *grpc.ClientConn, method string, criticality limiter.Criticality) (call, error) {
	call := call{ctx, c.callees.of(targetOf(cc), method), criticality, time.Now()}
	if err := call.callee.send(ctx, criticality, call.began); err != nil {
		limiter.NotePressure(ctx, 1)
		noteFailure(ctx, err)
		return call, err
	}
	return call, nil
}

// targetOf returns the target of a connection; whoever calls an interceptor by hand may have none.
func targetOf(cc *grpc.ClientConn) string {
	if cc == nil {
		return ""
	}
	return cc.Target()
}

// end takes in how the call ended. took is 0 for a stream, whose lifetime is no service time.
func (c *call) end(err error, trailer metadata.MD, took time.Duration) {
	n, _ := parseNews(trailer[LoadTrailer])
	if c.callee.learn(c.criticality, time.Now(), took, err, n) {
		n.pressure = 1
	}
	limiter.NotePressure(c.ctx, n.pressure)
	noteFailure(c.ctx, err)
}

// clientStream tells how a stream ended.
type clientStream struct {
	grpc.ClientStream
	call call
	many bool // the server sends more than one message
	once sync.Once
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case errors.Is(err, io.EOF):
		s.end(nil)
	case err != nil || !s.many:
		s.end(err)
	}
	return err
}

func (s *clientStream) end(err error) {
	s.once.Do(func() { s.call.end(err, s.Trailer(), 0) })
}

// carry returns a context with what is to be sent, and the criticality of the call. Where nobody said anything, it is
// ctx itself.
func (c *Client) carry(ctx context.Context) (context.Context, limiter.Criticality) {
	t := c.trust.Load()
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
func (f trustOption) applyClient(c *clientConfig) error { return f(&c.trust) }

// startClientOption is an option that holds from [NewClient] on.
type startClientOption struct {
	name string
	f    func(*clientConfig) error
}

func (o startClientOption) applyClient(c *clientConfig) error { return o.f(c) }

type clientConfig struct {
	trust   trust
	retries retries
}

func newClientConfig(opts []ClientOption) (clientConfig, error) {
	c := clientConfig{trust: trust{ceiling: defaultCeiling}}
	for i, opt := range opts {
		if isNil(opt) {
			return clientConfig{}, fmt.Errorf("interceptors: option %d is nil; leave it out", i)
		}
		if err := opt.applyClient(&c); err != nil {
			return clientConfig{}, err
		}
	}
	return c, nil
}
