package soak

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// backSoon lets a connection that is broken come back while its callers are still there.
var backSoon = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: service, Multiplier: 1, MaxDelay: service},
	MinConnectTimeout: time.Second,
}

// network connects clients with one server, in memory, and breaks connections.
type network struct {
	listener *bufconn.Listener
	mu       sync.Mutex
	open     []net.Conn
}

func (n *network) dial(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///bufconn", append(opts, grpc.WithContextDialer(n.connect),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(backSoon))...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (n *network) connect(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := n.listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, conn)
	return conn, nil
}

// breakOne closes one of the connections that were opened, with all that goes on over it.
func (n *network) breakOne(dice *rand.Rand) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) == 0 {
		return
	}
	i := dice.IntN(len(n.open))
	_ = n.open[i].Close()
	n.open[i] = n.open[len(n.open)-1]
	n.open = n.open[:len(n.open)-1]
}
