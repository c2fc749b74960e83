package soak

import (
	"context"

	"math/rand/v2"

	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillway-go/spillway/limiter"
)

// requesters is how many goroutines ask for permits. They outnumber the limit, so that there is always a line.
const (
	requesters = 64
	minLimit   = 16
	maxLimit   = 48
)

func TestLimiter(t *testing.T) {
	l, err := limiter.New(limiter.WithMinLimit(minLimit), limiter.WithMaxLimit(maxLimit), limiter.WithBulkheads(tables[0]))
	if err != nil {
		t.Fatal(err)
	}
	p := want(fewPermits, 100_000_000)
	defer p.show(t, "permits")()
	books := soakLimiter(t, l, p, p.total/10)
	before := look()
	books.add(soakLimiter(t, l, p, p.total))
	before.compare(t)
	wantEmpty(t, l)
	t.Logf("seen by the requesters: %+v", books)

	// What the limiter counted is what was asked for.
	s := l.Stats()
	refused, returned := uint64(0), uint64(0)
	for _, n := range s.Refused {
		refused += n
	}
	for _, n := range s.Outcomes {
		returned += n
	}
	if s.Admitted != books.Admitted || refused != books.Refused || returned != books.Admitted-books.Cancelled {
		t.Errorf("the limiter counts %d admitted, %d refused and %d returned, want %d, %d and %d",
			s.Admitted, refused, returned, books.Admitted, books.Refused, books.Admitted-books.Cancelled)
	}
	for _, n := range []uint64{books.Refused, books.Waited, books.Cancelled, books.Panicked, books.Suspended, books.Elsewhere} {
		if n == 0 {
			t.Errorf("%+v: something never happened", books)
		}
	}
}

// books are what requesters have seen.
type books struct{ Admitted, Refused, Waited, Cancelled, Panicked, Suspended, Elsewhere uint64 }

func (b *books) add(o books) {
	b.Admitted += o.Admitted
	b.Refused += o.Refused
	b.Waited += o.Waited
	b.Cancelled += o.Cancelled
	b.Panicked += o.Panicked
	b.Suspended += o.Suspended
	b.Elsewhere += o.Elsewhere
}

// tables are shares that change while requests come and go.
var tables = []map[string]float64{{"a": .3, "b": .5}, {"a": .1}, {}, {"a": .5, "b": .5}, {"b": 1}}

// batch is how many permits a requester gets before it looks how many are left to get.
const batch = 100

// soakLimiter lets requesters get permits up to a point, and returns what they saw when all permits are back.
func soakLimiter(t *testing.T, l *limiter.Limiter, p *progress, upTo int64) (all books) {
	var running sync.WaitGroup
	var mu sync.Mutex
	cancels := make([]atomic.Pointer[context.CancelFunc], requesters)
	for i := range requesters {
		running.Go(func() {
			r := requester{
				limiter:   l,
				dice:      rand.New(rand.NewPCG(uint64(upTo), uint64(i))),
				cancel:    &cancels[i],
				neighbour: &cancels[(i+1)%requesters],
			}
			for p.claim(batch, upTo) {
				for upTo := r.books.Admitted + batch; r.books.Admitted < upTo; {
					r.turn()
				}
				if err := l.SetBulkheads(tables[r.dice.IntN(len(tables))]); err != nil {
					t.Error(err)
				}
			}
			r.elsewhere.Wait()
			mu.Lock()
			defer mu.Unlock()
			all.add(r.books)
		})
	}
	running.Wait()
	return all
}
