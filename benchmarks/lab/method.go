package lab

import (
	"cmp"
	"context"
	"math"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/limiter"
)

// Method is the part of a load that calls one method.
type Method struct {
	Name        string
	Rate        func(time.Duration) float64 // offered, calls per second, at an instant
	Mean        time.Duration               // size of a call
	Criticality limiter.Criticality         // of all its calls, where the scenario has no tiers
	Guaranteed  float64                     // share of the limit that a bulkhead keeps for it; 0: it has none
	Deadline    time.Duration               // of each call; 0: the scenario's
	Waits       bool                        // its calls only wait, for their mean size; the station has no work with them, and they no deadline
}

// service is what the methods belong to.
const service = "lab.Station"

// info returns what interceptors are told of the method.
func (m Method) info() *grpc.UnaryServerInfo {
	return &grpc.UnaryServerInfo{FullMethod: "/" + service + "/" + m.Name}
}

// Match selects the calls of the method, for its bulkhead.
func (m Method) Match(_ context.Context, call middleware.CallMeta) bool { return call.Method == m.Name }

// methods are those of the scenario. One that has none calls a single one.
func (s Scenario) methods() []Method {
	if s.Methods != nil {
		return s.Methods
	}
	return []Method{{Name: "Do", Rate: s.Rate, Mean: s.Mean}}
}

// rateOf is what is offered by all methods.
func rateOf(methods []Method, now time.Duration) float64 {
	sum := 0.0
	for _, m := range methods {
		sum += m.Rate(now)
	}
	return sum
}

// deadline is that of a request.
func (s Scenario) deadline(req request) time.Duration {
	if s.waits(req) {
		return math.MaxInt64
	}
	return cmp.Or(s.methods()[req.method].Deadline, s.Deadline)
}

// waits reports whether a request only waits.
func (s Scenario) waits(req request) bool { return s.methods()[req.method].Waits }

// criticality is what a request says of itself.
func (s Scenario) criticality(req request) limiter.Criticality {
	switch {
	case len(s.Tiers) > 0:
		return s.Tiers[req.tier].Criticality
	case len(s.Methods) > 0:
		return s.Methods[req.method].Criticality
	default:
		return limiter.Unspecified
	}
}

// lightAndHeavy are two methods, one fifty times as heavy as the other, that each offer 1.5 times as much work as ten
// workers can do.
func lightAndHeavy(name string, deadline time.Duration) Scenario {
	const heavy = 100 * ms
	return base(name, 0).with(func(s *Scenario) {
		s.Deadline, s.Length = deadline, 15*time.Second
		s.Methods = []Method{
			{Name: "Light", Rate: constant(7500), Mean: heavy / 50},
			{Name: "Heavy", Rate: constant(150), Mean: heavy},
		}
		// Nobody can know which of the heavy calls take longer than their deadline, and to those goes a part of the work.
		n := deadline.Seconds() / heavy.Seconds()
		s.Lost = 0.5 * (1 + n) * math.Exp(-n)
	})
}

// shifting are two methods, one ten times as heavy as the other, that offer twice as much work as ten workers can do. The
// light one has a share of it at first, another from a third of the time on, and the first again in the last third.
func shifting(name string, first, second float64) Scenario {
	const turn = 10 * time.Second
	work := 2 * 10.0 // seconds a second
	share := func(now time.Duration) float64 {
		if now >= turn && now < 2*turn {
			return second
		}
		return first
	}
	return base(name, 0).with(func(s *Scenario) {
		s.Deadline, s.Length, s.Changed = 2*time.Second, 3*turn, turn
		s.Methods = []Method{
			{Name: "Light", Rate: func(now time.Duration) float64 { return work * share(now) / 0.010 }, Mean: 10 * ms},
			{Name: "Heavy", Rate: func(now time.Duration) float64 { return work * (1 - share(now)) / 0.100 }, Mean: 100 * ms},
		}
	})
}

// impatient are two methods of the same work whose callers wait for half a second, and for a minute.
func impatient(name string, rate float64) Scenario {
	return base(name, 0).with(func(s *Scenario) {
		s.Methods = []Method{
			{Name: "Impatient", Rate: constant(rate / 2), Mean: 10 * ms},
			{Name: "Patient", Rate: constant(rate / 2), Mean: 10 * ms, Deadline: time.Minute},
		}
	})
}

// waiting is a method whose calls only wait, such as a Watch or a long poll, on a new server that has other calls, too.
func waiting(name string, m Method, calls func(time.Duration) float64) Scenario {
	m.Waits = true
	return base(name, 0).with(func(s *Scenario) {
		s.Length = 40 * time.Second
		s.Methods = []Method{{Name: "Call", Rate: calls, Mean: 10 * ms}, m}
	})
}

// guaranteed is a method that a bulkhead guarantees 30% of the limit, beside a flood of twelve times of what can be
// served that is more critical than it.
func guaranteed(name string, rate func(time.Duration) float64) Scenario {
	return base(name, 0).with(func(s *Scenario) {
		s.Length = 12 * time.Second
		s.Methods = []Method{
			{Name: "Guaranteed", Rate: rate, Mean: 10 * ms, Criticality: limiter.Critical, Guaranteed: 0.3},
			{Name: "Flood", Rate: constant(12_000), Mean: 10 * ms, Criticality: limiter.CriticalPlus},
		}
	})
}
