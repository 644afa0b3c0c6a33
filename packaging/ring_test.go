package packaging_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/internal/kernel"
	"golang.org/x/sys/unix"

	"adit/interop/lab"
)

// oneWorker is a strongswan.conf: only the device of one worker has a ring.
const oneWorker = "adit {\n  workers = 1\n}\n"

// noRing is what the log says where single packets go by the device's queue.
const noRing = "single packets go by the device's queue"

// TestLackOfBPFIsExplained: what the log says, and why, is on the page where people look.
func TestLackOfBPFIsExplained(t *testing.T) {
	root(t)
	if !kernel.AtLeast(6, 6) {
		t.Skip("skipped: the kernel has no tcx")
	}
	l := lab.ForTest(t, "pkin", lab.Options{})
	said := runImage(t, l, 1<<unix.CAP_NET_ADMIN).said
	for line := range strings.Lines(said.String()) {
		if _, message, _ := strings.Cut(line, " "); strings.Contains(line, noRing) {
			if !strings.Contains(read(t, "../docs/troubleshooting.md"), message) {
				t.Errorf("no page has %s", message)
			}
			return
		}
	}
	t.Errorf("the log says nothing:\n%s", said)
}

// singlePackets sends packets from the host at the left to that at the right, and demands
// that none is lost and most of them come by the ring, of which the device's counter knows
// nothing, or all of them by the device.
func singlePackets(t *testing.T, l *lab.Lab, said *output, ring bool) {
	t.Helper()
	if ring && !kernel.AtLeast(6, 6) {
		t.Log("not looked at: the kernel has no tcx")
		return
	}
	if strings.Contains(said.String(), noRing) == ring {
		t.Errorf("with the ring %v the log says\n%s", ring, said)
	}
	before := sentInto(t, l)
	f, err := l.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: l.L.Host4, Dst: l.R.Host4, Rate: 5000, Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	r := f.Stop()
	device := sentInto(t, l) - before
	if r.Sent < 1000 || r.Lost() != 0 || r.Reordered != 0 || r.Corrupt != 0 {
		t.Errorf("the flow: %v", r)
	}
	if ring && device > r.Sent/2 || !ring && device < r.Sent {
		t.Errorf("with the ring %v, %d of %d packets went by the device", ring, device, r.Sent)
	}
}

// ringFull holds the gateway for a second while packets come, so that the ring is full, and
// demands that status tells how many were lost.
func ringFull(t *testing.T, l *lab.Lab, pid int, uri string) {
	t.Helper()
	if !kernel.AtLeast(6, 6) {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f, err := l.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: l.L.Host4, Dst: l.R.Host4, Rate: 50_000, Size: 100})
	if err == nil {
		time.Sleep(time.Second)
	}
	if err := errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	r := f.Stop()
	status := inNode(t, l, lab.Left, binary(t), "status", "--vici", uri)
	var full uint64
	if _, after, ok := strings.Cut(status, "out-ring-full "); ok {
		_, _ = fmt.Sscan(after, &full)
	}
	// What the gateway had to do at once afterwards, others may have had no room for.
	if full < 1000 || full > r.Lost() {
		t.Errorf("%v; status says\n%s", r, status)
	}
}

// sentInto is the number of packets that the kernel counted when it sent them into adit0.
func sentInto(t *testing.T, l *lab.Lab) uint64 {
	t.Helper()
	var links []struct {
		Stats64 struct{ TX struct{ Packets uint64 } }
	}
	out := inNode(t, l, lab.Left, "ip", "-s", "-j", "link", "show", "adit0")
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return links[0].Stats64.TX.Packets
}

// hasCaps demands the sets of all threads of a process: those of the service once it runs.
func hasCaps(t *testing.T, pid string, want ...string) {
	t.Helper()
	for _, task := range tasks(t, pid) {
		if got := capsOf(read(t, task)); !slices.Equal(got, want) {
			t.Errorf("a thread has %q, want %q", got, want)
		}
	}
}

// tasks are the statuses of a process's threads.
func tasks(t *testing.T, pid string) []string {
	t.Helper()
	list, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil || len(list) < 3 {
		t.Fatalf("the threads of %s: %v, %v", pid, list, err)
	}
	return list
}

// capsOf are the sets in a status of /proc: inheritable, permitted, effective, bounding, ambient.
func capsOf(status string) (sets []string) {
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[0], "Cap") {
			sets = append(sets, strings.TrimLeft(f[1], "0"))
		}
	}
	return sets
}

// capsAre writes down sets as capsOf finds them: all have the first but the bounding set.
func capsAre(sets, bounding uint64) []string {
	s, b := fmt.Sprintf("%x", sets), fmt.Sprintf("%x", bounding)
	return []string{s, s, s, b, s}
}
