package littles

import (
	"math"
	"time"
)

// Rate is a number of requests per second. Zero and negative rates mean that nothing is known to move.
type Rate float64

// PerSecond returns the rate of n requests in d. It is 0 when d is not positive.
func PerSecond(n float64, d time.Duration) Rate {
	if d <= 0 {
		return 0
	}
	return Rate(n / d.Seconds())
}

// Concurrency returns L = λ · W, the mean number of requests in a system that lambda requests a second
// pass through, each staying for w.
func Concurrency(lambda Rate, w time.Duration) float64 {
	return float64(lambda) * w.Seconds()
}

// Throughput returns λ = L / W, the rate at which l requests in flight pass through when each stays for w.
// It is 0 when w is not positive.
func Throughput(l float64, w time.Duration) Rate {
	return PerSecond(l, w)
}

// Latency returns W = L / λ, the mean time a request stays where l are in flight and lambda a second pass
// through. Read with l as a place in a line and lambda as the rate at which the line moves, it is the time
// until that place is served. It is the longest Duration when l is positive and lambda is not: nothing moves.
func Latency(l float64, lambda Rate) time.Duration {
	if l <= 0 {
		return 0
	}
	seconds := l / float64(lambda)
	if !(lambda > 0) || seconds >= float64(math.MaxInt64)/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(seconds * float64(time.Second))
}
