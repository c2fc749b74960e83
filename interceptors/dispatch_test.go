package interceptors

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/limiter"
)

func refusing(context.Context) error { return errThrottled }

func down(context.Context) error { return errDown }

// A call that no backend takes fails as one that was not sent, at once, also one that waits for connections, and a
// stream.
func TestRefusedByAllBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn)
		for i := range servers.does {
			f := refusing
			servers.does[i].Store(&f)
		}
		ways := map[string]func() error{
			"unary": func() error {
				_, err := servers.UnaryCall(t.Context(), &testpb.SimpleRequest{})
				return err
			},
			"unary that waits": func() error {
				_, err := servers.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.WaitForReady(true))
				return err
			},
			"stream": func() error {
				stream, err := servers.FullDuplexCall(t.Context())
				if err == nil {
					_, err = stream.Recv()
				}
				return err
			},
		}
		for name, ask := range ways {
			unsent, late := 0, 0
			for range 3000 {
				began := time.Now()
				err := ask()
				if status.Code(err) != codes.ResourceExhausted {
					t.Fatalf("%s: %v, want RESOURCE_EXHAUSTED", name, err)
				}
				if errors.Is(err, ErrNotSent) {
					unsent++
					if !errors.Is(err, limiter.ErrRefused) || err != error(errThrottled) {
						t.Fatalf("%s: %#v, want what a call that is not sent ends with", name, err)
					}
					if time.Since(began) != 0 {
						late++
					}
				}
			}
			if unsent < 2400 || late > 0 {
				t.Errorf("%s: %d of 3000 not sent, %d of them not at once", name, unsent, late)
			}
		}
		var came, sent int64
		for i := range servers.came {
			came += servers.came[i].Load()
		}
		for _, callee := range servers.client.callees.known.all() {
			sent += callee.sent.Load()
		}
		if came != sent {
			t.Errorf("%d calls came, and %d are counted as sent", came, sent)
		}
	})
}

// gRPC's own retries teach what the first try met, and go to a backend that is well. Where none is left, the call ends
// as its last try did: it was sent.
func TestRetriesTeach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn, WithIdempotent(retried))
		servers.ask(t, 200, time.Second)
		f := down
		servers.does[0].Store(&f)
		before := servers.came[0].Load()
		if got := servers.ask(t, 2000, time.Second); got.ok != 2000 {
			t.Errorf("%+v of 2000 with a backend that is down, want all answered", got)
		}
		if came := servers.came[0].Load() - before; came > breakerLeast+5 {
			t.Errorf("%d came to what is down, want %d and some probes", came, breakerLeast)
		}
		for i := range servers.does {
			servers.does[i].Store(&f)
		}
		for range 20 * breakerLeast {
			if _, err := servers.UnaryCall(t.Context(), &testpb.SimpleRequest{}); errors.Is(err, ErrNotSent) && status.Code(err) != codes.Unavailable {
				t.Fatalf("%v, want UNAVAILABLE", err)
			}
		}
	})
}

// What no backend takes after a first try ends as that did.
func TestTheLastTryIsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := serve(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return nil, errDown
		}}, nil, newClient(t, WithIdempotent(retried), WithServiceConfig(`{"retryThrottling": {"maxTokens": 1000, "tokenRatio": 1}}`)).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		sent := 0
		for range 2 * breakerLeast { // of three tries each, so that a call sees the breaker open
			switch _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); {
			case errors.Is(err, ErrNotSent):
			case strings.Contains(err.Error(), "down"):
				sent++
			default:
				t.Errorf("%v", err)
			}
		}
		if want := breakerLeast/3 + 1; sent != want {
			t.Errorf("%d calls end as their last try, want %d: the last one was sent once", sent, want)
		}
	})
}

// A hedge goes to another backend than the one that is slow.
func TestHedgesGoElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := newTen(t, turnByTurn, WithHedging(), WithIdempotent(retried))
		servers.ask(t, 1000, time.Second)
		slow := func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(500 * time.Millisecond):
				return nil
			}
		}
		servers.does[0].Store(&slow)
		before, others := servers.came[0].Load(), 0
		for range 100 {
			began := time.Now()
			var from peer.Peer
			answer, err := servers.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Peer(&from))
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(began) > 10*time.Millisecond && answer.Username != "server-0" {
				others++
			}
		}
		if came := int(servers.came[0].Load() - before); came < 9 || came > 12 || others != came {
			t.Errorf("%d calls came to what is slow, and %d were answered elsewhere; want about ten, and as many", came, others)
		}
	})
}

// A refusal that comes before the request was sent is heard, though gRPC says at first that the attempt ended well.
func TestEarlyRefusalsTeach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := serve(t, &service{}, []grpc.ServerOption{grpc.InTapHandle(func(context.Context, *tap.Info) (context.Context, error) {
			return nil, errThrottled
		})}, newClient(t).DialOptions()...)
		client := testpb.NewTestServiceClient(conn)
		unsent := 0
		for range 1000 {
			stream, err := client.FullDuplexCall(t.Context())
			if err == nil {
				synctest.Wait() // until the refusal is there
				_ = stream.Send(&testpb.StreamingOutputCallRequest{})
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.ResourceExhausted {
				t.Fatal(err)
			}
			if errors.Is(err, ErrNotSent) {
				unsent++
			}
		}
		if unsent < 900 {
			t.Errorf("%d of 1000 not sent to a server that refuses all", unsent)
		}
	})
}
