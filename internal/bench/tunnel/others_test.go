package tunnel

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	p, err := parseStat("4242 (a) (b 1 2) S 17 4242 17 0 -1 4194304 1 2 3 4 150 50 7 3 20 0 9 0 100 1 2\n")
	if err != nil || p != (process{pid: 4242, parent: 17, name: "a) (b 1 2", used: 2100 * time.Millisecond}) {
		t.Errorf("%+v %v", p, err)
	}
	if p, err = parseStat("13 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 0 9 0 0 20 0 1 0 5 0 0"); err != nil || !p.kernel {
		t.Errorf("%+v %v", p, err)
	}
	for _, bad := range []string{"", "1 (x) S", "x (y) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "1 (y) S 1 1 1 1 1 1 1 1 1 1 1 -1 1 1 1 1"} {
		if p, err := parseStat(bad); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

// Ours and the kernel's don't count; others do, also those that came and went.
func TestUsedByOthers(t *testing.T) {
	const s = time.Second
	before := []process{{pid: 1, used: 5 * s}, {pid: 2, kernel: true}, {pid: 10, parent: 1, used: s}, {pid: 20, parent: 1, used: 3 * s}, {pid: 21, parent: 20, used: 4 * s}, {pid: 30, parent: 10, used: s}}
	// 30 ended after another second and was waited for by 10; ours went on, so did the kernel.
	after := []process{{pid: 1, used: 5 * s}, {pid: 2, kernel: true, used: 9 * s}, {pid: 10, parent: 1, name: "make", used: 3 * s}, {pid: 20, parent: 1, used: 8 * s}, {pid: 21, parent: 20, used: 9 * s}}
	them, had := usedByOthers(before, 20)
	they, used := usedByOthers(after, 20)
	if used-had != s || busiest(them, they) != "make" || busiest(they, they) != "" {
		t.Errorf("%v, %q", used-had, busiest(them, they))
	}
	// A ring of parents (numbers used again while they are read) ends.
	usedByOthers([]process{{pid: 5, parent: 6}, {pid: 6, parent: 5}}, 20)
}

func TestDisturbance(t *testing.T) {
	for _, c := range []struct {
		others, steal, took time.Duration
		noisy               bool
	}{
		{0, 0, time.Second, false},
		{40 * time.Millisecond, 0, time.Second, false},
		{80 * time.Millisecond, 0, time.Second, true},
		{0, 200 * time.Millisecond, time.Second, true},
		{20 * time.Millisecond, 0, 100 * time.Millisecond, false}, // the grain of the counters
	} {
		if d := disturbance(c.others, c.steal, c.took); d.Load != c.noisy {
			t.Errorf("%+v: %+v", c, d)
		}
	}
}

// A process that isn't ours is seen: a child is, so its work may not count, but with
// another root it does.
func TestWatchSeesWork(t *testing.T) {
	w, err := beginWatch()
	if err != nil {
		t.Fatal(err)
	}
	list, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	_, elsewhere := usedByOthers(list, 1<<22)
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if list, err = processes(); err != nil {
		t.Fatal(err)
	}
	work := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if _, used := usedByOthers(list, 1<<22); used-elsewhere < work-tickError {
		t.Errorf("%v of work, %v were seen (process %d)", work, used-elsewhere, os.Getpid())
	}
	d, err := w.end()
	if err != nil || d.Others < 0 {
		t.Errorf("%+v %v", d, err)
	}
}
