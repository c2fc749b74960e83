// Package micro holds the benchmarks of single admissions and refusals, side by side with the least that an
// admission can cost and with other limiters, in one run:
//
//	go test ./benchmarks/micro -run '^$' -bench .
//
// Absolute times mean little on a shared machine; the ratios within a run do.
package micro
