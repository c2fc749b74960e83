package conformance

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// interopCases are those of gRPC's interop client that need nothing but the test server. Left out are those for
// credentials of Google's cloud, for load balancers of several servers (pick_first_unary asks for the server's name,
// which the Go server does not tell), orca_oob, which wants reports more often than once in 30 s, and that a server can
// be told only from inside gRPC, and rpc_soak and channel_soak, which are large_unary again and again.
var interopCases = []struct {
	name      string
	unrefused bool // it has ended before a refusal can arrive, or gRPC answers by itself, where only the tap sees it
	hurried   bool // it has 1 ms, which only an idle server can answer in: a refusal is as right an end as the deadline
	run       func(context.Context, *grpc.ClientConn)
}{
	{name: "empty_unary", run: typed(interop.DoEmptyUnaryCall)},
	{name: "large_unary", run: typed(interop.DoLargeUnaryCall)},
	{name: "client_streaming", run: typed(interop.DoClientStreaming)},
	{name: "server_streaming", run: typed(interop.DoServerStreaming)},
	{name: "ping_pong", run: typed(interop.DoPingPong)},
	{name: "empty_stream", run: typed(interop.DoEmptyStream)},
	{name: "timeout_on_sleeping_server", hurried: true, run: typed(interop.DoTimeoutOnSleepingServer)},
	{name: "cancel_after_begin", unrefused: true, run: typed(interop.DoCancelAfterBegin)},
	{name: "cancel_after_first_response", run: typed(interop.DoCancelAfterFirstResponse)},
	{name: "custom_metadata", run: typed(interop.DoCustomMetadata)},
	{name: "status_code_and_message", run: typed(interop.DoStatusCodeAndMessage)},
	{name: "special_status_message", run: typed(interop.DoSpecialStatusMessage)},
	{name: "unimplemented_method", unrefused: true, run: interop.DoUnimplementedMethod},
	{name: "unimplemented_service", unrefused: true, run: func(ctx context.Context, conn *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(conn))
	}},
	{name: "orca_per_rpc", run: func(ctx context.Context, conn *grpc.ClientConn) {
		interop.DoORCAPerRPCTest(ctx, testpb.NewTestServiceClient(conn))
	}},
}

func typed(run func(context.Context, testpb.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, conn *grpc.ClientConn) { run(ctx, testpb.NewTestServiceClient(conn)) }
}

// interopSetups are the servers that each case is run against.
var interopSetups = []struct {
	name      string
	bare      bool
	options   []interceptors.Option
	dial      []grpc.DialOption
	underLoad bool
}{
	{name: "bare", bare: true},
	{name: "protected"},
	{name: "without tap", options: []interceptors.Option{interceptors.WithoutTap()}},
	{name: "compressed", dial: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))}},
	{name: "fixed limit under load", underLoad: true, options: []interceptors.Option{fixedLimit(workers)}},
	{name: "found limit under load", underLoad: true},
	{name: "found limit under load without tap", underLoad: true, options: []interceptors.Option{interceptors.WithoutTap()}},
}

func fixedLimit(n int) interceptors.Option {
	return interceptors.WithLimiterOptions(limiter.WithFixedLimit(n))
}

// orcaBalancer makes a connection hand load reports over, and ask for reports out of band all the time.
const orcaBalancer = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

func TestInterop(t *testing.T) {
	for _, setup := range interopSetups {
		for _, c := range interopCases {
			t.Run(setup.name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					opts := []grpc.ServerOption{orca.CallMetricsServerOption(nil)}
					if !setup.bare {
						opts = append(opts, protect(t, everyOption(setup.options...)...).ServerOptions()...)
					}
					s := serve(t, newStation(), opts...)
					saw := new(witness)
					conn := s.dial(t, slices.Concat(setup.dial, saw.dialOptions(),
						interceptors.DialOptions(interceptors.WithCriticalityBaggage()),
						[]grpc.DialOption{grpc.WithDefaultServiceConfig(orcaBalancer)})...)
					run := func(ctx context.Context) { c.run(ctx, conn) }
					if !setup.underLoad {
						if pass(t, saw, false, run); saw.refusals.Load() > 0 {
							t.Error("refused without load")
						}
						return
					}
					load(t, s)
					for round := 0; round < fewest || !c.unrefused && saw.refusals.Load() == 0; round++ {
						if round == attempts {
							t.Fatal("never refused under load: nothing was tested")
						}
						pass(t, saw, c.hurried, run)
						time.Sleep(retryAfter)
					}
				})
			})
		}
	}
}

const (
	fewest     = 5                    // times that a case has to pass under load, and be refused at least once
	attempts   = 200                  // after which it is plain that it does not pass, or is never refused
	retryAfter = 7 * time.Millisecond // in step with nothing that the load does
)

// pass runs a case until it passes, each time with a higher criticality, from the lowest again after the highest. What
// fails without a refusal fails the test. Where a refusal is good enough, it passes too.
func pass(t *testing.T, saw *witness, refusalIsEnough bool, run func(context.Context)) {
	t.Helper()
	for i := range attempts {
		criticality := limiter.Sheddable + limiter.Criticality(i)%limiter.CriticalPlus
		ctx, cancel := context.WithCancel(limiter.ContextWithCriticality(t.Context(), criticality))
		before := saw.refusals.Load()
		err := attempt(func() { run(ctx) })
		cancel()
		if err == nil {
			return
		}
		if saw.refusals.Load() == before {
			t.Fatal(err)
		}
		if refusalIsEnough {
			return
		}
		time.Sleep(retryAfter)
	}
	t.Fatalf("refused in each of %d attempts", attempts)
}
