// Package faults holds the tests of what cannot be played inside of one process: a callee that is stopped or killed
// while a server with Spillway in front asks it for every request, a network that loses packets, and one that is cut.
//
//	go test ./benchmarks/faults -v
//
// In each the caller's requests in flight go back to none while the trouble lasts, nothing leaks, and service is back
// when it ends. What a test needs of the machine (Linux's network namespaces, for the last two) and does not find, it
// says; a network in memory, which is always tried, then has to do.
package faults
