package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// clients says how the servers are shared, and that a call that was refused by one of them is made again. Clients that
// watch the health service do not even ask a server that is not ready.
const clients = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": ""},
	"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s",
		"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]
}`

// dial returns a client of all the addresses.
func dial(addresses []string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	names := manual.NewBuilderWithScheme("shops")
	var all []resolver.Address
	for _, address := range addresses {
		all = append(all, resolver.Address{Addr: address})
	}
	names.InitialState(resolver.State{Addresses: all})
	return grpc.NewClient("shops:///all", append(opts, grpc.WithResolvers(names),
		grpc.WithDefaultServiceConfig(clients), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// tally counts the answers by the server that gave them, and the calls that got none.
type tally struct {
	answers map[string]int
	lost    int
}

// load calls every few milliseconds for a time, and returns when all are answered.
func load(ctx context.Context, client pb.TestServiceClient, during time.Duration) tally {
	t := tally{answers: map[string]int{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			reply, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.lost++
				return
			}
			t.answers[reply.GetServerId()]++
		})
	}
	all.Wait()
	return t
}
