// Package limiter admits what a service can finish in time and says no, early and cheaply, to the rest.
//
// [Limiter.Acquire] gives a [Permit] at once, after a wait in the line, or not at all; [Permit.Release] returns
// it with the [Outcome] of the work. That is all most callers need:
//
//	permit, err := lim.Acquire(ctx)
//	if err != nil {
//		return err // a *Refusal: errors.Is(err, limiter.ErrRefused)
//	}
//	outcome := limiter.Panicked // what Release learns if the work never returns
//	defer func() { permit.Release(outcome) }()
//	outcome = work(ctx)
//
// How many permits there are is decided by a [feedback.Controller], once a window, on the path of the requests
// themselves: no goroutine runs in the background, and an idle limiter costs nothing. With no options set it is
// the law of [feedback.Elasticity].
//
// The line is sized by Little's law: someone at place k waits about k / X, where X is the rate at which work is
// finished, so a request gets a place only where k / X and its own service time fit in the time it has left.
//
// A request that waits for a service which holds its own load is not in flight meanwhile: [HandOver].
//
// Nothing here knows of gRPC; package interceptors puts a Limiter in front of a gRPC server.
package limiter
