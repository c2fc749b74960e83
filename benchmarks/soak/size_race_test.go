//go:build race

package soak

// How much there is to do without -full: less, for it takes ten times as long.
const (
	fewPermits = 50_000
	fewCalls   = 5_000
)
