package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	workers  = 8
	meanWork = 10 * time.Millisecond
)

// pool is what stands behind many a service: so many workers, connections to a database say, and in front of
// them a wait without bound. As in database/sql, whoever waits is served in the order of arrival, and stops
// waiting when its context ends; who has a worker keeps it until the work is done.
type pool struct{ free chan struct{} }

func newPool() *pool {
	p := &pool{free: make(chan struct{}, workers)}
	for range workers {
		p.free <- struct{}{}
	}
	return p
}

// work waits for a worker and uses it for an exponentially distributed time.
func (p *pool) work(ctx context.Context) error {
	select {
	case <-p.free: // waiting receivers of a channel are served in order
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.free <- struct{}{} }()
	time.Sleep(time.Duration(rand.ExpFloat64() * float64(meanWork)))
	return nil
}

// capacity measures how many requests a second the pool can do when it is never idle. Sleeping takes a little
// longer than asked for, so it is less than workers / meanWork.
func (p *pool) capacity(during time.Duration) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), during)
	defer cancel()
	var mu sync.Mutex
	done := 0
	var all sync.WaitGroup
	start := time.Now()
	for range 4 * workers {
		all.Go(func() {
			for ctx.Err() == nil {
				if p.work(ctx) == nil {
					mu.Lock()
					done++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return float64(done) / time.Since(start).Seconds()
}
