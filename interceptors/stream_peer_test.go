package interceptors

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/limiter"
)

// listen lets the server of a pair be reached at another address, for peers that are not gRPC's, or not well.
func (p *pair) listen(t *testing.T) *bufconn.Listener {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- p.grpc.Serve(listener) }()
	t.Cleanup(func() {
		p.grpc.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener
}

// wire is a connection that can be cut at the client's end, and can be a hole: everything goes in and nothing comes
// out, and no side is told.
type wire struct {
	net.Conn
	hole atomic.Bool
	gone atomic.Bool // the other side has closed it
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.Conn.Read(b)
		if err != nil {
			w.gone.Store(true)
			return n, err
		}
		if !w.hole.Load() {
			return n, nil
		}
	}
}

func (w *wire) Write(b []byte) (int, error) {
	if w.hole.Load() {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

// What the handlers of the test do with a message, by its first byte.
const (
	toWork byte = iota // for 10 s, whatever happens to the caller
	toSend             // without end
	toTell             // one answer, and that is all
)

// handlers is a service with handlers that work, send or answer, and counts those that run.
func handlers(running *atomic.Int64) *service {
	do := func(what *testpb.Payload, send func(*testpb.Payload) error) error {
		switch what.GetBody()[0] {
		case toWork:
			time.Sleep(10 * time.Second)
			return nil
		case toTell:
			return send(&testpb.Payload{})
		}
		for {
			if err := send(&testpb.Payload{Body: make([]byte, messageSize)}); err != nil {
				return err
			}
		}
	}
	return &service{
		input: func(stream testpb.TestService_StreamingInputCallServer) error {
			running.Add(1)
			defer running.Add(-1)
			for {
				r, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return stream.SendAndClose(&testpb.StreamingInputCallResponse{})
				} else if err != nil {
					return err
				}
				_ = do(r.Payload, func(*testpb.Payload) error { return nil })
			}
		},
		output: func(r *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
			running.Add(1)
			defer running.Add(-1)
			return do(r.Payload, func(p *testpb.Payload) error {
				return stream.Send(&testpb.StreamingOutputCallResponse{Payload: p})
			})
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			running.Add(1)
			defer running.Add(-1)
			for {
				r, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := do(r.Payload, func(p *testpb.Payload) error {
					return stream.Send(&testpb.StreamingOutputCallResponse{Payload: p})
				}); err != nil {
					return err
				}
			}
		},
	}
}

// peerClient opens streams of one kind and leaves them as they are.
type peerClient struct {
	t      *testing.T
	ctx    context.Context
	client testpb.TestServiceClient
	halves []func() error // close the client's half of each stream
}

func (c *peerClient) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// open opens a stream and sends what is to be done, if the kind of stream can wait with that.
func (c *peerClient) open(kind string, what ...byte) {
	c.t.Helper()
	payload := &testpb.Payload{Body: what}
	switch kind {
	case "client":
		stream, err := c.client.StreamingInputCall(c.ctx)
		c.check(err)
		if len(what) > 0 {
			c.check(stream.Send(&testpb.StreamingInputCallRequest{Payload: payload}))
		}
		c.halves = append(c.halves, stream.CloseSend)
	case "server":
		_, err := c.client.StreamingOutputCall(c.ctx, &testpb.StreamingOutputCallRequest{Payload: payload})
		c.check(err)
	case "bidi":
		stream, err := c.client.FullDuplexCall(c.ctx)
		c.check(err)
		if len(what) > 0 {
			c.check(stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload}))
		}
		c.halves = append(c.halves, stream.CloseSend)
	}
	synctest.Wait()
}

