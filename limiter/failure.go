package limiter

import "context"

// NoteFailure notes that something that the work of ctx called was not there, or refused it, and has been asked as often
// as makes sense: so it is of no use to do the work once more. [FailureMet] tells whoever answers for the work. It does
// nothing for work that came neither through package interceptors nor with [ContextWithLimiter]. The interceptors of
// both sides do it.
func NoteFailure(ctx context.Context) {
	if a := admittedFrom(ctx); a != nil {
		a.failed.Store(true)
	}
}

// FailureMet reports whether [NoteFailure] was called for the work of ctx.
func FailureMet(ctx context.Context) bool {
	a := admittedFrom(ctx)
	return a != nil && a.failed.Load()
}
