package limiter_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/platinummonkey/go-concurrency-limits/core"

	"github.com/spillway-go/spillway/limiter"
)

func ExampleLimiter_Acquire() {
	lim, err := limiter.New() // no settings
	if err != nil {
		fmt.Println(err)
		return
	}
	work := func(ctx context.Context) error {
		permit, err := lim.Acquire(ctx)
		if err != nil {
			return err
		}
		outcome := limiter.Panicked // what Release learns if the work never returns
		defer func() { permit.Release(outcome) }()
		outcome = limiter.OK
		return nil
	}
	fmt.Println(work(context.Background()))
	// Output: <nil>
}

func ExampleRefusal() {
	lim, err := limiter.New(limiter.WithFixedLimit(1))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = lim.Acquire(ctx)
	var refusal *limiter.Refusal
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Reason, errors.Is(err, limiter.ErrRefused), errors.Is(err, context.Canceled))
	}
	// Output: expired true true
}

// As go-concurrency-limits' core.Limiter, in place of one of its own.
func ExampleLimiter_Core() {
	lim, err := limiter.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	var c core.Limiter = lim.Core()
	listener, ok := c.Acquire(context.Background())
	if ok {
		listener.OnSuccess()
	}
	fmt.Println(ok, lim.Stats().InFlight)
	// Output: true 0
}
