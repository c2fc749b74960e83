// Drain shows how a server ends on SIGTERM without a request lost: readiness goes off, new work is sent elsewhere, what
// was begun is finished, and then connections are closed. Two servers run over loopback, and the first gets the signal
// while a client calls both.
//
//	go run ./examples/drain
//
// It takes about 4 s. What to copy is in server.go.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	time.AfterFunc(time.Second, func() { // as an orchestrator does
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Signal(syscall.SIGTERM)
		}
	})
	var listeners [4]net.Listener
	for i := range listeners {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		listeners[i] = listener
	}
	addresses := []string{listeners[0].Addr().String(), listeners[1].Addr().String()}
	result, err := run(ctx, addresses, listeners)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("The first server gave %d answers before it ended, the second %d; %d calls were lost.\n",
		result.answers["first"], result.answers["second"], result.lost)
}

// run loads two servers, the first of which ends when ctx does, on the first two of the listeners; probes are answered
// on the others.
func run(ctx context.Context, addresses []string, listeners [4]net.Listener, opts ...grpc.DialOption) (tally, error) {
	conn, err := dial(addresses, opts...)
	if err != nil {
		return tally{}, err
	}
	defer conn.Close()
	second, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var errs [2]error
	var all sync.WaitGroup
	all.Go(func() { errs[0] = serve(ctx, "first", listeners[0], listeners[2]) })
	all.Go(func() { errs[1] = serve(second, "second", listeners[1], listeners[3]) })
	result := load(context.WithoutCancel(ctx), pb.NewTestServiceClient(conn), 3*time.Second)
	stop()
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return result, err
		}
	}
	return result, nil
}
