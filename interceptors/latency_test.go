package interceptors

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Whatever the scale, the quantiles are those of what was seen, up to the width of a bucket.
func TestLatencyQuantiles(t *testing.T) {
	for _, scale := range []time.Duration{5 * time.Microsecond, time.Millisecond, time.Second, time.Minute} {
		rng := rand.New(rand.NewPCG(1, uint64(scale)))
		var l latencies
		var seen []time.Duration
		for range 1000 {
			took := time.Duration(rng.ExpFloat64() * float64(scale))
			seen = append(seen, took)
			l.observe(took)
		}
		slices.Sort(seen)
		for _, q := range []struct {
			name string
			got  time.Duration
			want time.Duration
		}{
			{"p95", time.Duration(l.p95.Load()), seen[949]},
			{"p99", time.Duration(l.p99.Load()), seen[989]},
		} {
			if q.got < q.want || q.got > q.want*5/4+1 {
				t.Errorf("%s at a scale of %v: %v, want from %v to a quarter more", q.name, scale, q.got, q.want)
			}
		}
	}
}

// Nothing is said before enough is seen, and what is long ago is forgotten.
func TestLatencyKnowsAndForgets(t *testing.T) {
	var l latencies
	for range latencyKnown - 1 {
		l.observe(time.Second)
	}
	if p99 := l.p99.Load(); p99 != 0 {
		t.Errorf("%v known from %d answers, want nothing", time.Duration(p99), latencyKnown-1)
	}
	for range 20 * latencyMemory {
		l.observe(time.Millisecond)
	}
	if p99 := time.Duration(l.p99.Load()); p99 > 2*time.Millisecond {
		t.Errorf("%v after a long time of 1ms, want about that", p99)
	}
}

func TestLatencyBuckets(t *testing.T) {
	for _, took := range []time.Duration{-1, 0, 1, 1023, 1024, 1279, 1280, time.Millisecond, time.Hour, 1<<63 - 1} {
		bucket := latencyBucket(took)
		if bucket < 0 || bucket >= latencyBuckets {
			t.Fatalf("%v is in bucket %d of %d", took, bucket, latencyBuckets)
		}
		inside := took < latencyEdge(bucket+1) || bucket == latencyBuckets-1
		if inside = inside && (took >= latencyEdge(bucket) || bucket == 0); !inside {
			t.Errorf("%v is in the bucket from %v to %v", took, latencyEdge(bucket), latencyEdge(bucket+1))
		}
	}
}
