package interceptors

import (
	"maps"
	"sync"
	"sync/atomic"
)

// backend is one address of a connection. What it refuses or fails is held against it alone: a backend that lies, hangs
// or is broken can only hurt the calls to itself, and those that it would not serve go to others.
//
// Its memory is a standing for each method that a [Client] tells apart, so it has the same bound.
type backend struct {
	mu    sync.Mutex                            // held while the table is replaced
	table atomic.Pointer[map[*callee]*standing] // never changed, only replaced
	gone  bool
}

// of returns the standing of a method.
func (b *backend) of(c *callee) *standing {
	if s := b.known()[c]; s != nil {
		return s
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.known()
	if s := known[c]; s != nil {
		return s
	}
	s := new(standing)
	if b.gone { // a last call of an old picker; nobody would forget it
		return s
	}
	table := make(map[*callee]*standing, len(known)+1)
	maps.Copy(table, known)
	table[c] = s
	b.table.Store(&table)
	c.backends.add(s)
	return s
}

// forget takes the backend out of what is reported of methods.
func (b *backend) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	for c, s := range b.known() {
		c.backends.remove(s)
	}
}

// known must not be changed.
func (b *backend) known() map[*callee]*standing {
	if table := b.table.Load(); table != nil {
		return *table
	}
	return nil
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
