package interceptors

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// latencies follows how long the answers of a callee take, by a histogram that forgets: when it is full, all counts are
// halved. Its buckets are a fifth of their lower edge wide on average, four to each doubling, so that it is as good for
// microseconds as for minutes.
type latencies struct {
	mu       sync.Mutex
	counts   [latencyBuckets]uint16
	total    int
	p95, p99 atomic.Int64 // nanoseconds, read without the lock; 0: not known yet
}

const (
	latencyShortest = 10                                     // doublings of a nanosecond: all below 1 µs is one bucket
	latencyLongest  = 40                                     // 18 minutes: all above is one bucket
	latencyBuckets  = 4 * (latencyLongest - latencyShortest) // 240 bytes

	latencyMemory = 2000 // answers, after which half of the weight of all is forgotten
	latencyKnown  = 100  // answers, before which nobody can tell what one in a hundred takes
	latencyStep   = 10   // answers from one look at the quantiles to the next
)

// observe takes in one answer.
func (l *latencies) observe(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[latencyBucket(took)]++
	if l.total++; l.total >= latencyMemory {
		l.total = 0
		for i := range l.counts {
			l.counts[i] /= 2
			l.total += int(l.counts[i])
		}
	}
	if l.total >= latencyKnown && l.total%latencyStep == 0 {
		l.p95.Store(int64(l.quantile(95)))
		l.p99.Store(int64(l.quantile(99)))
	}
}

// quantile returns what at least percent of the answers take at most: the upper edge of a bucket.
func (l *latencies) quantile(percent int) time.Duration {
	above := l.total * (100 - percent) / 100
	for i := latencyBuckets - 1; i >= 0; i-- {
		if above -= int(l.counts[i]); above < 0 {
			return latencyEdge(i + 1)
		}
	}
	return latencyEdge(0)
}

// latencyBucket returns the bucket of a time: the number of its doublings, and the next two bits.
func latencyBucket(took time.Duration) int {
	if took < 1<<latencyShortest {
		return 0
	}
	doublings := bits.Len64(uint64(took)) - 1
	if doublings >= latencyLongest {
		return latencyBuckets - 1
	}
	quarter := int(took>>(doublings-2)) & 3
	return 4*(doublings-latencyShortest) + quarter
}

// latencyEdge returns the lower edge of a bucket.
func latencyEdge(bucket int) time.Duration {
	return time.Duration(4+bucket%4) << (latencyShortest + bucket/4 - 2)
}
