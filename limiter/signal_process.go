package limiter

import (
	"math"
	"os"
	"runtime/metrics"
)

// processMemory reads the heap of this process, in half a microsecond: what the last garbage collection marked, and what
// of it there may be.
func processMemory() func() Memory {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/gomemlimit:bytes"},
		{Name: "/gc/gogc:percent"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	cgroup := cgroupMemory(os.DirFS("/"))
	used, hard := uint64(0), cgroup()
	return func() Memory {
		metrics.Read(samples)
		value := func(i int) uint64 { return samples[i].Value.Uint64() }
		if value(0) != used { // a collection costs far more than to read a file
			used, hard = value(0), cgroup()
		}
		other := value(4) - value(5) - value(6) - value(7) - value(8) // stacks and the runtime's own
		limit := heapLimit(value(2), hard, other, value(3))
		if limit == 0 {
			return Memory{}
		}
		return Memory{Used: used, Limit: limit, Allocated: value(1)}
	}
}

// heapLimit returns how much of the heap may be in use, 0 for no limit. soft is GOMEMLIMIT, which garbage is collected
// to keep. Nobody collects to keep hard, that of the cgroup (0: none): there garbage takes GOGC percent of what is in
// use besides.
func heapLimit(soft, hard, other, gogc uint64) uint64 {
	garbage := 0.0
	limit := soft
	if hard > 0 && hard < soft {
		limit = hard
		garbage = float64(gogc) / 100
	}
	if limit == math.MaxInt64 || garbage > math.MaxInt32/100 { // GOGC=off
		return 0
	}
	return max(1, uint64(float64(limit-min(limit, other))/(1+garbage)))
}