// However a peer goes, with streams that are idle, worked on, held back and stopped by a reader that does not read:
// everything comes back, and others are served.
func TestPeersThatGo(t *testing.T) {
	for name, how := range map[string]peerEnd{
		"cancels":  {end: func(_ *peerClient, cancel func(), _ *wire) { cancel() }},
		"hangs up": {end: func(_ *peerClient, _ func(), w *wire) { _ = w.Close() }, gone: true},
		"vanishes": {
			end: func(_ *peerClient, _ func(), w *wire) { w.hole.Store(true) },
			// With nothing set, gRPC's server asks after two hours of silence, and gives up 20 s later.
			wait: 2 * time.Hour,
			gone: true,
		},
		"closes its half": {
			end: func(c *peerClient, _ func(), _ *wire) {
				for _, half := range c.halves {
					c.check(half())
				}
			},
			reads: true,
		},
	} {
		for _, kind := range []string{"client", "server", "bidi"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { how.test(t, kind) })
			})
		}
	}
}

// peerEnd is a way in which a peer goes.
type peerEnd struct {
	end   func(c *peerClient, cancel func(), w *wire)
	wait  time.Duration // until the server knows
	gone  bool          // so is its connection
	reads bool          // what it is sent
}

func (how peerEnd) test(t *testing.T, kind string) {
	var running atomic.Int64
	p := connect(t, handlers(&running), limit(1))
	call := func() error { _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); return err }
	if err := call(); err != nil { // the connection of this client is up
		t.Fatal(err)
	}
	listener := p.listen(t)
	synctest.Wait()
	before := goroutines()

	w := &wire{}
	conn, err := grpc.NewClient("passthrough:///peer", grpc.WithContextDialer(func(ctx context.Context, _ string) (_ net.Conn, err error) {
		w.Conn, err = listener.DialContext(ctx)
		return w, err
	}), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &peerClient{t: t, ctx: ctx, client: testpb.NewTestServiceClient(conn)}
	if kind != "server" {
		c.open(kind) // idle
	}
	if kind != "client" && !how.reads {
		c.open(kind, toSend) // stopped
	}
	for range 3 {
		c.open(kind, toWork)
	}
	if s := p.server.Limiter().Stats(); s.InFlight != 1 || s.Line != 2 {
		t.Fatalf("%d in flight and %d in line; want 1, which is worked on, and 2, which are held back", s.InFlight, s.Line)
	}

	how.end(c, cancel, w)
	time.Sleep(how.wait + time.Minute)
	if n := running.Load(); n != 0 {
		t.Errorf("%d handlers still run", n)
	}
	p.wantEmpty(t)
	if err := call(); err != nil {
		t.Errorf("another client's call afterwards: %v", err)
	}
	if how.gone && !w.gone.Load() {
		t.Error("the server keeps the connection")
	}
	_ = conn.Close()
	time.Sleep(time.Minute)
	if after := goroutines(); after != before {
		t.Errorf("%d goroutines before and %d after", before, after)
	}
}

// bubble is how the stack of a goroutine begins that is in a bubble of testing/synctest.
var bubble = regexp.MustCompile(`^goroutine \d+ .*(synctest bubble \d+)`)

// goroutines returns how many there are in this bubble in which gRPC is. Others may still be about to end, of a test before.
func goroutines() (n int) {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	own := bubble.FindSubmatch(stacks)[1] // the first is the caller
	for stack := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		in := bubble.FindSubmatch(stack)
		if in != nil && bytes.Equal(in[1], own) && bytes.Contains(stack, []byte("google.golang.org/grpc")) {
			n++
		}
	}
	return n
}

// Streams that are idle, or stopped by their reader, delay nobody, on the same connection either.
func TestStoppedStreamsDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int64
		p := connect(t, handlers(&running), limit(1))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := &peerClient{t: t, ctx: ctx, client: p}
		for range 20 {
			c.open("server", toSend)
			c.open("bidi", toSend)
			c.open("bidi")
			c.open("client")
		}
		start := time.Now()
		for range 100 {
			if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			if err := askTell(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("200 calls took %v beside 80 streams that are idle or stopped, want no time at all", took)
		}
		if s := p.server.Limiter().Stats(); s.Outcomes[limiter.OK] < 200 {
			t.Errorf("%d completions, want 200", s.Outcomes[limiter.OK])
		}
	})
}

// askTell asks for one answer on a stream of its own.
func askTell(ctx context.Context, client testpb.TestServiceClient) error {
	stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte{toTell}}})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
