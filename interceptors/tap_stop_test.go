package interceptors

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// A server that ends in the middle of its work, in whatever way, returns all permits and places in the line, and leaves
// no goroutine. Another server that shares the limiter serves all the while.
func TestServersThatStop(t *testing.T) {
	aged := keepalive.ServerParameters{MaxConnectionAge: 7 * time.Second, MaxConnectionAgeGrace: time.Minute}
	for name, c := range map[string]struct {
		around []grpc.ServerOption
		stop   func(*grpc.Server)
		loses  bool // what has begun
	}{
		"at once":                  {stop: (*grpc.Server).Stop, loses: true},
		"gracefully":               {stop: (*grpc.Server).GracefulStop},
		"gracefully, then at once": {stop: func(s *grpc.Server) { time.AfterFunc(time.Second, s.Stop); s.GracefulStop() }, loses: true},
		"a connection by its age":  {around: []grpc.ServerOption{grpc.KeepaliveParams(aged)}, stop: func(*grpc.Server) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stopBusy(t, c.around, c.stop, c.loses) })
		})
	}
}

func stopBusy(t *testing.T, around []grpc.ServerOption, stop func(*grpc.Server), loses bool) {
	lim, err := limiter.New(limiter.WithFixedLimit(2))
	if err != nil {
		t.Fatal(err)
	}
	other := connect(t, &service{}, []Option{WithLimiter(lim)})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	check := func() { // it may be refused while the limiter is full
		t.Helper()
		_, err := other.UnaryCall(ctx, &testpb.SimpleRequest{})
		for status.Code(err) == codes.ResourceExhausted {
			time.Sleep(100 * time.Millisecond)
			_, err = other.UnaryCall(ctx, &testpb.SimpleRequest{})
		}
		if err != nil {
			t.Errorf("a call of the other server: %v", err)
		}
	}
	check()
	synctest.Wait()
	before := goroutines()

	var running atomic.Int64
	svc := handlers(&running)
	svc.unary = slow(5 * time.Second).unary
	p := connect(t, svc, []Option{WithLimiter(lim)}, around...)
	brief, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := &peerClient{t: t, ctx: brief, client: p}
	c.open("bidi")
	c.open("client")
	c.open("server", toSend)
	var all sync.WaitGroup
	var answered, refused atomic.Int64
	for range 4 { // two are worked on, two wait
		all.Go(func() {
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err == nil {
				answered.Add(1)
			}
		})
	}
	synctest.Wait()
	if s := lim.Stats(); s.InFlight != 2 || s.Line != 2 {
		t.Fatalf("%d in flight and %d in line, want 2 and 2", s.InFlight, s.Line)
	}
	for range 20 { // goes on asking
		all.Go(func() {
			for range 20 {
				time.Sleep(100 * time.Millisecond)
				impatient, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				if _, err := p.UnaryCall(impatient, &testpb.SimpleRequest{}); status.Code(err) == codes.ResourceExhausted {
					refused.Add(1)
				}
				cancel()
			}
		})
	}
	time.Sleep(time.Second)
	all.Go(func() { stop(p.grpc) })
	check()
	all.Wait()
	if got := answered.Load(); loses == (got == 4) {
		t.Errorf("%d of 4 calls were answered that had begun before", got)
	}
	if refused.Load() == 0 {
		t.Error("none was refused")
	}
	_ = p.conn.Close()
	p.grpc.Stop()
	time.Sleep(time.Minute)
	p.wantEmpty(t)
	if n := running.Load(); n != 0 {
		t.Errorf("%d handlers still run", n)
	}
	if after := goroutines(); after != before {
		t.Errorf("%d goroutines before and %d after", before, after)
	}
	check()
}
