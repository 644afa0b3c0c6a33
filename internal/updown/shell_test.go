package updown_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/updown"
)

// once runs a command for up and one for down by /bin/sh and returns what was told.
func once(t *testing.T, command string, o updown.Options) []string {
	t.Helper()
	var rec recorder
	o.Report = rec.options(t).Report
	r := updown.New(o)
	c := theChild()
	c.Updown = command
	r.Event(ike.ChildUp{SA: theSA(), Child: c})
	until(t, func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return slices.ContainsFunc(rec.notes, func(s string) bool { return strings.HasPrefix(s, "updown: up-client ") })
	})
	rec.mu.Lock()
	told := slices.Clone(rec.notes)
	rec.mu.Unlock()
	r.Close()
	return told
}

func TestShell(t *testing.T) {
	t.Setenv("SECRET_OF_THE_GATEWAY", "must not leak")
	out := filepath.Join(t.TempDir(), "env")
	t.Run("environment and descriptors", func(t *testing.T) {
		open, err := os.Create(filepath.Join(t.TempDir(), "of-the-gateway"))
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		told := once(t, "env > "+out+"; ls -l /proc/self/fd; echo to stderr >&2; exit 3", updown.Options{})
		if all := strings.Join(told, " "); strings.Contains(all, "of-the-gateway") || !strings.Contains(all, "0 -> /dev/null") {
			t.Errorf("descriptors: %q", told)
		}
		b, err := os.ReadFile(out)
		if err != nil || strings.Contains(string(b), "SECRET") || !strings.Contains(string(b), "PLUTO_PEER_CLIENT=10.2.0.0/16\n") {
			t.Errorf("%s %v", b, err)
		}
		for _, want := range []string{"updown: to stderr", "updown: up-client failed: exit status 3"} {
			if !slices.Contains(told, want) {
				t.Errorf("%q is missing in %q", want, told)
			}
		}
	})
	t.Run("an identity is no command", func(t *testing.T) {
		mark := filepath.Join(t.TempDir(), "mark")
		var rec recorder
		r := updown.New(updown.Options{Report: rec.options(t).Report})
		sa, c := theSA(), theChild()
		sa.RemoteID = fqdn("x; touch " + mark + "; $(touch " + mark + ") `touch " + mark + "`")
		c.Updown = "echo $PLUTO_PEER_ID"
		r.Event(ike.ChildUp{SA: sa, Child: c})
		until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.notes) == 2 })
		r.Close()
		if _, err := os.Stat(mark); err == nil {
			t.Error("the identity was run")
		}
	})
	t.Run("killed with its group", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		begin := time.Now()
		told := once(t, "sleep 100 & echo $! > "+pid+"; trap '' TERM INT; sleep 100", updown.Options{Timeout: 150 * time.Millisecond})
		if time.Since(begin) > 5*time.Second || !strings.Contains(strings.Join(told, "\n"), "up-client was killed: it took longer than 150ms") {
			t.Errorf("%v: %q", time.Since(begin), told)
		}
		b, _ := os.ReadFile(pid)
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { // dead, or dead and not yet collected by whoever took it over
			s, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
			return err != nil || strings.Contains(string(s), ") Z ")
		})
	})
	t.Run("what stays in the background", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		begin := time.Now()
		told := once(t, "sleep 20 & echo $! > "+pid+"; echo done", updown.Options{})
		if time.Since(begin) > 5*time.Second || !slices.Contains(told, "updown: done") || strings.Contains(strings.Join(told, " "), "failed") {
			t.Errorf("%v: %q", time.Since(begin), told)
		}
		b, _ := os.ReadFile(pid)
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || syscall.Kill(n, 0) != nil {
			t.Errorf("it was killed: %v", err)
		}
		_ = syscall.Kill(n, syscall.SIGKILL)
	})
	t.Run("bounded output", func(t *testing.T) {
		told := once(t, "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done", updown.Options{})
		if len(told) > 70 || !slices.Contains(told, "updown: 136 further lines were left out") || !slices.Contains(told, "updown: line 63") {
			t.Errorf("%d notes: %q", len(told), told)
		}
		told = once(t, `head -c 1300 /dev/zero | tr '\0' x; printf '\n\033[31mred\n%0512d\nlast' 7`, updown.Options{})
		x := "updown: " + strings.Repeat("x", 512)
		want := []string{x, x, "updown: " + strings.Repeat("x", 1300-1024), "updown: ?[31mred", "updown: " + fmt.Sprintf("%0512d", 7), "updown: last"}
		if len(told) < 6 || !slices.Equal(told[:6], want) {
			t.Errorf("%q", told)
		}
	})
	t.Run("no such command", func(t *testing.T) {
		if told := once(t, "/nowhere/script", updown.Options{}); !strings.Contains(strings.Join(told, "\n"), "up-client failed: exit status 127") {
			t.Errorf("%q", told)
		}
	})
}

// The device is that of our own address.
func TestInterface(t *testing.T) {
	for addr, want := range map[string]string{"127.0.0.1:500": "lo", "203.0.113.77:500": "unknown"} {
		sa := theSA()
		sa.Local = netip.MustParseAddrPort(addr)
		var rec recorder
		o := rec.options(t)
		o.Device = nil
		r := updown.New(o)
		r.Event(ike.ChildUp{SA: sa, Child: theChild()})
		until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 1 })
		r.Close()
		if got := rec.of("PLUTO_INTERFACE"); !slices.Equal(got, []string{want, want}) {
			t.Errorf("%s: %q, not %s", addr, got, want)
		}
	}
}
