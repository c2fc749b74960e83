//go:build linux

// Signals measures what the limiter's signals are worth in real processes: the same load meets a server with them and
// one without, in turns, and nothing else is set.
//
//	go run ./benchmarks/signals
//
// Each server is a process of its own, and ends with the program. Absolute figures mean little on a shared machine; what
// is with and what is without stand side by side.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if name := os.Getenv(scenarioVariable); name != "" {
		exit(serve(name, os.Getenv(withoutVariable) == "", os.Stdin, os.Stdout))
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
		fmt.Fprintln(os.Stderr, "signals:", err)
		os.Exit(1)
	default:
		os.Exit(0)
	}
}

// plan is what is measured.
type plan struct {
	scenarios []scenario
	each      time.Duration
	turns     int
}

func parse(args []string, stderr io.Writer) (plan, error) {
	var p plan
	var names string
	set := flag.NewFlagSet("signals", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&names, "case", "all", "scenarios by commas, or all: "+strings.Join(scenarioNames(), " "))
	set.DurationVar(&p.each, "for", 6*time.Second, "how long each server is loaded in a turn (2s to 1m)")
	set.IntVar(&p.turns, "turns", 1, "how many turns each server has (1 to 100)")
	if err := set.Parse(args); err != nil {
		return p, err
	}
	if set.NArg() > 0 {
		return p, fmt.Errorf("unexpected argument %q; see -help", set.Arg(0))
	}
	if p.each < 2*time.Second || p.each > time.Minute {
		return p, fmt.Errorf("-for %v; want 2s to 1m", p.each)
	}
	if p.turns < 1 || p.turns > 100 {
		return p, fmt.Errorf("-turns %d; want 1 to 100", p.turns)
	}
	p.scenarios = scenarios
	if names != "all" {
		p.scenarios = nil
		for name := range strings.SplitSeq(names, ",") {
			s, ok := scenarioNamed(name)
			if !ok {
				return p, fmt.Errorf("no scenario %q; there are: %s, and all", name, strings.Join(scenarioNames(), " "))
			}
			p.scenarios = append(p.scenarios, s)
		}
	}
	return p, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	p, err := parse(args, stderr)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tsignals\toffered/s\tgoodput/s\ta CPU second\tp50\tp99\trefused\tlate\tfailed\tends\t")
	for _, s := range p.scenarios {
		books := map[bool][]result{}
		for range p.turns {
			for _, with := range []bool{false, true} {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r, err := measure(ctx, s, with, p.each)
				if err != nil {
					return err
				}
				books[with] = append(books[with], r)
			}
		}
		for _, with := range []bool{false, true} {
			median(books[with]).print(t, s.name, with)
		}
	}
	return t.Flush()
}

// median returns the result in the middle by goodput, and in how many the server died.
func median(all []result) result {
	slices.SortFunc(all, func(a, b result) int { return a.good - b.good })
	r := all[len(all)/2]
	r.turns = len(all)
	for _, other := range all {
		if other.died {
			r.deaths++
		}
	}
	return r
}
