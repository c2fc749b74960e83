//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// flood is a thousand requests within two seconds that hold 1 MiB for two seconds each, where 400 MiB are too much, and a
// limit that was far too high from the start.
var flood = scenario{
	name: "flood", rate: 1000, deadline: 6 * time.Second, soft: 256 * mib, hard: 400 * mib, limit: 2000,
	work: func(context.Context) { holdBytes(func() { time.Sleep(2 * time.Second) }) },
}

// The test binary is also the server binary, as in main.
func TestMain(m *testing.M) {
	scenarios = append(scenarios, flood)
	if name := os.Getenv(scenarioVariable); name != "" {
		exit(serve(name, os.Getenv(withoutVariable) == "", os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func TestBadArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"unexpected argument": {"please"},
		"want 2s to 1m":       {"-for", "1s"},
		"want 1 to 100":       {"-turns", "0"},
		"no scenario":         {"-case", "nothing"},
	} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error that says %q", args, err, want)
		}
	}
	if err := run(t.Context(), []string{"-help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
}
