package limiter

import "time"

// Stats is a snapshot of a limiter.
type Stats struct {
	Limit      int // requests in flight that are allowed now
	InFlight   int // requests in flight, by weight
	Line       int // requests that wait
	DryRun     int // requests of dry runs under way that have no permit
	HandedOver int // requests that are not in flight because they wait elsewhere; see [HandOver]
	Parked     int // requests under way that take none of the limit, by weight, for they have stayed for very long; see [Limiter]

	Admitted uint64           // permits given since the start
	Refused  [reasons]uint64  // requests refused since the start, by Reason, also those that only a dry run would have
	Outcomes [outcomes]uint64 // permits returned since the start, by Outcome

	// As the last window showed it that has closed, Age ago. One closes after a service time, with 16 requests finished.
	Age        time.Duration
	Throughput float64       // work finished lately, requests per second
	Capacity   float64       // the same when the limit last held the load back; 0: it never did
	Service    time.Duration // mean time from permit to release, lately

	ControllerPanics uint64 // times that the controller panicked, and the limit stayed as it was
	SignalPanics     uint64 // times that the source of [WithMemory] panicked, and what was known stayed
}

// counts are a shard's part of the sums in Stats.
type counts struct {
	admitted uint64
	refused  [reasons]uint64
	outcomes [outcomes]uint64
}

func (c *counts) finish(o Outcome) {
	if int(o) < outcomes {
		c.outcomes[o]++
	}
}

// Stats returns a snapshot. The counts of requests that come and go while it is taken may be off by those.
func (l *Limiter) Stats() Stats {
	var s Stats
	for i := range l.shards {
		c := l.shards[i].read()
		s.Admitted += c.admitted
		for reason, n := range c.refused {
			s.Refused[reason] += n
		}
		for outcome, n := range c.outcomes {
			s.Outcomes[outcome] += n
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.DryRun = l.dry.without()
	s.Limit = int(l.limit.Load())
	s.InFlight = l.load.inFlight()
	s.HandedOver = int(l.handed.Load())
	s.Parked = int(l.parked.Load())
	s.Line = l.line.length
	s.Throughput = float64(l.pace.drain)
	s.Capacity = l.pace.capacity / l.pace.cost()
	s.Age = max(0, l.now()-l.pace.closed)
	s.Service = l.pace.service
	s.ControllerPanics = l.controllerPanics
	s.SignalPanics = l.signal.panics.Load()
	return s
}
