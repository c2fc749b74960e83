//go:build linux && !race

// The race detector needs more memory than there is here.

package main

import (
	"testing"
	"time"
)

// A process that would die of its requests lives, and serves those that there is memory for.
func TestMemoryKeepsTheProcessAlive(t *testing.T) {
	without, err := measure(t.Context(), flood, false, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !without.died {
		t.Errorf("without the signal the server lives: %+v; this test shows nothing", without)
	}
	with, err := measure(t.Context(), flood, true, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if with.died || with.failed > 0 {
		t.Errorf("with the signal the server died: %v, and %d calls failed; want it to live", with.died, with.failed)
	}
	if with.good < 100 || with.refused < 100 {
		t.Errorf("%d served and %d refused, want hundreds of both", with.good, with.refused)
	}
}
