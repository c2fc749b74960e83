package interceptors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	calls "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/leastrequest"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	turnByTurn   = `{"loadBalancingConfig": [{"round_robin": {}}]}`
	leastRequest = `{"loadBalancingConfig": [{"least_request_experimental": {"choiceCount": 2}}]}`
)

// ten is ten servers, which answer in 10 ms, or do what a test says.
type ten struct {
	*fleet
	testpb.TestServiceClient
	client *Client
	used   *grpc.ClientConn
	does   [10]atomic.Pointer[func(context.Context) error]
	came   [10]atomic.Int64
}

func newTen(t *testing.T, serviceConfig string, opts ...ClientOption) *ten {
	t.Helper()
	c := &ten{}
	var services []*service
	for i := range c.came {
		answer := func(ctx context.Context) error {
			c.came[i].Add(1)
			if f := c.does[i].Load(); f != nil {
				return (*f)(ctx)
			}
			time.Sleep(10 * time.Millisecond)
			return nil
		}
		services = append(services, &service{
			unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				return &testpb.SimpleResponse{Username: fmt.Sprint("server-", i)}, answer(ctx)
			},
			duplex: func(stream testpb.TestService_FullDuplexCallServer) error { return answer(stream.Context()) },
		})
	}
	c.fleet = startFleet(t, services, WithExempt(selector.MatchFunc(everything)))
	c.client = newClient(t, append(opts, WithServiceConfig(serviceConfig))...)
	c.used, _ = c.dial(t, c.client.DialOptions()...)
	c.used.Connect()
	synctest.Wait() // until there is a connection to each
	c.TestServiceClient = testpb.NewTestServiceClient(c.used)
	return c
}

// counts are how calls ended.
type counts struct{ ok, notSent, failed int64 }

// ask makes calls, one each millisecond, each with some time.
func (c *ten) ask(t *testing.T, times int, left time.Duration, opts ...grpc.CallOption) counts {
	t.Helper()
	var ok, notSent, failed atomic.Int64
	var callers sync.WaitGroup
	for range times {
		time.Sleep(time.Millisecond)
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			switch _, err := c.UnaryCall(ctx, &testpb.SimpleRequest{}, opts...); {
			case err == nil:
				ok.Add(1)
			case errors.Is(err, ErrNotSent):
				notSent.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	callers.Wait()
	return counts{ok.Load(), notSent.Load(), failed.Load()}
}

// A backend that refuses, fails or hangs costs a few calls, until it is known, and some probes. All others are answered,
// and shared evenly by the other backends.
func TestOneBadBackendCostsLittle(t *testing.T) {
	failure := func(code codes.Code) func(context.Context) error {
		return func(context.Context) error { return status.Error(code, "the disk is gone") }
	}
	for name, c := range map[string]struct {
		bad         func(context.Context) error
		config      string
		learn, then int64 // lost of the first 2000 calls, and of the next 2000
	}{
		"refuses":         {bad: func(context.Context) error { return errThrottled }, learn: 60, then: 8},
		"foreign refusal": {bad: failure(codes.ResourceExhausted), learn: 60, then: 8},
		"refuses and says that it is idle": {bad: func(ctx context.Context) error {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(LoadTrailer, "1;p=0"))
			return errThrottled
		}, learn: 60, then: 8},
		"refuses and says nonsense": {bad: func(ctx context.Context) error {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(LoadTrailer, "1;p=1", LoadTrailer, "2;p=x"))
			return errThrottled
		}, learn: 60, then: 8},
		"refuses and marks": {bad: func(ctx context.Context) error {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(MarkTrailer, "1;m=100"))
			return errThrottled
		}, learn: 60, then: 8},
		"hangs": {bad: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, learn: 60, then: 3},
		"is not there":                 {bad: failure(codes.Unavailable), learn: 20, then: 3},
		"is broken":                    {bad: failure(codes.Internal), learn: 20, then: 3},
		"draws calls by being broken":  {bad: failure(codes.Internal), config: leastRequest, learn: 20, then: 8},
		"draws calls by refusing them": {bad: failure(codes.ResourceExhausted), config: leastRequest, learn: 60, then: 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.config == "" {
					c.config = turnByTurn
				}
				servers := newTen(t, c.config)
				servers.ask(t, 500, time.Second)
				servers.does[0].Store(&c.bad)
				learn := servers.ask(t, 2000, 300*time.Millisecond)
				before := make([]int64, len(servers.came))
				for i := range servers.came {
					before[i] = servers.came[i].Load()
				}
				then := servers.ask(t, 2000, 300*time.Millisecond)
				t.Logf("at first %+v, then %+v", learn, then)
				if lost := learn.failed; lost > c.learn || learn.notSent > 30 {
					t.Errorf("at first %+v of 2000, want at most %d failed", learn, c.learn)
				}
				if lost := then.failed + then.notSent; lost > c.then {
					t.Errorf("then %+v of 2000, want at most %d lost", then, c.then)
				}
				for i := 1; i < len(before) && c.config == turnByTurn; i++ {
					if n := servers.came[i].Load() - before[i]; n < 210 || n > 235 {
						t.Errorf("%d calls came to server %d, want a ninth of 2000", n, i)
					}
				}
			})
		})
	}
}

