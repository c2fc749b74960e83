// Package lab is a laboratory in virtual time: every contestant, a gRPC interceptor, stands in front of the same
// stations under the same load, in a testing/synctest bubble, so that minutes pass in seconds and the same seed
// gives the same figures to the digit, on any machine: no two events share an instant, so that the scheduler has
// nothing to decide. One contestant differs from run to run: failsafe-queue throws dice that have no seed.
//
//	go test ./benchmarks/lab -run '^TestTable$' -v -args -case all -contestant all -seed 1
//
// A [Scenario] is a load, a station and what is best possible; [Run] plays it with a [Contestant] and returns
// [Figures]. Processors are free in virtual time: what a refusal costs is measured elsewhere.
package lab
