package tun_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"adit/internal/kernel"
	"adit/tun"
)

// held are the kernel's objects that the process has descriptors of or memory from.
type held struct {
	descriptors, mappings int
	programs, maps        []uint32 // their numbers
}

func holds(t *testing.T) (h held) {
	t.Helper()
	runtime.GC() // what others left to finalizers
	list, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(list)
	for _, name := range list {
		b, _ := os.ReadFile(name)
		for line := range strings.Lines(string(b)) {
			var id uint32
			if n, _ := fmt.Sscanf(line, "prog_id: %d", &id); n == 1 {
				h.programs = append(h.programs, id)
			}
			if n, _ := fmt.Sscanf(line, "map_id: %d", &id); n == 1 {
				h.maps = append(h.maps, id)
			}
		}
	}
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	h.mappings = strings.Count(string(b), "bpf-map")
	return h
}

// exists asks the kernel for a program or a map by its number.
func exists(t *testing.T, command uintptr, id uint32) bool {
	t.Helper()
	attr := [16]uint32{id}
	fd, _, e := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if e == 0 {
		unix.Close(int(fd))
	} else if e != unix.ENOENT {
		t.Fatal(e)
	}
	return e == 0
}

// gone waits until the kernel has no such programs and maps any more.
func gone(t *testing.T, programs, maps []uint32) {
	t.Helper()
	if len(programs) == 0 || len(maps) == 0 {
		t.Error("there was no program, or no map")
	}
	for command, list := range map[uintptr][]uint32{unix.BPF_PROG_GET_FD_BY_ID: programs, unix.BPF_MAP_GET_FD_BY_ID: maps} {
		for _, id := range list {
			for end := time.Now().Add(5 * time.Second); exists(t, command, id); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("number %d of %v is still there", id, list)
					return
				}
			}
		}
	}
}

// TestRingLeavesNothing makes and closes devices: no descriptor, memory, program or map is
// left.
func TestRingLeavesNothing(t *testing.T) {
	if !kernel.AtLeast(6, 6) {
		t.Skip("the kernel has no tcx")
	}
	inNamespace(t, func() {
		before := holds(t)
		for n := range 20 {
			dev, err := tun.CreateTUN("", tun.Options{Ring: true, Queues: n % 3}) // with two there is no ring
			if err != nil {
				t.Fatal(err)
			}
			if (dev.RingError() != nil) != (n%3 == 2) {
				t.Errorf("%d queues: %v", n%3, dev.RingError())
			}
			during := holds(t)
			if (during.mappings == before.mappings+3) != (n%3 != 2) {
				t.Errorf("%+v with a device of %d queues, %+v before", during, n%3, before)
			}
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
			if n%3 != 2 {
				gone(t, during.programs, during.maps)
			}
			if t.Failed() {
				return
			}
			if after := holds(t); after.descriptors != before.descriptors || after.mappings != before.mappings {
				t.Fatalf("%+v after device %d, %+v before", after, n, before)
			}
		}
	})
}

// TestRingKilled: nothing is left either of a process that is killed.
func TestRingKilled(t *testing.T) {
	const role = "ADIT_TEST_RING_OWNER"
	if !kernel.AtLeast(6, 6) {
		t.Skip("the kernel has no tcx")
	}
	if os.Getenv(role) != "" {
		inNamespace(t, func() {
			dev, err := tun.CreateTUN("", tun.Options{Ring: true})
			if err != nil || dev.RingError() != nil {
				t.Fatal(err, dev.RingError())
			}
			h := holds(t)
			fmt.Println("holds", h.programs[0], h.maps[0])
			_, _ = os.Stdin.Read(make([]byte, 1)) // until the end
			dev.Close()
		})
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	owner := exec.Command(os.Args[0], "-test.run=^TestRingKilled$")
	owner.Env = append(os.Environ(), role+"=1")
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var programs, maps [1]uint32
	line, err := bufio.NewReader(out).ReadString('\n')
	if n, _ := fmt.Sscanf(line, "holds %d %d", &programs[0], &maps[0]); n != 2 {
		t.Errorf("%q: %v", line, err)
	} else if !exists(t, unix.BPF_PROG_GET_FD_BY_ID, programs[0]) {
		t.Error("no program while its owner lives")
	}
	_ = owner.Process.Kill()
	_ = owner.Wait()
	if !t.Failed() {
		gone(t, programs[:], maps[:])
	}
}

// TestRingRefused: without the right to load programs, and with several queues, there is a
// device, and words that say what it lacks.
func TestRingRefused(t *testing.T) {
	if !kernel.AtLeast(6, 6) {
		t.Skip("the kernel has no tcx")
	}
	for name, c := range map[string]struct {
		opts tun.Options
		drop []int
		says string
	}{
		"without CAP_BPF":       {tun.Options{Ring: true}, []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}, "CAP_BPF"},
		"with CAP_BPF":          {tun.Options{Ring: true}, []int{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}, ""},
		"several queues":        {tun.Options{Ring: true, Queues: 2}, nil, "several queues"},
		"a queue to be added":   {tun.Options{Ring: true, MultiQueue: true}, nil, "several queues"},
		"without a header":      {tun.Options{Ring: true, NoOffload: true}, nil, "virtio header"},
		"nobody asks":           {tun.Options{}, []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}, ""},
		"nobody asks, 2 queues": {tun.Options{Queues: 2}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() {
				var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				var data [2]unix.CapUserData
				if err := unix.Capget(&header, &data[0]); err != nil {
					t.Fatal(err)
				}
				for _, c := range c.drop {
					data[c/32].Effective &^= 1 << (c % 32)
				}
				if err := unix.Capset(&header, &data[0]); err != nil {
					t.Fatal(err)
				}
				dev, err := tun.CreateTUN("", c.opts)
				if err != nil {
					t.Fatal(err)
				}
				defer dev.Close()
				ringless := dev.RingError()
				if (ringless != nil) != (c.says != "") || ringless != nil && !strings.Contains(ringless.Error(), c.says) {
					t.Errorf("%v, want %q", ringless, c.says)
				}
				if (dev.RestFD() >= 0) != (c.opts.Ring && ringless == nil) || !dev.Rest() {
					t.Errorf("its ring is %d: %v", dev.RestFD(), ringless)
				}
				address(t, dev.Name(), "10.9.0.1/24")
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				if err := unix.Sendto(fd, payload(100), 0, &unix.SockaddrInet4{Port: 9, Addr: far4.As4()}); err != nil {
					t.Fatal(err)
				}
				if len(dev.Queues()) > 1 {
					return // it is in one of them
				}
				bufs, sizes := buffers(1, 2000)
				for sizes[0] != 128 {
					if _, err := dev.Read(bufs, sizes, 0); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}
