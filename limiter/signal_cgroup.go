package limiter

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// cgroupMemory finds the cgroups that bound the memory of this process, its own and those around it, and returns what
// reads the least limit: 0 if there is none. root is that of the file system. See cgroups(7).
func cgroupMemory(root fs.FS) func() uint64 {
	files := cgroupFiles(root)
	return func() uint64 {
		least := uint64(0)
		for _, file := range files {
			text, err := fs.ReadFile(root, file)
			if err != nil {
				continue
			}
			limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63) // "max" is none
			if err == nil && limit < unlimited && (least == 0 || limit < least) {
				least = limit
			}
		}
		return least
	}
}

// unlimited is less than what version 1 shows where there is no limit: the pages that 63 bits can count.
const unlimited = 1 << 60

// cgroupFiles returns the files that hold the limits. Where both versions are mounted, the memory belongs to version 1 if
// that has a controller for it.
func cgroupFiles(root fs.FS) []string {
	v1, v2 := cgroupPaths(root)
	var files []string
	mounts, _ := fs.ReadFile(root, "proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		mount, system, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(mount), strings.Fields(system)
		if len(left) < 5 || len(right) < 3 {
			continue
		}
		switch {
		case right[0] == "cgroup" && v1 != "" && hasOption(right[2], "memory"):
			files = upwards(left[4], left[3], v1, "memory.limit_in_bytes")
		case right[0] == "cgroup2" && v1 == "" && v2 != "":
			files = upwards(left[4], left[3], v2, "memory.max")
		}
	}
	return files
}

// cgroupPaths returns the process's cgroup in the hierarchy of version 1 that has memory, and that in version 2.
func cgroupPaths(root fs.FS) (v1, v2 string) {
	groups, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "0" && fields[1] == "":
			v2 = fields[2]
		case hasOption(fields[1], "memory"):
			v1 = fields[2]
		}
	}
	return v1, v2
}

func hasOption(list, option string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == option {
			return true
		}
	}
	return false
}

// upwards returns the file in the directory of a cgroup and in all above it, up to where its hierarchy is mounted. In
// a container, mounted is often the cgroup itself: its root then says which.
func upwards(mount, mounted, group, file string) []string {
	mount = strings.TrimPrefix(path.Clean(mount), "/")
	inside, ok := strings.CutPrefix(group, strings.TrimSuffix(mounted, "/"))
	if !ok || inside != "" && inside[0] != '/' {
		inside = "" // of another namespace
	}
	var files []string
	for dir := path.Clean("/" + inside); ; dir = path.Dir(dir) {
		files = append(files, path.Join(mount, dir, file))
		if dir == "/" {
			return files
		}
	}
}
