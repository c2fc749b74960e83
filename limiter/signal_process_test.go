package limiter

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestHeapLimit(t *testing.T) {
	const none = math.MaxInt64
	for _, c := range []struct {
		name                    string
		soft, hard, other, gogc uint64
		want                    uint64
	}{
		{"no limit", none, 0, 10, 100, 0},
		{"GOMEMLIMIT", 1000, 0, 100, 100, 900},
		{"GOMEMLIMIT below that of the cgroup", 1000, 1200, 100, 100, 900},
		{"GOMEMLIMIT and GOGC=off", 1000, 1200, 100, math.MaxUint64, 900},
		{"that of the cgroup, and as much garbage", none, 1100, 100, 100, 500},
		{"that of the cgroup, and little garbage", none, 1100, 100, 25, 800},
		{"that of the cgroup below GOMEMLIMIT", 2000, 1100, 100, 100, 500},
		{"that of the cgroup, and nobody collects", none, 1100, 100, math.MaxUint64, 0},
		{"all is taken by others", 1000, 0, 1500, 100, 1},
	} {
		if got := heapLimit(c.soft, c.hard, c.other, c.gogc); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestProcessMemory(t *testing.T) {
	before := debug.SetMemoryLimit(1 << 40)
	defer debug.SetMemoryLimit(before)
	read := processMemory()
	first := read()
	held := make([]byte, 64*mib)
	runtime.GC()
	got := read()
	if got.Used < 64*mib || got.Allocated < first.Allocated+64*mib {
		t.Errorf("%+v after %+v; want 64 MiB more allocated, and at least that in use", got, first)
	}
	if got.Limit > 1<<40 || got.Limit < 1<<39 && cgroupMemory(os.DirFS("/"))() == 0 {
		t.Errorf("limit %d, want GOMEMLIMIT less what is not the heap's", got.Limit)
	}
	runtime.KeepAlive(held)
	if n := testing.AllocsPerRun(100, func() { read() }); n > 0 {
		t.Errorf("%v allocations a reading, want none", n)
	}
}

func TestCgroupMemory(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"no cgroups": {nil, 0},
		"version 2 in a container": {map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"proc/self/mountinfo":      "30 29 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/memory.max": "268435456\n",
		}, 256 * mib},
		"version 2, the least of all above": {map[string]string{
			"proc/self/cgroup":                     "0::/a.slice/b/c\n",
			"proc/self/mountinfo":                  "25 1 8:1 / / rw - ext4 /dev/root rw\n30 29 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/a.slice/b/c/memory.max": "max\n",
			"sys/fs/cgroup/a.slice/b/memory.max":   "1048576\n",
			"sys/fs/cgroup/a.slice/memory.max":     "2097152\n",
		}, mib},
		"version 2 without limit": {map[string]string{
			"proc/self/cgroup":           "0::/a\n",
			"proc/self/mountinfo":        "30 29 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/a/memory.max": "max\n",
		}, 0},
		"version 1": {map[string]string{
			"proc/self/cgroup":                             "5:cpu,cpuacct:/x\n4:memory:/x\n0::/y\n",
			"proc/self/mountinfo":                          "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "536870912\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/unified/y/memory.max":           "1\n",
		}, 512 * mib},
		"version 1 in a container, whose root is mounted": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"proc/self/mountinfo":                        "32 30 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n",
		}, mib},
		"of another namespace": {map[string]string{
			"proc/self/cgroup":         "0::/../../other\n",
			"proc/self/mountinfo":      "30 29 0:26 /mine /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/memory.max": "1048576\n",
		}, mib},
		"nonsense": {map[string]string{
			"proc/self/cgroup":         "0::/\nwhat\n:::\n",
			"proc/self/mountinfo":      "1 2\n - \n30 29 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/memory.max": "-5\n",
		}, 0},
	} {
		root := fstest.MapFS{}
		for file, text := range c.files {
			root[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := cgroupMemory(root)(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
