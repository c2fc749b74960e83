package faults

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"
)

// network is the way between two ends in memory. It behaves as TCP does over one that loses packets, or is cut: what is
// written comes late, and in order, or when the way is open again.
type network struct {
	mu   sync.Mutex // guards all below
	dice *rand.Rand
	loss float64       // share of writes that are lost and sent again
	open chan struct{} // closed while the way is open
	lost int
}

// retransmission is how long TCP waits at least before it sends again what nobody has acknowledged (Linux: 200 ms, RFC
// 6298 would have a second), and twice as long each time after.
const retransmission = 200 * time.Millisecond

func newNetwork(seed uint64) *network {
	n := &network{dice: rand.New(rand.NewPCG(seed, 0)), open: make(chan struct{})}
	close(n.open)
	return n
}

// lose sets the share of writes that are lost from now on, and returns how many were lost so far.
func (n *network) lose(share float64) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = share
	return n.lost
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = make(chan struct{})
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.open)
}

// send reports whether a write is not lost this time, and the channel that is closed while the way is open.
func (n *network) send() (arrives bool, open <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	arrives = n.dice.Float64() >= n.loss
	if !arrives {
		n.lost++
	}
	return arrives, n.open
}

// link is an end of a connection over a network.
type link struct {
	net.Conn
	network *network
	closed  chan struct{}
	once    sync.Once
}

func (n *network) link(conn net.Conn) net.Conn {
	return &link{Conn: conn, network: n, closed: make(chan struct{})}
}

func (l *link) Write(p []byte) (int, error) {
	for again := retransmission; ; again *= 2 {
		arrives, open := l.network.send()
		select {
		case <-open:
		case <-l.closed:
			return 0, net.ErrClosed
		}
		if arrives {
			return l.Conn.Write(p)
		}
		select {
		case <-time.After(again):
		case <-l.closed:
			return 0, net.ErrClosed
		}
	}
}

func (l *link) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// listener accepts connections over a network.
type listener struct {
	*bufconn.Listener
	network *network
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.network.link(conn), nil
}

func (l listener) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	return l.network.link(conn), nil
}

// inMemory plays some trouble of a network in memory, in fake time.
func inMemory(t *testing.T, with func(*network) trouble) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(1)
		l := listener{bufconn.Listen(1 << 16), n}
		srv := grpc.NewServer(grpc.WaitForHandlers(true))
		testpb.RegisterTestServiceServer(srv, answering{})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		c := newCaller(t, "callee", l.dial)
		survive(t, c, with(n))
		c.close()
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestPacketLossInMemory(t *testing.T) {
	inMemory(t, func(n *network) trouble {
		return trouble{
			begin: func() { n.lose(.2) },
			end: func() {
				if lost := n.lose(0); lost == 0 {
					t.Error("no write was lost")
				}
			},
			lasts: limping,
		}
	})
}

func TestPartitionInMemory(t *testing.T) {
	inMemory(t, func(n *network) trouble {
		return trouble{begin: n.cut, end: n.heal, lasts: failing}
	})
}
