package interceptors

import "sync"

// backend is one address of a connection. What it refuses or fails is held against it alone: a backend that lies, hangs
// or is broken can only hurt the calls to itself, and those that it would not serve go to others.
//
// Its memory is a standing for each method that a [Client] tells apart, up to the same bound.
type backend struct{ known table[*callee, standing] }

// maxStandings is for all that a client tells apart, and for the rest.
const maxStandings = maxCallees + 1

// of returns the standing of a method.
func (b *backend) of(c *callee) *standing {
	if s := b.known.at(c); s != nil {
		return s
	}
	if s := b.known.add(c, maxStandings, func() *standing {
		s := new(standing)
		c.backends.add(s)
		return s
	}); s != nil {
		return s
	}
	return new(standing) // for a last call of an old picker: nobody would forget it
}

// forget takes the backend out of what is reported of methods.
func (b *backend) forget() {
	for c, s := range b.known.close() {
		c.backends.remove(s)
	}
}

// standings are those of a method with all backends of all connections to its target. The zero value has none.
type standings struct {
	mu       sync.Mutex
	all      map[*standing]struct{}
	openings int64 // of the breakers of those that are gone
}

func (s *standings) add(one *standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*standing]struct{}{}
	}
	s.all[one] = struct{}{}
}

func (s *standings) remove(one *standing) {
	_, openings := one.breaker.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, one)
	s.openings += openings
}

// breakers returns how many are open, and how often one opened.
func (s *standings) breakers() (open, openings int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	openings = s.openings
	for one := range s.all {
		isOpen, opened := one.breaker.state()
		openings += opened
		if isOpen {
			open++
		}
	}
	return open, openings
}

// shares returns the sum of the shares of the calls of a criticality that are sent, of how many backends, and whether
// any was ever less than 1.
func (s *standings) shares(level int) (sum float64, n int, met bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.all {
		t := &one.throttles[level]
		sum += t.share()
		met = met || t.met()
	}
	return sum, len(s.all), met
}
