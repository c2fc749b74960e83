package interceptors

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/spillway-go/spillway/limiter"
)

// Client is the caller's side: it carries the criticality of the request at hand on to the servers that are called
// for it. It is safe for concurrent use, by any number of connections. Most callers want [DialOptions].
type Client struct {
	trust    atomic.Pointer[trust]
	incoming incoming
}

// DialOptions returns what carries criticality on, for [grpc.NewClient]. It needs no options. It panics on a bad one;
// [NewClient] returns the error instead.
//
// The criticality is that of the call's context: what a server with [ServerOptions] put into its handler's context,
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
	c := new(Client)
	if err := c.SetOptions(opts...); err != nil {
		return nil, err
	}
	return c, nil
}

// DialOptions returns both interceptors as options for [grpc.NewClient]. The interceptors are chained: those of
// options before run outside of them, those of options after inside.
func (c *Client) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.UnaryInterceptor()),
		grpc.WithChainStreamInterceptor(c.StreamInterceptor()),
	}
}

// UnaryInterceptor returns the interceptor for unary calls.
func (c *Client) UnaryInterceptor() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoker(c.carry(ctx), method, req, reply, cc, opts...)
	}
}

// StreamInterceptor returns the interceptor for streams.
func (c *Client) StreamInterceptor() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return streamer(c.carry(ctx), desc, cc, method, opts...)
	}
}

// carry returns a context with what is to be sent. Where nobody said anything, it is ctx itself.
func (c *Client) carry(ctx context.Context) context.Context {
	t := c.trust.Load()
	explicit := metadata.ValueFromOutgoingContext(ctx, CriticalityHeader)
	criticality, _ := parseCriticality(explicit)
	if len(explicit) == 0 {
		criticality = c.criticalityOf(ctx, t)
	}
	if criticality == limiter.Unspecified {
		return ctx
	}
	if len(explicit) == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, CriticalityHeader, criticality.String())
	}
	if t.baggage {
		ctx = withBaggage(ctx, criticality)
	}
	return ctx
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

type clientConfig struct{ trust trust }

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
