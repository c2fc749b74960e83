package soak

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

const (
	callers     = 256
	connections = 8
)

// The time in it is virtual, but all that happens at an instant runs on all processors, and races.
func TestServer(t *testing.T) {
	p := want(fewCalls, 1_000_000)
	defer p.show(t, "calls")()
	synctest.Test(t, func(t *testing.T) {
		protection, err := interceptors.NewServer(settings[0]...)
		if err != nil {
			t.Fatal(err)
		}
		soakServer(t, protection, p, p.total/10)
		before := look()
		ends := soakServer(t, protection, p, p.total)
		before.compare(t)
		wantEmpty(t, protection.Limiter())
		if err := protection.Close(); err != nil {
			t.Error(err)
		}
		for _, end := range slices.Sorted(maps.Keys(ends)) {
			t.Logf("%7d %s", ends[end], end)
		}
		for _, end := range mustHappen {
			if ends[end] == 0 {
				t.Errorf("no call ended like this: %s", end)
			}
		}
	})
}

// settings are what the protection is told in turn, while calls come and go.
var settings = [][]interceptors.Option{
	{
		interceptors.WithTenant(interceptors.TenantFromMetadata("x-tenant")),
		interceptors.WithBulkhead("input", .1, method("StreamingInputCall")),
	},
	{
		interceptors.WithCriticalityCeiling(limiter.CriticalPlus),
		interceptors.WithTenant(interceptors.TenantFromMethod()),
		interceptors.WithBulkhead("input", .3, method("StreamingInputCall")),
		interceptors.WithBulkhead("unary", .3, method("UnaryCall")),
		interceptors.WithWeight(func(_ context.Context, _ string, req any) int {
			r, _ := req.(*testpb.SimpleRequest)
			return 1 + len(r.GetPayload().GetBody())/1000
		}),
	},
}

func method(name string) selector.Matcher {
	return selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool { return call.Method == name })
}

// mustHappen are ends without which nothing was tested.
var mustHappen = []string{
	"unary: OK", "unary: NotFound", "unary: Aborted", "unary: Internal", // a panic
	"unary: Canceled", "unary: DeadlineExceeded", "unary: Unavailable", // a broken connection
	"unary: refused (DEADLINE)",
	"duplex: OK", "duplex: Canceled", "duplex: Internal", "duplex: Unavailable",
	"input: OK", "input: Canceled", "output: OK", "output: Canceled", "slow reader: OK", "slow reader: Canceled",
	"abandoned: OK",
}

// soakServer lets callers make calls up to a point, to a new server with the protection given, while connections break,
// and returns how they ended, when all of it is gone.
func soakServer(t *testing.T, protection *interceptors.Server, p *progress, upTo int64) (ends map[string]int) {
	t.Helper()
	internal := recovery.WithRecoveryHandler(func(any) error { return status.Error(codes.Internal, "recovered") })
	srv := grpc.NewServer(append([]grpc.ServerOption{
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(internal)),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(internal)),
	}, protection.ServerOptions()...)...)
	testpb.RegisterTestServiceServer(srv, newStation())
	n := &network{listener: bufconn.Listen(1 << 16)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(n.listener) }()

	ctx, stop := context.WithCancel(t.Context())
	var conns []*grpc.ClientConn
	for i := range connections {
		var opts []grpc.DialOption
		if i%4 == 0 {
			opts = interceptors.DialOptions()
		}
		conns = append(conns, n.dial(t, opts...))
	}
	var running sync.WaitGroup
	running.Go(func() {
		dice := rand.New(rand.NewPCG(uint64(upTo), 0))
		for ctx.Err() == nil {
			n.breakOne(dice)
			if err := protection.SetOptions(settings[dice.IntN(len(settings))]...); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Duration(dice.IntN(200)) * moment)
		}
	})
	ends = map[string]int{}
	var calling sync.WaitGroup
	var mu sync.Mutex
	for i := range callers {
		calling.Go(func() {
			c := &caller{
				client: testpb.NewTestServiceClient(conns[i%connections]),
				dice:   rand.New(rand.NewPCG(uint64(upTo), uint64(1+i))),
				ends:   map[string]int{},
			}
			for p.claim(1, upTo) {
				for sent := false; !sent; time.Sleep(time.Duration(c.dice.IntN(400)) * moment) {
					sent = c.turn(ctx)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for end, n := range c.ends {
				ends[end] += n
			}
		})
	}
	calling.Wait()
	stop()
	running.Wait()
	for _, conn := range conns {
		_ = conn.Close()
	}
	srv.Stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	time.Sleep(time.Minute) // longer than any deadline: what was refused in the tap is kept till then
	return ends
}
