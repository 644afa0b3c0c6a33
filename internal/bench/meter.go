package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"adit/interop/lab"
)

// CPUTime is the user and system time of all threads of a process so far: the sum
// that /proc/PID/stat has in ticks, to the nanosecond.
func CPUTime(pid int) (time.Duration, error) {
	// The clock of another process (clock_getcpuclockid(3)): the complement of its
	// number, and 2 for the scheduler's clock.
	clock := int32(^pid<<3 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Resident is the VmRSS of a process in bytes.
func Resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseRSS(string(b))
}

func parseRSS(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS in the status of the process")
}

const (
	// quietStep is how often the responder is looked at, quietShare what it may use
	// of a core to be called idle, quietMost how long that is waited for.
	quietStep  = 250 * time.Millisecond
	quietShare = 0.02
	quietMost  = 30 * time.Second
)

// quiet waits until the process is idle.
func quiet(ctx context.Context, pid int) error {
	last, err := CPUTime(pid)
	if err != nil {
		return err
	}
	end := time.Now().Add(quietMost)
	for idle := 0; idle < 3; {
		if err := pause(ctx, quietStep); err != nil {
			return err
		}
		now, err := CPUTime(pid)
		if err != nil {
			return err
		}
		if idle++; float64(now-last) > quietShare*float64(quietStep) {
			idle = 0
		}
		last = now
		if time.Now().After(end) {
			return fmt.Errorf("process %d does not come to rest", pid)
		}
	}
	return nil
}

// settled waits for the memory to settle and reads it.
func settled(ctx context.Context, pid int, after time.Duration) (int64, error) {
	if err := pause(ctx, after); err != nil {
		return 0, err
	}
	return Resident(pid)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// routes counts the responder's distinct routes to single inner addresses of ours.
func routes(l *lab.Lab) (int, error) {
	out, err := l.Exec(time.Minute, lab.Right, "ip", "-4", "route", "show", "table", "all")
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		if dst, _, _ := strings.Cut(line, " "); strings.HasPrefix(dst, innerPrefix) {
			seen[dst] = true
		}
	}
	return len(seen), nil
}
