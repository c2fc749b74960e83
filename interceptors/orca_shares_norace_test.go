//go:build !race

// The race detector takes ten times as long to come to the same figures.

package interceptors

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

const poolWork = 100 * time.Millisecond

// pooled is a service of so many workers, whose work takes exponential times around poolWork, and counts who comes to it.
func pooled(workers int, random func() float64) *service {
	pool := make(chan struct{}, workers)
	return &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		select {
		case pool <- struct{}{}:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		time.Sleep(time.Duration(random() * float64(poolWork)))
		<-pool
		return &testpb.SimpleResponse{}, nil
	}}
}

// offered is what has come to a server so far.
func offered(s *Server) (n float64) {
	stats := s.Limiter().Stats()
	for _, refused := range stats.Refused {
		n += float64(refused)
	}
	return n + float64(stats.Admitted)
}

// settle is how long it takes until all is known: each server in turn looks strong until it was full for once, which
// takes two periods of out-of-band reports or three, of 30 s each.
const settle = 240 * time.Second

// counted is for how long it counts then: over eight of the reports, for in one a server of a single worker is off by a
// sixteenth, one time in three.
const counted = 240 * time.Second

// share loads servers of 1, 2 and 4 workers with a multiple of what all can do, through a balancer, until all has settled
// and for as long as counted after that, and returns which part of the calls came to each then, and which were not answered.
func share(t *testing.T, balancer string, load float64, opts ...Option) (shares [3]float64, unanswered float64) {
	random := rand.New(rand.NewPCG(1, uint64(load*10)))
	var mu sync.Mutex
	exponential := func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return random.ExpFloat64()
	}
	var services []*service
	for _, workers := range []int{1, 2, 4} {
		services = append(services, pooled(workers, exponential))
	}
	f := connectFleet(t, services, `{"loadBalancingConfig": [`+balancer+`]}`, opts...)
	var before [3]float64
	var calls, failed atomic.Int64
	var all sync.WaitGroup
	gap := poolWork.Seconds() / (7 * load)
	for next, start, measured := time.Now(), time.Now(), false; time.Since(start) < settle+counted; {
		if !measured && time.Since(start) > settle {
			measured = true
			for i, s := range f.servers {
				before[i] = offered(s)
			}
			calls.Store(0)
			failed.Store(0)
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			calls.Add(1)
			if _, err := f.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				failed.Add(1)
			}
		})
		next = next.Add(time.Duration(exponential() * gap * float64(time.Second)))
		time.Sleep(time.Until(next))
	}
	sum := 0.0
	for i, s := range f.servers {
		shares[i] = offered(s) - before[i]
		sum += shares[i]
	}
	for i := range shares {
		shares[i] /= sum
	}
	all.Wait()
	return shares, float64(failed.Load()) / float64(calls.Load())
}

const (
	perCall       = `{"weighted_round_robin": {"blackoutPeriod": "2s"}}`
	perHalfMinute = `{"weighted_round_robin": {"blackoutPeriod": "2s", "enableOobLoadReport": true}}`
)

// Under overload the calls that come to a server are as many as it can do, relative to the others, to 15%.
func TestSharesFollowCapacity(t *testing.T) {
	for name, c := range map[string]struct {
		balancer string
		opts     []Option
	}{
		"per call":    {perCall, []Option{WithLoadReports()}},
		"out of band": {perHalfMinute, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shares, _ := share(t, c.balancer, 1.5, c.opts...)
				for i, got := range shares {
					if want := float64(int(1)<<i) / 7; math.Abs(got/want-1) > .15 {
						t.Errorf("shares %.3f, want 1 : 2 : 4", shares)
						break
					}
				}
			})
		})
	}
}

// Where all could be served, sharing without a look at the servers loses some of it, and with one nearly nothing.
func TestNothingIsRefusedThatAnotherServerCouldDo(t *testing.T) {
	for name, c := range map[string]struct {
		balancer    string
		opts        []Option
		least, most float64 // in the median of three
	}{
		"round robin": {`{"round_robin": {}}`, nil, .08, 1},
		"per call":    {perCall, []Option{WithLoadReports()}, 0, .02},
		"out of band": {perHalfMinute, nil, 0, .02},
	} {
		t.Run(name, func(t *testing.T) {
			var lost [3]float64
			for i := range lost {
				synctest.Test(t, func(t *testing.T) {
					shares, got := share(t, c.balancer, .7, c.opts...)
					t.Logf("%.3f unanswered with shares %.3f", got, shares)
					lost[i] = got
				})
			}
			if slices.Sort(lost[:]); lost[1] < c.least || lost[1] > c.most {
				t.Errorf("%.3f unanswered in three runs, want %v to %v in two of them", lost, c.least, c.most)
			}
		})
	}
}
