package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// patience is how long each caller waits for its answer.
const patience = 500 * time.Millisecond

// load calls at the mean rate given for a time, each whether or not those before were answered, and returns which part
// of the calls was not.
func load(ctx context.Context, client pb.TestServiceClient, rate float64, during time.Duration) float64 {
	var calls, unanswered atomic.Int64
	var all sync.WaitGroup
	due := time.Now()
	for end := due.Add(during); due.Before(end) && ctx.Err() == nil; {
		time.Sleep(time.Until(due))
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			calls.Add(1)
			if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); err != nil {
				unanswered.Add(1)
			}
		})
		due = due.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
	}
	all.Wait()
	return float64(unanswered.Load()) / float64(max(1, calls.Load()))
}
