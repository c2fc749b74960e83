package interceptors

import (
	"context"
	"sync"
	"time"
)

// retained bounds what gRPC keeps of the requests that the tap refuses. Their contexts are never cancelled (grpc-go
// 1.85, http2Server.operateHeaders): each costs some 500 bytes until the deadline that its caller asked for has passed,
// also when the connection is gone, and a caller may ask for ten thousand years. What there is no room for passes to the
// interceptor, which refuses it at a higher price and leaves nothing behind.
type retained struct {
	mu     sync.Mutex // guards all below; held for a few additions at a time
	start  time.Time
	second int64                   // of now, since start: the deadlines before have passed
	ends   [retainedSeconds]uint32 // how many deadlines are in each second to come, modulo
	count  int                     // of all
}

const (
	// retainedSeconds is how far a deadline may be. Few callers wait for longer than a minute.
	retainedSeconds = 64

	// maxRetained are 33 MB.
	maxRetained = 1 << 16
)

func newRetained() *retained { return &retained{start: time.Now()} }

// add counts a request that the tap would refuse, and reports whether there is room for what gRPC keeps of it.
func (r *retained) add(ctx context.Context, now time.Time) bool {
	at, ok := ctx.Deadline()
	if !ok {
		return true // without a timer nothing is kept
	}
	end := r.since(at)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(r.since(now))
	if end >= r.second+retainedSeconds || r.count == maxRetained {
		return false
	}
	r.ends[max(end, r.second)%retainedSeconds]++
	r.count++
	return true
}

// forget takes off the deadlines that have passed. The caller holds the mutex.
func (r *retained) forget(now int64) {
	for range min(now-r.second, retainedSeconds) {
		passed := &r.ends[r.second%retainedSeconds]
		r.count -= int(*passed)
		*passed = 0
		r.second++
	}
	r.second = max(r.second, now)
}

func (r *retained) since(t time.Time) int64 { return int64(t.Sub(r.start) / time.Second) }
