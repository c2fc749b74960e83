package limiter

import (
	"time"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/littles"
)

// pace is what the line needs to know of the service to foretell a wait.
type pace struct {
	drain   littles.Rate  // at which requests are finished, by weight
	service time.Duration // mean time from permit to release
	typical float64       // mean cost of a request; 0: not known, and taken for 1
	slow    float64       // nanoseconds that a request stays for each unit of its cost
	slack   time.Duration // time that all but a few of those who come have left
	first   int           // the limit at the start: while no rate is known, as many may wait

	closed   time.Duration // when the last window did
	capacity float64       // work that is finished a second while the limit holds the load back
	full     int           // windows in which it did, up to capacityMemory
}

// margin is how many mean service times must be left once a permit comes. One is not enough for a third of
// exponential times; 2.5 are for 92% of them.
const margin = 2.5

// fullCredit is how long a line may stand after nobody has waited for long: half of what the typical
// request can spare. The rest is for what the estimates get wrong while the load changes.
func (p pace) fullCredit() time.Duration { return p.credit(p.service) }

// credit is the same for a mean service time.
func (p pace) credit(service time.Duration) time.Duration {
	return max(0, (p.slack-time.Duration(margin*float64(service)))/2)
}

// wait returns how long someone with that much work ahead waits, by Little's law; 0 while no rate is known.
func (p pace) wait(ahead float64) time.Duration {
	if p.drain <= 0 {
		return 0
	}
	return littles.Latency(ahead/p.cost()+1, p.drain)
}

// stay returns how long a request of that cost takes from permit to release.
func (p pace) stay(cost float64) time.Duration { return time.Duration(cost * p.slow) }

// cost returns that of a typical request.
func (p pace) cost() float64 {
	if p.typical > 0 {
		return p.typical
	}
	return 1
}

// paceMemory is how many windows the estimates remember.
const paceMemory = 4

// unboundedSlack is the patience of requests that say nothing of a deadline, in service times.
const unboundedSlack = 50

// observe takes in a window that has closed, and how much time those who come have left, 0 if they do not say.
func (p *pace) observe(s feedback.Sample, slack time.Duration) {
	service := time.Duration(s.Sum / float64(s.Completions) * float64(time.Second))
	typical, slow := s.Work/float64(s.Completions), s.Sum/s.Work*float64(time.Second)
	first := p.drain <= 0
	if first {
		p.drain, p.service, p.typical, p.slow = s.Throughput(), service, typical, slow
	}
	p.drain += (s.Throughput() - p.drain) / paceMemory
	p.service += (service - p.service) / paceMemory
	p.typical += (typical - p.typical) / paceMemory
	p.slow += (slow - p.slow) / paceMemory
	p.closed = s.End
	if slack == 0 {
		slack = unboundedSlack * p.service
	}
	if first {
		p.slack = slack
	}
	p.slack += (slack - p.slack) / paceMemory
}

// capacityMemory is how many windows the capacity remembers: so many that it follows neither chance nor the swings of the
// limit.
const capacityMemory = 16

// learn takes in what a window says of the capacity: all of it where the limit bound all the time, and otherwise only
// that it is no less than what was finished.
func (p *pace) learn(s feedback.Sample) {
	switch x := p.cost() * float64(p.drain); {
	case isFull(s):
		p.full = min(p.full+1, capacityMemory)
		p.capacity += (float64(littles.PerSecond(s.Work, s.Length())) - p.capacity) / float64(p.full)
	case p.full > 0 && x > p.capacity:
		p.capacity += (x - p.capacity) / capacityMemory
	}
}

// isFull reports whether the limit held the load back for all of a window.
func isFull(s feedback.Sample) bool { return s.Bound() && s.Concurrency() >= 0.9*float64(s.Limit) }

// load returns which part of what can be served a rate of work is. In a window that was full that is the capacity, which
// does not swing with the limit as it is tried; in any other, by Little's law, what the limit would let through.
func (p pace) load(rate littles.Rate, s feedback.Sample) float64 {
	if isFull(s) && p.full > 0 {
		return float64(rate) / p.capacity
	}
	return littles.Concurrency(rate, p.stay(1)) / float64(s.Limit)
}

// retryHint returns when those refused may ask again: after a service time, and later the more is refused, so
// that they do not come back as one wave.
func (p pace) retryHint(s feedback.Sample) time.Duration {
	return time.Duration(float64(p.service) * max(1, float64(s.Offered)/float64(max(1, s.Completions))))
}
