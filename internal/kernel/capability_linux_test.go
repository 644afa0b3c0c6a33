package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inChild names what the process that a test starts has to do.
const inChild = "ADIT_KERNEL_CHILD"

// sets are the lines of a status of /proc that tell of capabilities.
func sets(t *testing.T, status string) string {
	t.Helper()
	var s string
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "Cap") {
			s += strings.Join(strings.Fields(line), "") + " "
		}
	}
	if strings.Count(s, "Cap") != 5 {
		t.Fatalf("the sets are %q", s)
	}
	return strings.TrimSpace(s)
}

// child runs this program as another user with some capabilities, which programs it starts
// have as well, and returns what it said.
func child(t *testing.T, uid uint32, caps ...uintptr) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root, for capabilities of a process of its own")
	}
	dir, err := os.MkdirTemp("", "adit-kernel-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	path := filepath.Join(dir, "test")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.run=^TestChild$", "-test.v")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), inChild+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, AmbientCaps: caps}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestChild is the other process of the tests below.
func TestChild(t *testing.T) {
	if os.Getenv(inChild) == "" {
		t.Skip("skipped: a part of TestGiveUp")
	}
	hold := make(chan struct{})
	defer close(hold)
	var ready = make(chan struct{})
	for range 4 { // threads of their own, as the data plane's
		go func() {
			runtime.LockOSThread()
			ready <- struct{}{}
			<-hold
		}()
	}
	for range 4 {
		<-ready
	}
	say := func(when string) {
		tasks, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil || len(tasks) < 5 {
			t.Fatal(len(tasks), err)
		}
		for _, task := range tasks {
			if b, err := os.ReadFile(task); err == nil { // else it has ended
				fmt.Println(when, "thread", sets(t, string(b)))
			}
		}
	}
	say("before")
	given, err := GiveUp(unix.CAP_BPF)
	fmt.Println("given", given, errors.Is(err, ErrThreads), err)
	say("after")
	b, err := exec.Command("/bin/cat", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("after", "program", sets(t, string(b)))
	again, err := GiveUp(unix.CAP_BPF)
	fmt.Println("again", again, err)
}

// with are the sets of a thread that has inherited and permitted all of some.
func with(caps, bound uint64) string {
	return fmt.Sprintf("CapInh:%016[1]x CapPrm:%016[1]x CapEff:%016[1]x CapBnd:%016[2]x CapAmb:%016[1]x", caps, bound)
}

// TestGiveUp takes a capability from all threads of a process, and from what it starts.
func TestGiveUp(t *testing.T) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var bound uint64
	if _, after, ok := strings.Cut(sets(t, string(own)), "CapBnd:"); ok {
		_, _ = fmt.Sscanf(after, "%x", &bound)
	}
	const (
		admin  = 1 << unix.CAP_NET_ADMIN
		setp   = 1 << unix.CAP_SETPCAP
		bpf    = 1 << unix.CAP_BPF
		sys    = 1 << unix.CAP_SYS_ADMIN
		nobody = 65534
	)
	for _, c := range []struct {
		name          string
		caps          []uintptr
		before, after string
		given         bool
	}{
		{"service", []uintptr{unix.CAP_NET_ADMIN, unix.CAP_BPF}, with(admin|bpf, bound), with(admin, bound), true},
		{"bounding", []uintptr{unix.CAP_SETPCAP, unix.CAP_BPF}, with(setp|bpf, bound), with(setp, bound&^bpf), true},
		{"bounding alone", []uintptr{unix.CAP_SETPCAP}, with(setp, bound), with(setp, bound&^bpf), true},
		{"nothing", []uintptr{unix.CAP_NET_ADMIN}, with(admin, bound), with(admin, bound), false},
		{"administrator", []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_BPF}, with(sys|bpf, bound), with(sys|bpf, bound), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := child(t, nobody, c.caps...)
			if strings.Contains(out, "given false true") {
				if !racing() {
					t.Errorf("it is not taken:\n%s", out)
				}
				t.Skip("skipped: the race detector is built with cgo")
			}
			if want := fmt.Sprintf("given %v false <nil>\n", c.given); !strings.Contains(out, want) {
				t.Errorf("no %q", want)
			}
			if !strings.Contains(out, "again false <nil>\n") {
				t.Error("the second time it is taken again")
			}
			for line := range strings.Lines(out) {
				want, when := c.before, "before"
				if strings.HasPrefix(line, "after ") {
					want, when = c.after, "after"
				}
				if rest, ok := strings.CutPrefix(line, when+" "); ok {
					if _, have, _ := strings.Cut(strings.TrimSpace(rest), " "); have != want {
						t.Errorf("%s: have %s, want %s", when, have, want)
					}
				}
			}
			if strings.Count(out, "\nafter thread") < 5 || strings.Count(out, "\nafter program") != 1 || t.Failed() {
				t.Errorf("it said\n%s", out)
			}
		})
	}
}

// racing tells whether this is built with the race detector.
func racing() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}
