package feedback_test

import (
	"fmt"
	"time"

	"github.com/platinummonkey/go-concurrency-limits/limit"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/littles"
)

// A window in which 20 were in flight all the time, and 100 answers came.
var sample = feedback.Sample{
	Window: littles.Window{End: 200 * time.Millisecond, Area: 4, Arrivals: 100, Completions: 100, Good: 100, Sum: 4},
	Limit:  20, Peak: 20, Offered: 150, Refused: 50,
}

func ExampleElasticity() {
	var law feedback.Elasticity // no settings
	fmt.Println("the limit binds, try more:", law.Update(sample) >= sample.Limit)
	// Output: the limit binds, try more: true
}

func ExampleFixed() {
	fmt.Println(feedback.Fixed(50).Update(sample))
	// Output: 50
}

// Any limit of go-concurrency-limits can take the law's place.
func ExampleFromLimit() {
	aimd := feedback.FromLimit(limit.NewDefaultAIMDLimit("example", nil))
	fmt.Println(aimd.Update(sample))
	// Output: 11
}

// And the law can take the place of one of its limits.
func ExampleNewLimit() {
	l := feedback.NewLimit(&feedback.Elasticity{}, 20)
	l.OnSample(0, int64(10*time.Millisecond), 1, false)
	fmt.Println(l.EstimatedLimit())
	// Output: 20
}
