// Brownout shows a handler that answers with less before anybody gets no answer: a short list where the full one would
// take five times the work. Two gRPC servers over loopback, one that always gives the full list and one that asks for
// the pressure first, get the same open-loop load, of half, twice and four times what can be answered in full.
//
//	go run ./examples/brownout
//
// It takes about 13 s.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// factors are the loads, in what the workers can do if all answers are full, and phase is how long each lasts.
var factors = []float64{0.5, 2, 4}

const phase = 2 * time.Second

// shop answers with a list of ten or of three, and needs a worker for either.
type shop struct {
	pb.UnimplementedTestServiceServer
	workers  pool
	brownout bool
}

func (s *shop) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if s.brownout && rand.Float64() < limiter.Pressure(ctx) { // this line is all that brownout takes
		return s.answer(ctx, short, shortWork)
	}
	return s.answer(ctx, full, fullWork)
}

func (s *shop) answer(ctx context.Context, list string, work time.Duration) (*pb.SimpleResponse, error) {
	if err := s.workers.work(ctx, work); err != nil {
		return nil, err
	}
	return &pb.SimpleResponse{Username: list}, nil
}

const full, short = "ten things that you will like", "three things that everybody likes"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Printf("%d workers; a full answer takes %v on average, a short one %v; callers wait %v.\n",
		workers, fullWork, shortWork, patience)
	var rows []row
	for _, brownout := range []bool{false, true} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		more, err := run(ctx, brownout, listener, listener.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		rows = append(rows, more...)
	}
	writeTable(os.Stdout, rows)
}

// row is what became of one load.
type row struct {
	factor   float64
	brownout bool
	tally
}

// run serves on the listener, loads the server at the address, and stops it.
func run(
	ctx context.Context, brownout bool, listener net.Listener, address string, opts ...grpc.DialOption,
) ([]row, error) {
	srv := grpc.NewServer(append(interceptors.ServerOptions(), grpc.WaitForHandlers(true))...)
	pb.RegisterTestServiceServer(srv, &shop{workers: newPool(), brownout: brownout})
	go func() { _ = srv.Serve(listener) }()
	defer srv.Stop()

	conn, err := grpc.NewClient(address, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := pb.NewTestServiceClient(conn)
	var rows []row
	for _, factor := range factors {
		rows = append(rows, row{factor, brownout, load(ctx, client, factor*capacity, phase)})
	}
	return rows, nil
}

// writeTable has the same load of both servers in neighbouring lines.
func writeTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "load\tbrownout\tcalls\tfull answer\tshort answer\tno answer in time\tgoodput\t")
	for _, factor := range factors {
		for _, r := range rows {
			if r.factor == factor {
				fmt.Fprintf(t, "%gx\t%v\t%d\t%.0f%%\t%.0f%%\t%.0f%%\t%.0f/s\t\n", r.factor, r.brownout, r.calls,
					r.percent(r.full), r.percent(r.short), r.percent(r.none), float64(r.full+r.short)/phase.Seconds())
			}
		}
	}
	_ = t.Flush()
}
