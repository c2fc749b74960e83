package limiter_test

import (
	"context"
	"fmt"

	"github.com/spillway-go/spillway/limiter"
)

// Requests fill a memory of their own, outside of Go's heap.
func ExampleWithMemory() {
	arena := limiter.Memory{Limit: 512 << 20}
	lim, err := limiter.New(limiter.WithMemory(func() limiter.Memory { return arena }))
	if err != nil {
		fmt.Println(err)
		return
	}
	permit, err := lim.Acquire(context.Background())
	if err != nil {
		fmt.Println(err) // limiter: refused (memory)
		return
	}
	defer permit.Release(limiter.OK)
	fmt.Println("there is room")
	// Output: there is room
}

// The limit follows the requests alone, and memory may run out.
func ExampleWithoutSignals() {
	lim, err := limiter.New(limiter.WithoutSignals())
	fmt.Println(lim.Stats().Limit, err)
	// Output: 20 <nil>
}
