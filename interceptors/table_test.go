package interceptors

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Many goroutines add the same keys, more than there is room for: each key that has a value has one, for all of them.
func TestTableIsShared(t *testing.T) {
	const most, keys, goroutines = 10, 20, 8
	var of table[int, int]
	var created atomic.Int64
	got := make([][keys]*int, goroutines)
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for key := range keys {
				got[g][key] = of.add(key, most, func() *int {
					created.Add(1)
					return &key
				})
				if at := of.at(key); at != got[g][key] {
					t.Errorf("key %d is at %p after it was added as %p", key, at, got[g][key])
				}
			}
		})
	}
	all.Wait()
	for key := range keys {
		value := of.at(key)
		if value != nil && *value != key {
			t.Errorf("key %d has the value %d", key, *value)
		}
		for g := range goroutines {
			if got[g][key] != value {
				t.Errorf("key %d is %p for goroutine %d, and %p at the end", key, got[g][key], g, value)
			}
		}
	}
	if n := len(of.all()); n != most || created.Load() != most {
		t.Errorf("%d keys and %d values created, want %d", n, created.Load(), most)
	}
}

func TestClosedTableDoesNotGrow(t *testing.T) {
	var of table[string, int]
	if at := of.at("a"); at != nil {
		t.Errorf("an empty table has %d", *at)
	}
	one := of.add("a", 2, func() *int { return new(int) })
	if left := of.close(); len(left) != 1 || left["a"] != one {
		t.Errorf("%v is in the table, want what was added", left)
	}
	if again := of.add("a", 2, nil); again != one || of.at("a") != one {
		t.Error("a closed table does not have what it had")
	}
	if late := of.add("b", 2, func() *int { return new(int) }); late != nil || of.at("b") != nil {
		t.Error("a closed table grows")
	}
}
