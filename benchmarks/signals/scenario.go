//go:build linux

package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// scenario is a service and its load.
type scenario struct {
	name     string
	rate     float64       // requests a second
	deadline time.Duration // of each
	skip     time.Duration // of the load, until which nothing is counted

	soft, hard uint64 // bytes of memory: GOMEMLIMIT, and where the process dies; 0: none

	limit int // to start from; 0: the default

	work func(context.Context)
}

const mib = 1 << 20

// slows is when the callee slows down, after the first request.
const slows = 2 * time.Second

var scenarios = []scenario{
	// Each request holds 1 MiB while a callee with room for all works on it, first for 30 ms, then for 1 s. 500 MiB
	// would be in use, and the process dies of 400.
	{
		name: "memory", rate: 500, deadline: 3 * time.Second, skip: slows, soft: 256 * mib, hard: 400 * mib,
		work: func(context.Context) { holdBytes(callee.wait) },
	},
	// The same with small objects, which cost the garbage collector work, and without a death.
	{
		name: "collector", rate: 400, deadline: 3 * time.Second, skip: slows, soft: 256 * mib,
		work: func(context.Context) { holdTree(callee.wait) },
	},
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func scenarioNamed(name string) (scenario, bool) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	return scenarios[max(0, i)], i >= 0
}

// bound puts the memory limits of the scenario in force for this process.
func (s scenario) bound() error {
	if s.soft > 0 {
		debug.SetMemoryLimit(int64(s.soft))
	}
	if s.hard == 0 {
		return nil
	}
	return syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: s.hard, Max: s.hard})
}

// callee is what requests wait for, in a server process.
var callee slowing

type slowing struct {
	once  sync.Once
	began atomic.Int64
}

func (s *slowing) wait() {
	s.once.Do(func() { s.began.Store(time.Now().UnixNano()) })
	takes := 30 * time.Millisecond
	if time.Since(time.Unix(0, s.began.Load())) > slows {
		takes = time.Second
	}
	time.Sleep(takes)
}

// holdBytes holds 1 MiB while it waits.
func holdBytes(wait func()) {
	held := make([]byte, mib)
	for i := 0; i < len(held); i += 4 << 10 {
		held[i] = 1 // so that there is memory behind it
	}
	wait()
	runtime.KeepAlive(held)
}

// holdTree does the same with small objects.
func holdTree(wait func()) {
	held := newTree(mib / 64)
	wait()
	runtime.KeepAlive(held)
}

// tree is 64 bytes, most of them a request's.
type tree struct {
	left, right *tree
	_           [48]byte
}

func newTree(n int) *tree {
	if n <= 0 {
		return nil
	}
	n--
	return &tree{left: newTree(n / 2), right: newTree(n - n/2)}
}
