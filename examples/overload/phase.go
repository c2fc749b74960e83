package main

import "time"

// The two servers, in the order in which they are loaded.
const (
	bare      = "bare"
	protected = "spillway"
)

var roles = []string{bare, protected}

// phase is a stretch of load, as a multiple of what the server can do.
type phase struct {
	name   string
	factor float64
}

var phases = []phase{{"0.5x", 0.5}, {"2x", 2}, {"10x", 10}, {"0.5x again", 0.5}}

// result is one line of the table, and one element of the JSON object.
type result struct {
	Server            string  `json:"server"`
	Phase             string  `json:"phase"`
	OfferedPerS       float64 `json:"offered_per_s"`
	GoodputPerS       float64 `json:"goodput_per_s"`
	GoodputOfCapacity float64 `json:"goodput_of_capacity"`
	P50Ms             float64 `json:"p50_ms"`
	P99Ms             float64 `json:"p99_ms"`
	Refused           int     `json:"refused"`
	RefusedAfter1s    int     `json:"refused_after_first_s"`
	Late              int     `json:"late"`
	OtherErrors       int     `json:"other_errors"`
	RefusalP99Ms      float64 `json:"refusal_p99_ms"`
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
