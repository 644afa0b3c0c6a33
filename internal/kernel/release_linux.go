package kernel

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ReleaseProgram gives back the memory of the program's own file that is mapped: after the
// start most of what was read of it isn't needed any more. What is comes back with the next
// access, from the page cache; only pages that were never written are given up. It returns
// the number of bytes of the mappings.
func ReleaseProgram() (n int) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0
	}
	for _, m := range mappings(string(maps), path) {
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); e == 0 {
			n += int(m.to - m.from)
		}
	}
	return n
}

type mapping struct{ from, to uintptr }

// mappings are those of a file that can't be written, and whose pages are all the file's.
func mappings(smaps, path string) (list []mapping) {
	var m mapping
	for line := range strings.Lines(smaps) {
		switch first, rest, _ := strings.Cut(line, " "); {
		case first == "Anonymous:" || first == "Swap:":
			// A page that was written is a copy of its own, in memory or swapped out. Dropped,
			// it would be the file's again.
			if strings.TrimSpace(rest) != "0 kB" {
				m = mapping{}
			}
			if m.to != 0 && first == "Swap:" { // the later one
				list = append(list, m)
			}
		case strings.HasSuffix(first, ":"):
		case strings.TrimSpace(line[max(strings.LastIndexByte(line, ' '), 0):]) == path:
			m = mappingOf(first, rest)
		default:
			m = mapping{}
		}
	}
	return list
}

// mappingOf is a mapping that can't be written and is the process's own; else nothing.
func mappingOf(addrs, rest string) mapping {
	from, to, _ := strings.Cut(addrs, "-")
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	if err1 != nil || err2 != nil || a >= b || len(rest) < 4 || rest[1] != '-' || rest[3] != 'p' {
		return mapping{}
	}
	return mapping{uintptr(a), uintptr(b)}
}
