package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

const (
	workers   = 4
	fullWork  = 10 * time.Millisecond
	shortWork = fullWork / 5

	// capacity is how many full answers a second the workers can give.
	capacity = workers * float64(time.Second) / float64(fullWork)

	// patience is how long each caller waits for its answer.
	patience = 250 * time.Millisecond
)

// pool is what stands behind the service: so many workers, and a wait in front of them.
type pool chan struct{}

func newPool() pool { return make(pool, workers) }

// work waits for a worker and uses it for an exponentially distributed time.
func (p pool) work(ctx context.Context, mean time.Duration) error {
	select {
	case p <- struct{}{}:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	defer func() { <-p }()
	time.Sleep(time.Duration(rand.ExpFloat64() * float64(mean)))
	return nil
}

// tally counts what became of calls.
type tally struct{ calls, full, short, none int }

func (t tally) percent(n int) float64 { return 100 * float64(n) / float64(max(1, t.calls)) }

// load calls at the mean rate given for a time, each whether or not those before were answered, and returns when all
// are.
func load(ctx context.Context, client pb.TestServiceClient, rate float64, during time.Duration) tally {
	ctx, cancel := context.WithTimeout(ctx, during+2*patience)
	defer cancel()
	var t tally
	var mu sync.Mutex
	var all sync.WaitGroup
	due := time.Now()
	for end := due.Add(during); due.Before(end) && ctx.Err() == nil; {
		time.Sleep(time.Until(due))
		all.Go(func() {
			answer, err := call(ctx, client)
			mu.Lock()
			defer mu.Unlock()
			t.calls++
			switch {
			case err != nil:
				t.none++
			case answer == full:
				t.full++
			default:
				t.short++
			}
		})
		due = due.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
	}
	all.Wait()
	return t
}

func call(ctx context.Context, client pb.TestServiceClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
	return reply.GetUsername(), err
}
