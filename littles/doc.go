// Package littles relates concurrency, throughput and latency by Little's law, and measures all three
// from two sums.
//
// Over a window long enough for arrivals and departures to balance, L = λ · W, where
//
//   - L is the mean number of requests in the system (requests),
//   - λ is the rate at which they pass through it ([Rate], requests per second),
//   - W is the mean time a request spends in it (a [time.Duration]).
//
// It holds for any arrival process, any distribution of sizes and any order of service. It does not hold
// for percentiles, nor when the three are taken at different boundaries: a request that was refused is
// counted in all of them or in none.
//
// [Concurrency], [Throughput] and [Latency] give each of the three from the other two. [Meter] measures
// them over a [Window] without keeping a sample: it integrates the number of requests in flight over time
// and counts those that complete.
//
// Nothing here reads a clock, locks or starts a goroutine. Instants are a [time.Duration] since an epoch
// that the caller chooses, so that a meter works on a monotonic clock, on virtual time or on a recording.
//
// J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations Research 9(3), 1961,
// https://doi.org/10.1287/opre.9.3.383.
package littles
