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

// Payments have three tenths of the limit whenever they want them, and more while others leave it unused.
func ExampleWithBulkheads() {
	lim, err := limiter.New(limiter.WithFixedLimit(10), limiter.WithBulkheads(map[string]float64{"payments": .3}))
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 5 {
		permit, err := lim.AcquireRequest(context.Background(), limiter.Request{Bulkhead: "payments"})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer permit.Release(limiter.OK)
	}
	for _, b := range lim.Bulkheads() {
		fmt.Printf("%s: %d guaranteed, %d in flight\n", b.Name, b.Guarantee, b.InFlight)
	}
	// Output: payments: 3 guaranteed, 5 in flight
}

// The shares can be changed at any time.
func ExampleLimiter_SetBulkheads() {
	lim, err := limiter.New(limiter.WithFixedLimit(10), limiter.WithBulkheads(map[string]float64{"payments": .3}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lim.SetBulkheads(map[string]float64{"payments": .6, "search": .5}))
	fmt.Println(lim.SetBulkheads(map[string]float64{"payments": .5, "search": .25}))
	for _, b := range lim.Bulkheads() {
		fmt.Printf("%s: %d of %d\n", b.Name, b.Guarantee, lim.Stats().Limit)
	}
	// Output:
	// limiter: SetBulkheads: shares of 1.1 in all; want at most 1
	// <nil>
	// payments: 5 of 10
	// search: 3 of 10
}

// Customers share a limiter: under overload whoever had the most lately is refused first.
func ExampleTenantNamed() {
	lim, err := limiter.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	handle := func(ctx context.Context, customer string) error {
		permit, err := lim.AcquireRequest(ctx, limiter.Request{Tenant: limiter.TenantNamed(customer)})
		if err != nil {
			return err
		}
		defer permit.Release(limiter.OK)
		return nil
	}
	fmt.Println(handle(context.Background(), "acme"))
	fmt.Println(handle(context.Background(), "")) // nobody, who takes a chance among all
	// Output:
	// <nil>
	// <nil>
}

// A handler that waits for a service with a limit of its own.
func ExampleHandOver() {
	l, err := limiter.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	// The interceptors do this.
	permit, err := l.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer permit.Release(limiter.OK)
	ctx := limiter.ContextWithPermit(context.Background(), l, limiter.Critical, permit)

	waiting := limiter.HandOver(ctx)
	fmt.Println("in flight while it waits:", l.Stats().InFlight)
	waiting.TakeBack()
	fmt.Println("in flight after:", l.Stats().InFlight)
	// Output:
	// in flight while it waits: 0
	// in flight after: 1
}
