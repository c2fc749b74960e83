package interceptors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

func TestBackendPolicyConfig(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`:                                   "pick_first",
		`{"childPolicy":[]}`:                   "pick_first",
		`{"childPolicy":[{"round_robin":{}}]}`: "round_robin",
		`{"childPolicy":[{"x":{}},{"round_robin":{}}]}`: "round_robin",
		`{"childPolicy":[{"x":{}}]}`:                    "has no policy of childPolicy",
		`{"childPolicy":[{}]}`:                          "childPolicy 0 has 0 names; want one",
		`{"childPolicy":[{"a":{},"b":{}}]}`:             "childPolicy 0 has 2 names; want one",
		`{"childPolicy":[{"pick_first":[]}]}`:           `childPolicy "pick_first": `,
		`{"childPolicy":1}`:                             `want {"childPolicy": `,
		`round_robin`:                                   `want {"childPolicy": `,
	} {
		config, err := backendBuilder{}.ParseConfig(json.RawMessage(raw))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "interceptors: spillway_backends: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want it to say %q", raw, err, want)
			}
			continue
		}
		if got := config.(*backendConfig).child.Name(); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

// backendsKnown returns of how many the method has a standing.
func (c *callee) backendsKnown() int {
	c.backends.mu.Lock()
	defer c.backends.mu.Unlock()
	return len(c.backends.all)
}

// While calls run, backends come and go, and policies change. No call is lost to that, what is gone is forgotten, and
// what comes is used.
func TestBackendsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn)
		conn, names := servers.dial(t, servers.client.DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		callee := servers.client.callees.of(conn.Target(), retried)
		stop := make(chan struct{})
		var callers sync.WaitGroup
		for i := range 20 {
			callers.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(i+1) * time.Millisecond):
					}
					if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
						t.Errorf("%v", err)
						return
					}
				}
			})
		}
		time.Sleep(time.Second)
		if n := callee.backendsKnown(); n != 10 {
			t.Errorf("%d backends known, want 10", n)
		}
		state := resolver.State{Addresses: servers.addresses}
		for i := range 30 {
			state.Addresses = slices.Concat(servers.addresses, servers.addresses)[i%10 : i%10+1+i%9]
			names.UpdateState(state)
			time.Sleep(50 * time.Millisecond)
			if n, want := callee.backendsKnown(), len(state.Addresses); n != want {
				t.Fatalf("%d backends known, want %d", n, want)
			}
		}
		for _, child := range []string{"pick_first", "round_robin", "weighted_round_robin", "least_request_experimental"} {
			state.ServiceConfig = names.CC().ParseServiceConfig(fmt.Sprintf(`{"loadBalancingConfig":[{%q:{"childPolicy":[{%q:{}}]}}]}`, BackendPolicy, child))
			names.UpdateState(state)
			time.Sleep(200 * time.Millisecond)
		}
		close(stop)
		callers.Wait()
		if n, want := callee.backendsKnown(), len(state.Addresses); n != want {
			t.Errorf("%d backends known, want %d", n, want)
		}
		_ = conn.Close()
		synctest.Wait()
		if n := callee.backendsKnown(); n != 0 {
			t.Errorf("%d backends known of a connection that is closed", n)
		}
	})
}

// Whatever names are called, each backend remembers no more than the client does.
func TestBackendMemoryIsBounded(t *testing.T) {
	var c callees
	var b backend
	for i := range 3 * maxCallees {
		b.of(c.of("a", fmt.Sprint("/a.B/", i)))
	}
	if n := len(b.known.all()); n != maxCallees+1 {
		t.Errorf("%d remembered, want those that the client tells apart, %d, and the others as one", n, maxCallees)
	}
	b.forget()
	late := b.of(c.of("a", "/a.B/0")) // by a picker that was replaced
	if late == nil || c.of("a", "/a.B/0").backendsKnown() != 0 || c.other.backendsKnown() != 0 {
		t.Error("what is gone is remembered")
	}
}

// Where a resolver brings a policy of its own, what is learned is kept for the target; and for backends again when it
// names ours.
func TestWithoutThePolicyTargetsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn)
		broken := func(context.Context) error { return status.Error(codes.Internal, "") }
		for i := range servers.came {
			servers.does[i].Store(&broken)
		}
		conn, names := servers.dial(t, servers.client.DialOptions()...)
		conn.Connect()
		synctest.Wait() // until there is a connection to each
		client := testpb.NewTestServiceClient(conn)
		ask := func(times int) (sent int) {
			for range times {
				if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); !errors.Is(err, ErrNotSent) {
					sent++
				}
			}
			return sent
		}
		if sent := ask(200); sent != 10*breakerLeast {
			t.Errorf("%d sent to ten backends that are broken, want %d to each", sent, breakerLeast)
		}
		callee := servers.client.callees.of(conn.Target(), retried)
		names.UpdateState(resolver.State{Addresses: servers.addresses, ServiceConfig: names.CC().ParseServiceConfig(turnByTurn)})
		time.Sleep(100 * time.Millisecond)
		if sent := ask(200); sent != breakerLeast || callee.apart.Load() {
			t.Errorf("%d sent to a target that is broken, want %d", sent, breakerLeast)
		}
		names.UpdateState(resolver.State{Addresses: servers.addresses, ServiceConfig: names.CC().ParseServiceConfig(servers.client.ServiceConfig())})
		time.Sleep(2 * time.Second)
		if sent := ask(200); sent != 10*breakerLeast || !callee.apart.Load() {
			t.Errorf("%d sent when backends are told apart again", sent)
		}
	})
}

// A child that weighs backends by their load reports still does, for it hears of the end of its picks.
func TestWeightsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var came [2]atomic.Int64
		var services []*service
		for i := range came {
			services = append(services, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				came[i].Add(1)
				time.Sleep(time.Duration(1+2*i) * 10 * time.Millisecond)
				return &testpb.SimpleResponse{}, nil
			}})
		}
		f := startFleet(t, services, limit(4, WithLoadReports())...)
		conn, _ := f.dial(t, newClient(t, WithServiceConfig(`{"loadBalancingConfig": [{"weighted_round_robin": {"blackoutPeriod": "2s"}}]}`)).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		ask := func(times int) {
			var callers sync.WaitGroup
			for range times {
				time.Sleep(10 * time.Millisecond)
				callers.Go(func() {
					if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
						t.Errorf("%v", err)
					}
				})
			}
			callers.Wait()
		}
		ask(3000)
		quick, slow := came[0].Load(), came[1].Load()
		ask(2000)
		quick, slow = came[0].Load()-quick, came[1].Load()-slow
		if ratio := float64(quick) / float64(slow); ratio < 2.4 || ratio > 3.6 {
			t.Errorf("%d calls to a server, and %d to one that takes three times as long; want 3 : 1", quick, slow)
		}
	})
}
