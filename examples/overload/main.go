// Overload shows what Spillway is for: two real gRPC servers in processes of their own, one bare and one
// protected, each behind the same pool of eight workers, under the same open-loop load of half, twice, ten times
// and again half of what they can do.
//
//	go run ./examples/overload
//
// It prints a table and writes a picture of goodput against load and ghz's own reports into a folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// deadline is the time that each caller waits for its answer.
const deadline = 500 * time.Millisecond

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		exit(serve(role, os.Getenv(addrVariable), os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func exit(err error) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "overload:", err)
		os.Exit(1)
	default:
		os.Exit(0)
	}
}

type flags struct {
	each time.Duration
	out  string
	json bool
	addr string
}

func parse(args []string, stderr io.Writer) (flags, error) {
	var f flags
	set := flag.NewFlagSet("overload", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.DurationVar(&f.each, "for", 5*time.Second, "how long each phase lasts (1s to 1m)")
	set.StringVar(&f.out, "out", "overload-report", "the folder for the picture and the reports")
	set.BoolVar(&f.json, "json", false, "print the table as one JSON object, and nothing else, on standard output")
	set.StringVar(&f.addr, "addr", "127.0.0.1:0",
		"the loopback address of the bare server; the protected one takes the next port (0: any two)")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q; see -help", set.Arg(0))
	}
	if f.each < time.Second || f.each > time.Minute {
		return f, fmt.Errorf("-for %v; want 1s to 1m", f.each)
	}
	return f, nil
}

// run does the main job. Where ctx ends it, it reports what it has.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := parse(args, stderr)
	if err != nil {
		return err
	}
	addresses, err := serverAddresses(f.addr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return fmt.Errorf("the folder of -out cannot be made: %w", err)
	}
	progress := newProgress(stderr, f.each)
	var results []result
	capacity := 0.0
	for i, role := range roles {
		if ctx.Err() != nil {
			break
		}
		server, err := start(role, addresses[i])
		if err != nil {
			return err
		}
		if capacity == 0 {
			// Both servers have the same pool; what it can do is measured once, before any load.
			capacity = server.capacity
			progress.say("A pool of %d workers with exponential times around %v does %.0f requests/s here.", workers, meanWork, capacity)
		}
		for _, phase := range phases {
			if ctx.Err() != nil {
				break
			}
			progress.begin(role, phase)
			report, err := load(ctx, server.address, phase.factor*capacity, f.each)
			if err != nil {
				return errors.Join(err, server.stop())
			}
			if err := writeReport(f.out, role, phase, report); err != nil {
				return errors.Join(err, server.stop())
			}
			results = append(results, measure(role, phase, capacity, f.each, report))
		}
		if err := server.stop(); err != nil {
			return err
		}
	}
	progress.end()
	picture, err := plotGoodput(f.out, capacity, results)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(stdout, results)
	}
	printTable(stdout, capacity, results)
	fmt.Fprintf(stdout, "\nThe picture: %s\nghz's reports: %s\n", picture, reportGlob(f.out))
	if ctx.Err() != nil {
		fmt.Fprintln(stdout, "Interrupted: this is what there is so far.")
	}
	return nil
}
