package limiter_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/spillway-go/spillway/limiter"
)

func TestFailureIsOfTheWorkAtHand(t *testing.T) {
	l, err := limiter.New()
	if err != nil {
		t.Fatal(err)
	}
	outer := limiter.ContextWithLimiter(t.Context(), l, limiter.Critical)
	inner := limiter.ContextWithLimiter(outer, l, limiter.Critical)
	called, cancel := context.WithCancel(inner)
	defer cancel()

	var done sync.WaitGroup
	for range 2 { // callees of one request fail at the same time
		done.Go(func() { limiter.NoteFailure(called) })
	}
	done.Wait()
	for name, c := range map[string]struct {
		ctx  context.Context
		want bool
	}{
		"the work":                      {inner, true},
		"what the work called":          {called, true},
		"the work that this is part of": {outer, false},
		"other work":                    {limiter.ContextWithLimiter(t.Context(), l, limiter.Critical), false},
	} {
		if got := limiter.FailureMet(c.ctx); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestFailureOfNobodysWork(t *testing.T) {
	limiter.NoteFailure(t.Context())
	if limiter.FailureMet(t.Context()) {
		t.Error("a failure without a limiter was noted, want nothing")
	}
}

// What serves the request hears of what failed behind it, however deep.
func ExampleNoteFailure() {
	lim, err := limiter.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := limiter.ContextWithLimiter(context.Background(), lim, limiter.Critical)
	func(ctx context.Context) { // a client that has tried three times
		limiter.NoteFailure(ctx)
	}(context.WithoutCancel(ctx))
	fmt.Println("of use to do it once more:", !limiter.FailureMet(ctx))
	// Output: of use to do it once more: false
}
