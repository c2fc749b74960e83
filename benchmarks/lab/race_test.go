//go:build race

package lab

// shuffled says that the race detector is on: it shuffles goroutines, so that a seed no longer decides all.
const shuffled = true
