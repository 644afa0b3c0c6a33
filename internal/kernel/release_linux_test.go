package kernel

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func fileMemory(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "RssFile:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}

// TestReleaseProgram reads all of the program's pages, gives them back, and goes on.
func TestReleaseProgram(t *testing.T) {
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	list := mappings(string(maps), path)
	if len(list) == 0 {
		t.Fatalf("no mapping of %s is found in\n%s", path, maps)
	}
	before := fileMemory(t)
	n := ReleaseProgram()
	after := fileMemory(t)
	if n == 0 || after >= before {
		t.Errorf("of %d bytes given back, RssFile is %d kB after %d", n, after, before)
	}
}

func TestMappings(t *testing.T) {
	const smaps = `00400000-00600000 r-xp 00000000 08:01 12 /bin/x
Rss:                 800 kB
Anonymous:             0 kB
Swap:                  0 kB
00600000-00640000 r--p 00000000 08:01 12 /bin/x
Rss:                 800 kB
Anonymous:             4 kB
Swap:                  0 kB
00640000-00700000 r--p 00000000 08:01 12 /bin/x
Rss:                 800 kB
Anonymous:             0 kB
Swap:                  4 kB
00700000-00800000 rw-p 00000000 08:01 12 /bin/x
Anonymous:             0 kB
Swap:                  0 kB
00800000-00900000 r--p 00000000 08:01 12 /bin/other
Anonymous:             0 kB
Swap:                  0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
`
	if got := mappings(smaps, "/bin/x"); len(got) != 1 || got[0] != (mapping{0x400000, 0x600000}) {
		t.Errorf("%x: only the first can't be written and was never", got)
	}
}
