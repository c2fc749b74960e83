//go:build !race

package soak

// How much there is to do without -full.
const (
	fewPermits = 1_000_000
	fewCalls   = 20_000
)
