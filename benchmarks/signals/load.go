//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// result is what callers saw once the scenario's first time was over, and what became of the server.
type result struct {
	seconds                              float64
	offered, good, refused, late, failed int
	answers                              []time.Duration // how long the good ones took
	died                                 bool
	cpu                                  time.Duration // of the server, from its start
	turns, deaths                        int
}

// measure starts a server, loads it and stops it.
func measure(ctx context.Context, s scenario, with bool, during time.Duration) (result, error) {
	server, err := start(s, with)
	if err != nil {
		return result{}, err
	}
	r, err := load(ctx, server.address, s, during)
	if err != nil {
		_, _ = server.stop()
		return result{}, err
	}
	r.died, err = server.stop()
	r.cpu = server.used()
	return r, err
}

const connections = 4

// load sends calls at random instants, each whether or not those before were answered.
func load(ctx context.Context, address string, s scenario, during time.Duration) (result, error) {
	var clients []grpc_testing.TestServiceClient
	for range connections {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return result{}, err
		}
		defer conn.Close()
		clients = append(clients, grpc_testing.NewTestServiceClient(conn))
	}
	r := result{seconds: (during - s.skip).Seconds()}
	var mu sync.Mutex // guards r
	var open sync.WaitGroup
	start := time.Now()
	for next, n := time.Duration(0), 0; next < during && ctx.Err() == nil; n++ {
		next += time.Duration(rand.ExpFloat64() / s.rate * float64(time.Second))
		time.Sleep(next - time.Since(start))
		open.Go(func() {
			took, err := call(ctx, clients[n%connections], s.deadline)
			if next < s.skip {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			r.add(took, err)
		})
	}
	open.Wait()
	return r, nil
}

func call(ctx context.Context, client grpc_testing.TestServiceClient, deadline time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	sent := time.Now()
	_, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
	return time.Since(sent), err
}

func (r *result) add(took time.Duration, err error) {
	r.offered++
	switch status.Code(err) {
	case codes.OK:
		r.good++
		r.answers = append(r.answers, took)
	case codes.ResourceExhausted:
		r.refused++
	case codes.DeadlineExceeded:
		r.late++
	default:
		r.failed++
	}
}

func (r result) print(w io.Writer, name string, with bool) {
	signals := "off"
	if with {
		signals = "on"
	}
	fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f ms\t%.0f ms\t%d\t%d\t%d\t%d of %d died\t\n", name, signals,
		float64(r.offered)/r.seconds, float64(r.good)/r.seconds, float64(r.good)/max(r.cpu.Seconds(), 1e-3),
		milliseconds(percentile(r.answers, .5)), milliseconds(percentile(r.answers, .99)), r.refused, r.late, r.failed,
		r.deaths, r.turns)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile returns the smallest value that at least the share p of all are not above, 0 of none. It sorts.
func percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(p*float64(len(values))))-1)]
}
