package interceptors

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// hurried is a pool of ten workers, who take 10 ms each, and counts what comes to it later than it was sent, or under pressure.
type hurried struct {
	workers chan struct{}
	began   atomic.Int64
	delayed atomic.Int64
	pressed atomic.Int64
}

const hurriedPatience = 500 * time.Millisecond

func newHurried() *hurried { return &hurried{workers: make(chan struct{}, 10)} }

func (h *hurried) service() *service {
	return &service{
		unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{}, h.work(ctx)
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			for range 2 { // each message has to wait for a worker
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
			return h.work(stream.Context())
		},
	}
}

func (h *hurried) work(ctx context.Context) error {
	h.began.Add(1)
	if at, _ := ctx.Deadline(); time.Until(at) < hurriedPatience-time.Millisecond {
		h.delayed.Add(1)
	}
	if limiter.Pressure(ctx) > 0 {
		h.pressed.Add(1)
	}
	select {
	case h.workers <- struct{}{}:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	defer func() { <-h.workers }()
	time.Sleep(10 * time.Millisecond)
	return nil
}

// rush sends calls at a rate, every tenth a stream, and returns how many were sent, refused and told of a pressure.
func (p *pair) rush(t *testing.T, rate float64, span time.Duration) (sent, refused, told int64) {
	var all sync.WaitGroup
	var count, heard atomic.Int64
	random := rand.New(rand.NewPCG(1, uint64(rate)))
	start := time.Now()
	for next := start; next.Sub(start) < span; sent++ {
		time.Sleep(time.Until(next))
		streams := sent%10 == 0
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), hurriedPatience)
			defer cancel()
			var err error
			if streams {
				err = askTwice(ctx, p)
			} else {
				var trailer metadata.MD
				_, err = p.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Trailer(&trailer))
				heard.Add(int64(len(trailer.Get(LoadTrailer))))
			}
			if status.Code(err) == codes.ResourceExhausted {
				count.Add(1)
			}
		})
		next = next.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
	}
	all.Wait()
	time.Sleep(hurriedPatience) // for handlers whose callers have gone
	return sent, count.Load(), heard.Load()
}

// askTwice sends two messages in a stream and waits for its end.
func askTwice(ctx context.Context, p *pair) error {
	stream, err := p.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 2 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			break // Recv has the reason
		}
	}
	_, err = stream.Recv()
	return err
}

func (p *pair) wantDryRunsOver(t *testing.T) {
	t.Helper()
	if n := p.server.Limiter().Stats().DryRun; n != 0 {
		t.Errorf("%d requests of dry runs at the end, want none", n)
	}
	p.wantEmpty(t)
}

// Whatever the load, in a dry run all are served at once, and nobody hears of a pressure.
func TestDryRunHoldsNobody(t *testing.T) {
	for _, factor := range []float64{.5, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			work := newHurried()
			p := connect(t, work.service(), []Option{WithDryRun()})
			sent, refused, told := p.rush(t, factor*1000, time.Second)
			if refused > 0 || work.delayed.Load() > 0 || work.began.Load() != sent {
				t.Errorf("%vx: of %d, %d were refused, %d begun, %d of these late; want none, all and none",
					factor, sent, refused, work.began.Load(), work.delayed.Load())
			}
			if n := work.pressed.Load(); n > 0 || told > 0 {
				t.Errorf("%vx: %d handlers and %d callers have seen a pressure, want none", factor, n, told)
			}
			var would uint64
			for _, n := range p.server.Limiter().Stats().Refused {
				would += n
			}
			if share := float64(would) / float64(sent); factor < 1 && would > 0 || factor > 1 && share < .8*(1-1/factor) {
				t.Errorf("%vx: a share of %.3f would be refused", factor, share)
			}
			p.wantDryRunsOver(t)
		})
	}
}

