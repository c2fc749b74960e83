//go:build race

package lab

// raced says that the race detector is on. It takes fifteen times as long to come to the same figures, to the digit,
// so that tests of nothing but figures may be left out.
const raced = true
