package chaos

import (
	"context"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"
)

// Client injects faults into the calls that a gRPC client makes, as if its callee or the way there were in trouble: of
// what fails or is dropped the callee sees nothing. gRPC's own retries happen nearer to the network, so they do not
// repeat such a call. Until [Client.Start] it does nothing. It is safe for concurrent use, several connections may
// share it, and it needs no closing: it has no goroutine.
type Client struct{ injector }

// NewClient returns a Client, or an error that names the option that is wrong. It needs no options.
func NewClient(opts ...Option) (*Client, error) {
	c := new(Client)
	if err := c.init(clientSide, opts); err != nil {
		return nil, err
	}
	return c, nil
}

// DialOptions returns both interceptors as options for [grpc.NewClient]. They are chained: they belong after those of
// Spillway, and so inside of them.
func (c *Client) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.UnaryInterceptor()),
		grpc.WithChainStreamInterceptor(c.StreamInterceptor()),
	}
}

// UnaryInterceptor returns the interceptor for unary calls.
func (c *Client) UnaryInterceptor() grpc.UnaryClientInterceptor { return c.unary }

// StreamInterceptor returns the interceptor for streams.
func (c *Client) StreamInterceptor() grpc.StreamClientInterceptor { return c.stream }

func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if g := c.touching(method); g != nil {
		if err := c.inject(ctx, g, method, middleware.NewClientCallMeta(method, nil, req)); err != nil {
			return err
		}
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

func (c *Client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if g := c.touching(method); g != nil {
		if err := c.inject(ctx, g, method, middleware.NewClientCallMeta(method, desc, nil)); err != nil {
			return nil, err
		}
	}
	return streamer(ctx, desc, cc, method, opts...)
}