// A dry run can be switched on and off under load, and what it began is ended.
func TestDryRunIsSwitchedWhileServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, newHurried().service(), nil)
		over := make(chan struct{})
		var switching sync.WaitGroup
		switching.Go(func() {
			lists := [][]Option{{WithDryRun()}, nil, {WithDryRun(method("UnaryCall"))}, nil}
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(70 * time.Millisecond):
				}
				if err := p.server.SetOptions(lists[i%len(lists)]...); err != nil {
					t.Error(err)
				}
			}
		})
		p.rush(t, 3000, 3*time.Second)
		close(over)
		switching.Wait()
		p.wantDryRunsOver(t)
		if err := p.server.SetOptions(); err != nil {
			t.Fatal(err)
		}
		p.rush(t, 500, 5*time.Second)
		if _, refused, _ := p.rush(t, 500, 2*time.Second); refused > 0 {
			t.Errorf("%d refused in earnest after the dry run, want none", refused)
		}
	})
}

// What a dry run would refuse is counted by method, criticality and reason, and is no admission.
func TestDryRunIsCounted(t *testing.T) {
	for name, opts := range map[string][]Option{"tap": nil, "no tap": {WithoutTap()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				provider := &recorder{}
				observe := func() map[string]int64 {
					o := &observer{seen: map[string]int64{}, levels: map[string]float64{}}
					if err := provider.meter.callback(t.Context(), o); err != nil {
						t.Fatal(err)
					}
					return o.seen
				}
				release := make(chan struct{})
				svc := &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
					<-release
					return &testpb.SimpleResponse{}, nil
				}}
				opts := append(opts, WithDryRun(method("UnaryCall")), WithMeterProvider(provider))
				p := connect(t, svc, limit(1, opts...))
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				if got := observe()["spillway.dry_run.in_flight"]; got != 9 {
					t.Errorf("%d go on without a permit, want 9", got)
				}
				close(release)
				all.Wait()
				const attributes = " rpc.method=grpc.testing.TestService/UnaryCall rpc.system.name=grpc spillway.criticality=CRITICAL"
				seen := observe()
				for name, want := range map[string]int64{
					"spillway.dry_run.in_flight":                                        0,
					"spillway.admissions" + attributes:                                  4, // one, and three places in the line
					"spillway.dry_run.refusals" + attributes + " spillway.reason=limit": 6,
					"spillway.refusals" + attributes + " spillway.reason=limit":         0,
				} {
					if got := seen[name]; got != want {
						t.Errorf("%s = %d, want %d", name, got, want)
					}
				}
			})
		})
	}
}

func TestDryRunIsShown(t *testing.T) {
	s := newServer(t, WithDryRun())
	if got := s.Settings(); !got.DryRun || got.DryRuns != 0 {
		t.Errorf("all of a dry run: shown as %v, and %d matchers", got.DryRun, got.DryRuns)
	}
	if err := s.SetOptions(WithDryRun(method("One"), method("Two")), WithDryRun(method("Three"))); err != nil {
		t.Fatal(err)
	}
	if got := s.Settings(); got.DryRun || got.DryRuns != 3 {
		t.Errorf("three matchers: shown as %v, and %d matchers", got.DryRun, got.DryRuns)
	}
	if _, err := NewServer(WithDryRun(method("One"), nil)); err == nil {
		t.Error("no error for WithDryRun(..., nil)")
	}
}

func ExampleWithDryRun() {
	protection, err := NewServer(WithDryRun()) // the first week: all is served
	if err != nil {
		log.Fatal(err)
	}
	srv := grpc.NewServer(protection.ServerOptions()...)
	defer srv.Stop()
	fmt.Println("dry run:", protection.Settings().DryRun)

	if err := protection.SetOptions(); err != nil { // and then in earnest, while it serves
		log.Fatal(err)
	}
	fmt.Println("dry run:", protection.Settings().DryRun)
	// Output:
	// dry run: true
	// dry run: false
}
