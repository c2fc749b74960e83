// Tap measures what a NO costs a server: its CPU time for each call that it serves (a trivial one), that it refuses in
// the tap, before the message is read, and that it refuses in the interceptor. Beside it stand gRPC's own share of the
// first two: a server without Spillway, and a tap that does nothing but refuse.
//
//	go run ./benchmarks/tap
//
// Each server is a process of its own, and so is the client, a plain one of grpc-go over loopback. The servers take
// turns of a fixed number of calls, so that a drift of the machine is in all of them alike. Absolute times mean little
// on a shared machine; the ratios within a run do. All begins anew some times with other processes: how far gRPC opens
// the flow of a connection early in its life differs, and with it how much of a large request has come before the NO.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		exit(serve(role, os.Stdin, os.Stdout))
	}
	exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func exit(err error) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "tap:", err)
		os.Exit(1)
	default:
		os.Exit(0)
	}
}

// plan is how much is measured.
type plan struct{ rounds, turns, calls, callers int }

func parse(args []string, stderr io.Writer) (plan, error) {
	var p plan
	set := flag.NewFlagSet("tap", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.IntVar(&p.rounds, "rounds", 10, "how many times all begins with new processes (1 to 100)")
	set.IntVar(&p.turns, "turns", 5, "how many turns each server has for each size in a round (1 to 1000)")
	set.IntVar(&p.calls, "calls", 2000, "how many calls a turn has (1 to 100000)")
	set.IntVar(&p.callers, "callers", 64, "how many calls are under way at once (1 to 256)")
	if err := set.Parse(args); err != nil {
		return p, err
	}
	if set.NArg() > 0 {
		return p, fmt.Errorf("unexpected argument %q; see -help", set.Arg(0))
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{{"rounds", p.rounds, 100}, {"turns", p.turns, 1000}, {"calls", p.calls, 100_000}, {"callers", p.callers, 256}} {
		if f.value < 1 || f.value > f.max {
			return p, fmt.Errorf("-%s %d; want 1 to %d", f.name, f.value, f.max)
		}
	}
	return p, nil
}

// sizes are those of the requests' payloads, in bytes.
var sizes = []int{1 << 10, 64 << 10}

func run(args []string, stdout, stderr io.Writer) error {
	p, err := parse(args, stderr)
	if err != nil {
		return err
	}
	rows := make([]row, len(sizes))
	for range p.rounds {
		if err := round(p, rows); err != nil {
			return err
		}
	}
	return printTable(stdout, p, rows)
}

// round starts all servers, measures them with requests of one size after the other, and stops them.
func round(p plan, rows []row) (err error) {
	var servers []*server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, role := range roles {
		s, err := start(role)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	for i, size := range sizes {
		costs, err := measure(p, size, servers)
		if err != nil {
			return err
		}
		rows[i].size, rows[i].rounds = size, append(rows[i].rounds, costs)
	}
	return nil
}

// measure lets the servers take turns, and returns what a call of each turn cost, in microseconds, by role. What comes
// before the first turn is for warming up.
func measure(p plan, size int, servers []*server) (map[string][]float64, error) {
	costs := map[string][]float64{}
	for turn := -1; turn < p.turns; turn++ {
		for _, s := range servers {
			cost, err := s.turn(p, size)
			if err != nil {
				return nil, fmt.Errorf("the server %q, %d bytes: %w", s.role, size, err)
			}
			if turn >= 0 {
				costs[s.role] = append(costs[s.role], cost)
			}
		}
	}
	return costs, nil
}
