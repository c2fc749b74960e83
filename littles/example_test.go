package littles_test

import (
	"fmt"
	"time"

	"github.com/spillway-go/spillway/littles"
)

// A service that answers 1200 requests a second in 25 ms each has 30 of them in flight.
func ExampleConcurrency() {
	fmt.Println(littles.Concurrency(1200, 25*time.Millisecond))
	// Output: 30
}

// Eight workers that take 10 ms each finish 800 requests a second.
func ExampleThroughput() {
	fmt.Println(littles.Throughput(8, 10*time.Millisecond))
	// Output: 800
}

// Place 40 of a line that moves at 800 a second is served in 50 ms.
func ExampleLatency() {
	fmt.Println(littles.Latency(40, 800))
	// Output: 50ms
}

// Two requests overlap for a second: three request-seconds in two seconds are 1.5 in flight.
func ExampleMeter() {
	m := littles.NewMeter(0)
	m.Arrive(0, 1)
	m.Arrive(time.Second, 1)
	m.Leave(2*time.Second, 1, 2*time.Second, true)
	m.Leave(2*time.Second, 1, time.Second, true)

	w := m.Roll(2 * time.Second)
	fmt.Println(w.Concurrency(), w.Goodput(), w.Latency())
	// Output: 1.5 1 1.5s
}
