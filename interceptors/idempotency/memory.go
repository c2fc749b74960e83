package idempotency

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"time"
)

// Limits bound what a [Memory] keeps. What is zero has its default.
type Limits struct {
	Keep    time.Duration // how long an answer is kept; 1 h
	Entries int           // claims and answers, at most; 65,536
	Bytes   int           // that they take, about; 64 MiB
}

// Memory is a [Store] for a single server. It forgets everything when its process ends.
//
// An answer is never given up before its time: where there is no room, new claims are refused with [ErrFull]. A caller
// gets one only while it has less than what is still free, of entries and of bytes, so that whoever sends more than all
// others leaves them room: alone it gets half of it, and n such callers leave 1/(n+1) free (A. K. Choudhury and
// E. L. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking
// 6(2), 1998).
type Memory struct {
	limits Limits

	mu      sync.Mutex // guards all below
	entries map[ID]*entry
	ends    endings
	used    usage
	callers map[string]usage
}

// usage is what a caller has in a store, or all have.
type usage struct{ entries, bytes int }

// entry is a claim, or an answer.
type entry struct {
	id     ID
	of     Fingerprint
	answer []byte // nil while it is a claim
	ends   time.Time
	at     int // in the heap
}

// entryBytes is what an entry takes, with its place in maps and an answer of up to smallAnswer bytes.
const (
	entryBytes  = 512
	smallAnswer = 256
)

func (e *entry) bytes() int {
	return entryBytes + len(e.id.Method) + len(e.id.Caller) + len(e.id.Key) + max(0, len(e.answer)-smallAnswer)
}

// NewMemory returns an empty store, or an error that names the limit that is wrong: one that is negative.
func NewMemory(limits Limits) (*Memory, error) {
	switch {
	case limits.Keep < 0:
		return nil, fmt.Errorf("idempotency: Limits.Keep is %v; want more than 0, or 0 for the default", limits.Keep)
	case limits.Entries < 0:
		return nil, fmt.Errorf("idempotency: Limits.Entries is %d; want more than 0, or 0 for the default", limits.Entries)
	case limits.Bytes < 0:
		return nil, fmt.Errorf("idempotency: Limits.Bytes is %d; want more than 0, or 0 for the default", limits.Bytes)
	}
	if limits.Keep == 0 {
		limits.Keep = time.Hour
	}
	if limits.Entries == 0 {
		limits.Entries = 1 << 16
	}
	if limits.Bytes == 0 {
		limits.Bytes = 64 << 20
	}
	return &Memory{limits: limits, entries: map[ID]*entry{}, callers: map[string]usage{}}, nil
}

// Claim implements [Store].
func (m *Memory) Claim(_ context.Context, id ID, of Fingerprint, lease time.Duration) (Claim, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweep(now)
	if known := m.entries[id]; known != nil {
		switch {
		case !now.Before(known.ends):
			m.remove(known)
		case known.of != of:
			return nil, nil, ErrMismatch
		case known.answer == nil:
			return nil, nil, ErrHeld
		default:
			return nil, known.answer, nil
		}
	}
	e := &entry{id: id, of: of, ends: now.Add(lease)}
	if !m.hasRoom(e) {
		return nil, nil, ErrFull
	}
	m.entries[id] = e
	heap.Push(&m.ends, e)
	m.charge(id.Caller, usage{1, e.bytes()})
	return &memoryClaim{m, e}, nil, nil
}

// hasRoom reports whether the caller of an entry has less than is free, and the entry fits.
func (m *Memory) hasRoom(e *entry) bool {
	has, free := m.callers[e.id.Caller], usage{m.limits.Entries - m.used.entries, m.limits.Bytes - m.used.bytes}
	return has.entries < free.entries && has.bytes+e.bytes() <= free.bytes
}

// sweep removes what has ended. Two at a time are enough to fall behind nobody, for each call adds one at most.
func (m *Memory) sweep(now time.Time) {
	for range 2 {
		if len(m.ends) == 0 || now.Before(m.ends[0].ends) {
			return
		}
		m.remove(m.ends[0])
	}
}

func (m *Memory) remove(e *entry) {
	heap.Remove(&m.ends, e.at)
	delete(m.entries, e.id)
	m.charge(e.id.Caller, usage{-1, -e.bytes()})
}

func (m *Memory) charge(caller string, more usage) {
	m.used = m.used.plus(more)
	if has := m.callers[caller].plus(more); has.entries > 0 {
		m.callers[caller] = has
	} else {
		delete(m.callers, caller)
	}
}

func (u usage) plus(more usage) usage { return usage{u.entries + more.entries, u.bytes + more.bytes} }

// memoryClaim is a claim as long as its entry is in the store.
type memoryClaim struct {
	memory *Memory
	entry  *entry
}

// Put implements [Claim]. For an answer of up to 256 bytes there is always room.
func (c *memoryClaim) Put(_ context.Context, answer []byte) error {
	m, e := c.memory, c.entry
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[e.id] != e {
		return ErrLost
	}
	more := max(0, len(answer)-smallAnswer)
	if m.used.bytes+more > m.limits.Bytes {
		return ErrFull
	}
	m.charge(e.id.Caller, usage{0, more})
	e.answer, e.ends = answer, time.Now().Add(m.limits.Keep)
	heap.Fix(&m.ends, e.at)
	return nil
}

// Release implements [Claim].
func (c *memoryClaim) Release(context.Context) error {
	m, e := c.memory, c.entry
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[e.id] == e {
		m.remove(e)
	}
	return nil
}

// endings are all entries, the first to end first: a [heap.Interface].
type endings []*entry

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].ends.Before(e[j].ends) }

func (e endings) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].at, e[j].at = i, j
}

func (e *endings) Push(x any) {
	last := x.(*entry)
	last.at = len(*e)
	*e = append(*e, last)
}

func (e *endings) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = nil
	*e = (*e)[:len(*e)-1]
	return last
}
