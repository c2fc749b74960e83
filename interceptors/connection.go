package interceptors

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
)

// ConnectionOptions returns options for one connection that comes back soon, notices when its server is gone, and needs
// no order in which services start. They are apart from [DialOptions], for they change what gRPC does on its own:
//
//   - After a failed attempt to connect it tries again after .1 s, then after 1.6 times as long each time, up to 10 s
//     (gRPC: from 1 s to 2 min), with a jitter of a fifth, so that callers do not return together.
//   - While calls wait, and nothing was heard for 6 minutes, it asks whether the server is there. Servers end connections
//     that ask more often than every 5 minutes, unless their keepalive.EnforcementPolicy says otherwise.
//   - Until the connection is there for the first time, calls wait for it instead of failing with UNAVAILABLE, as long
//     as their deadlines allow. Afterwards they fail at once, as ever. A grpc.WaitForReady of the call's own holds.
//
// Each connection needs options of its own: do not give the same to two. Which server gets a call is for the service
// config to say; see [WithServiceConfig].
func ConnectionOptions() []grpc.DialOption {
	var b boot
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: .2, MaxDelay: 10 * time.Second},
			MinConnectTimeout: 5 * time.Second, // for one attempt
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 20 * time.Second}),
		grpc.WithChainUnaryInterceptor(b.unary),
		grpc.WithChainStreamInterceptor(b.stream),
	}
}

// boot lets calls wait until the connection is there for the first time.
type boot struct{ over atomic.Bool }

func (b *boot) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	return invoker(ctx, method, req, reply, cc, b.patient(cc, opts)...)
}

func (b *boot) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return streamer(ctx, desc, cc, method, b.patient(cc, opts)...)
}

// patient returns the options of a call; those that it has already come later, and hold.
func (b *boot) patient(cc *grpc.ClientConn, opts []grpc.CallOption) []grpc.CallOption {
	if b.over.Load() {
		return opts
	}
	if cc.GetState() == connectivity.Ready {
		b.over.Store(true)
		return opts
	}
	return append([]grpc.CallOption{grpc.WaitForReady(true)}, opts...)
}
