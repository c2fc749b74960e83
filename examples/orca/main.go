// Orca shows clients that share calls by what the servers can do. Three servers of 2, 4 and 8 workers run over loopback,
// behind one client that sends them seven tenths of what all together can answer: first in turn, and then by gRPC's own
// weighted_round_robin, which looks at the load reports that the servers send.
//
//	go run ./examples/orca
//
// It takes about 21 s.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// balancers are the ways to share calls. The blackout is for how long reports are not believed after a server was met: 10 s
// by default.
var balancers = []struct{ name, config string }{
	{"in turn", `{"loadBalancingConfig": [{"round_robin": {}}]}`},
	{"by load reports", `{"loadBalancingConfig": [{"weighted_round_robin": {"blackoutPeriod": "1s"}}]}`},
}

// Of each run, the first part is for the client to learn, and the second is what the table shows.
const (
	factor = 0.7
	learn  = 5 * time.Second
	show   = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var rows []row
	for _, balancer := range balancers {
		var listeners []net.Listener
		var addresses []string
		for range strengths {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				log.Fatal(err)
			}
			listeners = append(listeners, listener)
			addresses = append(addresses, listener.Addr().String())
		}
		r, err := run(ctx, balancer.config, listeners, addresses)
		if err != nil {
			log.Fatal(err)
		}
		r.balancer = balancer.name
		rows = append(rows, r)
	}
	writeTable(os.Stdout, rows)
}

// row is what became of the calls that were shared in one way.
type row struct {
	balancer   string
	shares     []float64 // of the calls, by server
	unanswered float64
}

// run starts a server on each listener, and a client that knows them by the addresses, loads them, and stops them.
func run(
	ctx context.Context, config string, listeners []net.Listener, addresses []string, opts ...grpc.DialOption,
) (row, error) {
	var servers []*server
	var state resolver.State
	for i, listener := range listeners {
		s, err := newServer(listener, strengths[i])
		if err != nil {
			return row{}, err
		}
		defer s.Stop()
		servers = append(servers, s)
		state.Addresses = append(state.Addresses, resolver.Address{Addr: addresses[i]})
	}
	names := manual.NewBuilderWithScheme("shops")
	names.InitialState(state)
	conn, err := grpc.NewClient("shops:///all", append(opts, grpc.WithResolvers(names),
		grpc.WithDefaultServiceConfig(config), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return row{}, err
	}
	defer conn.Close()
	client := pb.NewTestServiceClient(conn)

	load(ctx, client, factor*capacity(), learn)
	sum, before := 0.0, make([]int64, len(servers))
	for i, s := range servers {
		before[i] = s.calls.Load()
	}
	r := row{unanswered: load(ctx, client, factor*capacity(), show)}
	for i, s := range servers {
		r.shares = append(r.shares, float64(s.calls.Load()-before[i]))
		sum += r.shares[i]
	}
	for i := range r.shares {
		r.shares[i] /= max(1, sum)
	}
	return r, nil
}

func writeTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "calls are shared\t")
	for _, workers := range strengths {
		fmt.Fprintf(t, "%d workers\t", workers)
	}
	fmt.Fprintln(t, "no answer\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t", r.balancer)
		for _, share := range r.shares {
			fmt.Fprintf(t, "%.0f%%\t", 100*share)
		}
		fmt.Fprintf(t, "%.1f%%\t\n", 100*r.unanswered)
	}
	_ = t.Flush()
}