func everything(context.Context, calls.CallMeta) bool { return true }

// Ten servers that are asked for five times what they can do serve as much, and as many of the calls are sent for
// nothing, as where what is learned is kept for all of them together; and two clients get as much.
func TestOverloadIsAsBefore(t *testing.T) {
	load := func(t *testing.T, dial func(*Client) []grpc.DialOption) (good, refused, jain float64) {
		synctest.Test(t, func(t *testing.T) {
			var services []*service
			for range 10 {
				services = append(services, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
					time.Sleep(10 * time.Millisecond)
					return &testpb.SimpleResponse{}, nil
				}})
			}
			f := startFleet(t, services, limit(1)...)
			var clients []testpb.TestServiceClient
			for range 2 {
				conn, _ := f.dial(t, dial(newClient(t, WithServiceConfig(turnByTurn)))...)
				clients = append(clients, testpb.NewTestServiceClient(conn))
			}
			var callers sync.WaitGroup
			var ended [2]atomic.Int64
			var sentForNothing atomic.Int64
			const calls, judged = 45_000, 40_000 // 5000/s; over 10,000 chance alone gives an index of .93 in one run of fifty
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range calls {
				time.Sleep(time.Duration(rng.ExpFloat64() * float64(200*time.Microsecond)))
				callers.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
					defer cancel()
					_, err := clients[i%2].UnaryCall(ctx, &testpb.SimpleRequest{})
					switch {
					case i < calls-judged || errors.Is(err, ErrNotSent):
					case err == nil:
						ended[i%2].Add(1)
					default:
						sentForNothing.Add(1)
					}
				})
			}
			callers.Wait()
			a, b := ended[0].Load(), ended[1].Load()
			good, refused = float64(a+b)/(judged/5), float64(sentForNothing.Load())/judged
			jain = jainOf([]int{int(a), int(b)})
		})
		return good, refused, jain
	}
	good, refused, jain := load(t, func(c *Client) []grpc.DialOption { return c.DialOptions() })
	before, refusedBefore, jainBefore := load(t, func(c *Client) []grpc.DialOption {
		return append(c.DialOptions(), grpc.WithDefaultServiceConfig(turnByTurn))
	})
	t.Logf("%.3f of the capacity, %.3f of the calls refused, Jain's index %.3f; by target %.3f, %.3f and %.3f", good, refused, jain, before, refusedBefore, jainBefore)
	if good < before-.03 || refused > refusedBefore+.03 || jain < .95 {
		t.Errorf("want it to be as by target, and fair")
	}
}
