package interceptors

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors/chaos"
)

// A service of ten workers, and the five seconds in which it stalls.
const (
	stallWorkers  = 10
	stallWork     = 20 * time.Millisecond
	stallDeadline = 500 * time.Millisecond
	stallAt       = 2 * time.Second
	stallEnd      = stallAt + 5*time.Second

	stallCapacity = stallWorkers * float64(time.Second/stallWork) // requests per second
)

// pool answers as fast as its workers can.
func pool(workers int, work time.Duration) *service {
	free := make(chan struct{}, workers)
	return &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		time.Sleep(work)
		<-free
		return &testpb.SimpleResponse{}, nil
	}}
}

// heedless hands on requests to handlers that look at no deadline.
func heedless(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(context.WithoutCancel(ctx), req)
}

// asked is a call: when it came, how long it took, and its end.
type asked struct {
	came, took time.Duration
	code       codes.Code
}

// crowd is what was seen of a load: its calls, and the most that were in flight and in line until the stall's end.
type crowd struct {
	calls          []asked
	inFlight, line int
}

// count returns how many calls that came in a time ended with one of the codes.
func (c *crowd) count(from, until time.Duration, of ...codes.Code) (n int) {
	for _, call := range c.calls {
		if from <= call.came && call.came < until && slices.Contains(of, call.code) {
			n++
		}
	}
	return n
}

// stall asks a server at random times, load times as often as it can answer, and stalls all of its handlers meanwhile.
func stall(t *testing.T, load float64, over time.Duration, between []grpc.ServerOption) (c crowd) {
	p, faults := inject(t, pool(stallWorkers, stallWork), nil, nil, between)
	rnd := rand.New(rand.NewPCG(1, uint64(load*10)))
	start := time.Now()
	f := chaos.Fault{Kind: chaos.Delay, Delay: time.Hour, Share: 1, Methods: []string{chaos.AllMethods}, AllCalls: true}
	f.From, f.Until = start.Add(stallAt), start.Add(stallEnd)
	if err := faults.Start(f); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for time.Since(start) < over {
		time.Sleep(time.Duration(rnd.ExpFloat64() / (load * stallCapacity) * float64(time.Second)))
		came := time.Since(start)
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), stallDeadline)
			defer cancel()
			_, err := p.UnaryCall(ctx, &testpb.SimpleRequest{})
			s := p.server.Limiter().Stats()
			mu.Lock()
			defer mu.Unlock()
			c.calls = append(c.calls, asked{came, time.Since(start) - came, status.Code(err)})
			if time.Since(start) < stallEnd {
				c.inFlight, c.line = max(c.inFlight, s.InFlight), max(c.line, s.Line)
			}
		})
	}
	all.Wait()
	return c
}

// All handlers stall for five seconds, those that look at their deadline and those that do not. Nobody waits longer than
// its deadline, nearly everybody is told so early, nothing grows without bound, and afterwards the service is back.
func TestStallOfAllHandlers(t *testing.T) {
	for _, c := range []struct {
		name    string
		load    float64       // of what can be answered
		full    time.Duration // until nine tenths of it are answered again
		between []grpc.ServerOption
	}{
		{"most of the capacity", .8, 2 * time.Second, nil},
		{"more than the capacity", 1.5, 2 * time.Second, nil},
		{"deadlines ignored", .5, 2 * time.Second, []grpc.ServerOption{grpc.ChainUnaryInterceptor(heedless)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from, over := stallEnd+c.full, stallEnd+c.full+2*time.Second
				seen := stall(t, c.load, over, c.between)
				for _, call := range seen.calls {
					if call.took > stallDeadline {
						t.Errorf("a call that came at %v took %v", call.came, call.took)
					}
				}
				known := []codes.Code{codes.OK, codes.ResourceExhausted, codes.DeadlineExceeded}
				if other := len(seen.calls) - seen.count(0, over+time.Hour, known...); other > 0 {
					t.Errorf("%d calls ended in another way than by an answer, a refusal or their deadline", other)
				}

				total := seen.count(stallAt+stallDeadline, stallEnd-stallDeadline, known...)
				refused := seen.count(stallAt+stallDeadline, stallEnd-stallDeadline, codes.ResourceExhausted)
				if float64(refused) < .85*float64(total) {
					t.Errorf("%d of %d refused in the stall, want nearly all", refused, total)
				}
				most := int(stallCapacity * stallDeadline.Seconds()) // that can be answered in a deadline
				if seen.line > most || seen.inFlight > 2*most {
					t.Errorf("%d in line and %d in flight, want at most %d and %d", seen.line, seen.inFlight, most, 2*most)
				}

				if seen.count(stallEnd, stallEnd+stallDeadline, codes.OK) == 0 {
					t.Error("nobody is answered within one deadline after the stall")
				}
				if late := seen.count(stallEnd+stallDeadline, over, codes.DeadlineExceeded); late > len(seen.calls)/20 {
					t.Errorf("%d of %d calls ran into their deadline after the stall, want few", late, len(seen.calls))
				}
				can := min(float64(seen.count(from, over, known...)), stallCapacity*(over-from).Seconds())
				if ok := seen.count(from, over, codes.OK); float64(ok) < .9*can {
					t.Errorf("%d of %v that can be answered are answered %v after the stall", ok, can, c.full)
				}
			})
		})
	}
}
