package limiter

import "time"

// claim is what a request asks for: where it stands, what it takes and how long it can wait.
type claim struct {
	at       place
	tenant   Tenant
	method   uint8
	weight   int32         // of the limit that it takes while it is in flight
	cost     float64       // of one unit of its weight, in requests of a typical one
	deadline time.Duration // 0: none
	group    *group        // nil: none
	dry      *dryRun       // nil: it is in earnest
}

// work is what serving it takes in all.
func (c *claim) work() float64 { return float64(c.weight) * c.cost }

// maxWeight keeps sums of weights far from overflow.
const maxWeight = defaultMax

// fill says what the request asks for, by what is known of its method. It writes in place: a claim is too large to be
// handed back for nothing.
func (c *claim) fill(l *Limiter, r *Request, method uint8, deadline time.Duration) {
	c.at = l.placeFor(r, r.Criticality.level(), deadline)
	c.tenant = r.Tenant
	c.method = method
	c.weight = int32(min(max(r.Weight, 1), maxWeight))
	c.cost = l.methods.cost(method)
	c.deadline = deadline
	c.group = l.group(r.Bulkhead)
}
