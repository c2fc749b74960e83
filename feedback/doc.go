// Package feedback turns what a window of work showed into the next concurrency limit.
//
// A [Controller] has one method: from a [Sample] to a limit. [Elasticity] is the law that Spillway uses when
// nothing is set: it asks by experiment whether more requests in flight give more goodput. [Fixed] is a
// constant limit. [FromLimit] makes a Controller of any limit of go-concurrency-limits, and [NewLimit] makes a
// go-concurrency-limits core.Limit of any Controller.
//
// Nothing here reads a clock or starts a goroutine: instants come with the samples. A Controller need not be
// safe for concurrent use; whoever holds one calls it from one place at a time, once a window.
package feedback
