package packaging_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterArg makes the test's binary what systemd is between fork and exec: it puts
// itself under a filter of system calls and becomes another program:
// launch filterArg FILTER PROGRAM ARGUMENT...
const filterArg = "exec-under-filter"

// filter is what the unit allows, as numbers of this machine.
type filter struct {
	Calls    []uint32 // SystemCallFilter=
	Families []uint32 // RestrictAddressFamilies=
	WX       bool     // MemoryDenyWriteExecute=: the calls below are looked at
}

// unitFilter reads the filter out of the unit. Groups are those of systemd itself.
func unitFilter(t *testing.T) filter {
	t.Helper()
	numbers := callNumbers(t)
	allowed := group(t, "@default")
	for _, line := range settings(t, "adit.service", "SystemCallFilter") {
		names, not := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(names) {
			for call := range group(t, name) {
				if not {
					delete(allowed, call)
				} else {
					allowed[call] = true
				}
			}
		}
	}
	var f filter
	for name := range allowed {
		if n, ok := numbers[name]; ok { // others are of other machines
			f.Calls = append(f.Calls, n)
		}
	}
	if len(f.Calls) < 150 || len(f.Calls) > 300 {
		t.Fatalf("the unit allows %d system calls", len(f.Calls))
	}
	slices.Sort(f.Calls)
	families := map[string]uint32{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK}
	for _, name := range strings.Fields(settings(t, "adit.service", "RestrictAddressFamilies")[0]) {
		n, ok := families[name]
		if !ok {
			t.Fatalf("what is %s?", name)
		}
		f.Families = append(f.Families, n)
	}
	f.WX = settings(t, "adit.service", "MemoryDenyWriteExecute")[0] == "yes"
	return f
}

// group is a set of system calls of systemd, or the one call of that name.
func group(t *testing.T, name string) map[string]bool {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return map[string]bool{name: true}
	}
	found := map[string]bool{}
	for line := range strings.Lines(command(t, "systemd-analyze", "syscall-filter", name)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line == name || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "@"):
			for call := range group(t, line) {
				found[call] = true
			}
		default:
			found[line] = true
		}
	}
	if len(found) == 0 {
		t.Fatalf("systemd knows no group %s", name)
	}
	return found
}

var callNumber = regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*=\s*(\d+)`)

// callNumbers are this machine's system calls, as golang.org/x/sys lists them.
func callNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	dir := strings.TrimSpace(command(t, "go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys"))
	numbers := map[string]uint32{}
	for _, m := range callNumber.FindAllStringSubmatch(read(t, filepath.Join(dir, "unix", "zsysnum_linux_"+runtime.GOARCH+".go")), -1) {
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[strings.ToLower(m[1])] = uint32(n)
	}
	return numbers
}

// underFilter returns only if something went wrong.
func underFilter(args []string) error {
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var f filter
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	program, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	code := f.program()
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return unix.Exec(program, args[1:], os.Environ())
}

// Offsets in struct seccomp_data; arguments are little-endian here.
const (
	offNr   = 0
	offArch = 4
	offArg  = 16
)

// program is the filter for the kernel. A call that is not allowed is a trap: Go ends
// with the call and its stack, where the unit's EPERM might be passed over in silence.
func (f filter) program() (code []unix.SockFilter) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	load := func(off uint32) {
		code = append(code, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off})
	}
	ret := func(k uint32) { code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}) }
	// jump goes on with the next instruction if equal, else leaves out skip.
	jump := func(k uint32, skip int) {
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(skip)})
	}
	load(offArch)
	code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch, Jt: 1})
	ret(unix.SECCOMP_RET_KILL_PROCESS)
	load(offNr)
	// Calls whose arguments count.
	jump(unix.SYS_SOCKET, 2*len(f.Families)+2)
	load(offArg)
	for _, family := range f.Families {
		jump(family, 1)
		ret(unix.SECCOMP_RET_ALLOW)
	}
	ret(unix.SECCOMP_RET_TRAP)
	if f.WX {
		for nr, bits := range map[uint32]uint32{unix.SYS_MMAP: unix.PROT_WRITE | unix.PROT_EXEC, unix.SYS_MPROTECT: unix.PROT_EXEC} {
			jump(nr, 5)
			load(offArg + 2*8)
			code = append(code, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: bits})
			jump(bits, 1)
			ret(unix.SECCOMP_RET_TRAP)
			ret(unix.SECCOMP_RET_ALLOW)
		}
	}
	for _, nr := range f.Calls {
		jump(nr, 1)
		ret(unix.SECCOMP_RET_ALLOW)
	}
	// The one call that may fail: a short time slice is good to have (docs/performance.md).
	jump(unix.SYS_SCHED_SETATTR, 1)
	ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	ret(unix.SECCOMP_RET_TRAP)
	return code
}
