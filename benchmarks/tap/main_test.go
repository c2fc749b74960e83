package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

// The test binary is also the servers.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		exit(serve(role, os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// Each server does what its role says, or a call would fail; the figures of so few calls mean nothing.
func TestEveryRoleIsMeasured(t *testing.T) {
	var out, errs strings.Builder
	if err := run([]string{"-rounds", "2", "-turns", "1", "-calls", "20", "-callers", "3"}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	for _, want := range append(roles, "| 1 KiB |", "| 64 KiB |") {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "101"}, {"-turns", "0"}, {"-calls", "100001"}, {"-callers", "257"}, {"now"}} {
		if err := run(args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: error %v, want one that names what is wrong", args, err)
		}
	}
	if err := serve("no role", strings.NewReader(""), io.Discard); err == nil {
		t.Error("a server without a role serves")
	}
}

func TestMedianOfRatios(t *testing.T) {
	if got := median(ratios([]float64{1, 6, 3, 40}, []float64{2, 3, 3, 4})); got != 1.5 {
		t.Errorf("the median of .5, 2, 1 and 10 is %v, want 1.5", got)
	}
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("the median of 3, 1 and 2 is %v, want 2", got)
	}
}
