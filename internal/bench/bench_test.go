package bench

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"too many":        {SAs: []int{MaxSAs + 1}},
		"none":            {SAs: []int{0}},
		"authentication":  {Auth: []string{"xauth"}},
		"peer":            {Peers: []string{"iked"}},
		"rounds":          {Rounds: -1},
		"all at once":     {Parallel: 1 << 20},
		"backwards round": {Rounds: 101},
	} {
		if err := o.complete(); err == nil {
			t.Errorf("%s: %+v was taken", name, o)
		}
	}
	var o Options
	if err := o.complete(); err != nil || len(o.SAs) != 2 || o.Rounds != 3 || o.Binary == "" {
		t.Errorf("%+v %v", o, err)
	}
}

// The process clock of another process is what its /proc says.
func TestCPUTime(t *testing.T) {
	// Until the kernel's other account of us has grown by as much, however busy the machine is.
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for start := used(); used() < start+30*time.Millisecond; {
	}
	d, err := CPUTime(os.Getpid())
	if err != nil || d < 20*time.Millisecond || d > time.Minute {
		t.Errorf("%v %v", d, err)
	}
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("a process that is not there has a clock")
	}
	if n, err := Resident(os.Getpid()); err != nil || n < 1<<20 || n > 1<<33 {
		t.Errorf("%d %v", n, err)
	}
	if _, err := parseRSS("Name: x\n"); err == nil {
		t.Error("no VmRSS is no error")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := quiet(ctx, os.Getpid()); err == nil {
		t.Error("quiet goes on after its context ended")
	}
}

// Medians count, and adit is compared with charon of the same row.
func TestTable(t *testing.T) {
	var all []Sample
	for i, cpu := range []time.Duration{300, 900, 400} {
		all = append(all, Sample{Auth: "psk", Peer: "adit", SAs: 1000, CPU: cpu * time.Millisecond, Wall: time.Second, Base: 10e6, Resident: int64(20+i) * 1e6, Routes: 1000})
		all = append(all, Sample{Auth: "psk", Peer: "charon", SAs: 1000, CPU: 2 * cpu * time.Millisecond, Wall: time.Second, Base: 10e6, Resident: 42e6, Routes: 1000})
	}
	var b strings.Builder
	printTable(&b, all)
	for _, want := range []string{"0.400", "2500", "21.0", "0.800", "1250", "42.0", "11.0", "32.0", "2.00 times charon's set-ups a second and core, in 0.50 times its memory"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// All inner addresses differ and lie in the network that the responder's
// configuration offers.
func TestInitiatorsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for i := range MaxSAs {
		a := inner(i)
		if seen[a.String()] || !strings.HasPrefix(a.String(), innerPrefix) {
			t.Fatalf("%d: %v", i, a)
		}
		seen[a.String()] = true
	}
	id, err := initiatorID(MaxSAs - 1)
	if err != nil || id.String() != "peer-64999.bench.example" {
		t.Errorf("%v %v", id, err)
	}
}
