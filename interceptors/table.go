package interceptors

import (
	"maps"
	"sync"
	"sync/atomic"
)

// table is a map whose keys are soon all there: it is read without a lock, and to grow it is replaced. The zero value is
// empty. It is safe for concurrent use.
type table[K comparable, V any] struct {
	mu     sync.Mutex               // held while known is replaced
	known  atomic.Pointer[map[K]*V] // never changed, only replaced
	closed bool
}

// all must not be changed.
func (t *table[K, V]) all() map[K]*V {
	if known := t.known.Load(); known != nil {
		return *known
	}
	return nil
}

// at returns the value of a key, nil if it has none.
func (t *table[K, V]) at(key K) *V { return t.all()[key] }

// add returns the value of a key, and makes it where there is none, unless there are as many as may be, or the table is
// closed: then it returns nil. It calls create with the mutex held, at most once for a key.
func (t *table[K, V]) add(key K, most int, create func() *V) *V {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.all()
	if value := known[key]; value != nil {
		return value
	}
	if t.closed || len(known) >= most {
		return nil
	}
	grown := make(map[K]*V, len(known)+1)
	maps.Copy(grown, known)
	value := create()
	grown[key] = value
	t.known.Store(&grown)
	return value
}

// close lets the table grow no more, and returns what is in it.
func (t *table[K, V]) close() map[K]*V {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.all()
}
