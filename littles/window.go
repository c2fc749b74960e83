package littles

import "time"

// Window is what a [Meter] saw between two instants. The zero Window saw nothing.
type Window struct {
	Start, End time.Duration // instants, since the caller's epoch

	// Area is the integral of the number in flight over the window, in request-seconds: the left side of
	// Little's law, times the window's length.
	Area float64

	Arrivals    int64 // requests that entered
	Completions int64 // requests that left
	Good        int64 // requests that left with a useful answer

	// Sum adds up the times that the requests that left had stayed, in seconds.
	Sum float64

	// Squares adds up the squares of these times, in seconds². One that takes the room of n is the square of n times its
	// time: n that stay equally long by chance would say that work varies little.
	Squares float64
}

// Length returns how long the window lasted; never negative.
func (w Window) Length() time.Duration { return max(0, w.End-w.Start) }

// Concurrency returns N, the mean number of requests in flight. It is 0 for a window without length.
func (w Window) Concurrency() float64 {
	if w.Length() == 0 {
		return 0
	}
	return w.Area / w.Length().Seconds()
}

// Throughput returns the rate at which requests left, whatever became of them.
func (w Window) Throughput() Rate { return PerSecond(float64(w.Completions), w.Length()) }

// Goodput returns X, the rate at which useful answers left.
func (w Window) Goodput() Rate { return PerSecond(float64(w.Good), w.Length()) }

// Latency returns W = N / X by Little's law, with X as the rate of all completions. It is 0 where nothing
// completed. Over a window in which as many entered as left it is the mean time a request stayed.
func (w Window) Latency() time.Duration {
	if w.Completions == 0 {
		return 0
	}
	return time.Duration(w.Area / float64(w.Completions) * float64(time.Second))
}

// Add returns the two windows as one. They should be neighbours in time; a gap between them counts in
// neither, so that what happened in it is left out of all three terms of the law.
func (w Window) Add(next Window) Window {
	if w.Length() == 0 && w.Completions == 0 {
		return next
	}
	start := next.End - w.Length() - next.Length()
	next = next.Merge(w)
	next.Start = start
	return next
}

// Merge returns the windows of two parts of a system, over the same time, as the window of the whole.
func (w Window) Merge(part Window) Window {
	w.Area += part.Area
	w.Arrivals += part.Arrivals
	w.Completions += part.Completions
	w.Good += part.Good
	w.Sum += part.Sum
	w.Squares += part.Squares
	return w
}
