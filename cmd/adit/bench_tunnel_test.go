package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/internal/bench/tunnel"
	"adit/suite"
)

// The benchmark measures the path with and without adit, and everything that it writes
// is whole. The figures of so short a run mean nothing.
func TestBenchTunnel(t *testing.T) {
	if os.Geteuid() != 0 {
		if out, code := program(nil, "bench", "tunnel"); code == 0 || !strings.Contains(out, "needs root") {
			t.Errorf("%d %s", code, out)
		}
		t.Skip("needs root: network namespaces")
	}
	dir := t.TempDir()
	file, plot := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg")
	out, code := program(nil, "bench", "tunnel", "--quick", "--seconds", "0.1", "--contenders", "plain,adit", "--json", file, "--svg", plot)
	if code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	for _, w := range []string{"round 1 of 1, adit\n", "Throughput between the hosts", "plain ", "AES-256-GCM (" + suite.AESGCM() + ")", "2 files had the same SHA-256 at both ends"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in:\n%s", w, out)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	checkBenchJSON(t, b)
	if b, err = os.ReadFile(plot); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(b)))
	for err == nil {
		_, err = d.Token()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the drawing is no XML: %v", err)
	}
}

// A storm of set-ups beside a tunnel, and the tunnel among the SAs that it leaves.
func TestBenchTunnelBesideSetups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	out, code := program(nil, "bench", "tunnel", "--quick", "--contenders", "plain,adit", "--measures", "rtt_storm,tcp1_many_lr,rss_flood")
	if code != 0 || !regexp.MustCompile(`(?m)^adit +[1-9]\d*!? +\d+!? +\d+!? +\d\.\d\d!? +- +- +[1-9]\d*!? +[1-9]\d*!? +[1-9]\d*!?$`).MatchString(out) || !strings.Contains(out, "\n3 measurements") {
		t.Errorf("code %d\n%s", code, out)
	}
}

// checkBenchJSON looks for what a reader of the file relies on.
func checkBenchJSON(t *testing.T, text []byte) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	var r tunnel.Result
	if err := d.Decode(&r); err != nil || r.Schema != tunnel.Schema {
		t.Fatalf("schema %q: %v", r.Schema, err)
	}
	if r.Machine.CPU == "" || r.Machine.Cores == 0 || r.Machine.Kernel == "" || r.Started.IsZero() || r.Ended.Before(r.Started) || len(r.Failures) != 0 || len(r.Goals) == 0 {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Contenders {
		keys := []string{"rtt_idle.p50_us", "rtt_idle.p99_us", "rtt_paused.p50_us", "rtt_loaded.p99_us", "tcp1_lr.gbit_s", "tcp1_rl.gbit_s",
			"tcp4_lr.gbit_s", "tcp4_rl.gbit_s", "udp64.kpps", "udp512.kpps", "udp1300.kpps", "udp1300.mbit_s", "udp64_trains.kpps", "udp1300_trains.kpps", "file.bytes"}
		if c.Name == "adit" {
			keys = append(keys, "tcp1_lr.cpu_s_per_gb", "rss.mb")
			if c.Version == "" || c.Cipher == "" {
				t.Errorf("adit has version %q, cipher %q", c.Version, c.Cipher)
			}
		}
		for _, k := range keys {
			// So short a train may be lost by chance, however slow.
			if s := c.Medians[k]; !(s.Median > 0) && !strings.Contains(k, "trains") || s.N != 1 || s.Min > s.Median || s.Max < s.Median {
				t.Errorf("%s, %s: %+v", c.Name, k, s)
			}
		}
	}
	for _, s := range r.Samples {
		if s.Round != 1 || s.Place < 1 || s.Measure == "" || s.Measure == "file" && len(s.SHA256) != 64 || strings.HasPrefix(s.Measure, "udp") && (len(s.Trials) == 0 || s.Result == nil) {
			t.Errorf("%+v", s)
		}
	}
}

func TestBenchTunnelOptions(t *testing.T) {
	for want, args := range map[string][]string{
		"known are plain, adit":   {"--contenders", "pptp"},
		"named twice":             {"--contenders", "adit,adit"},
		"known are rtt_idle":      {"--measures", "speed"},
		"1 to 100 rounds":         {"--rounds", "1000"},
		"no such file or directo": {"--json", "/nowhere/at/all"},
	} {
		if os.Geteuid() != 0 && strings.HasPrefix(want, "no such") {
			continue
		}
		if out, code := program(nil, append([]string{"bench", "tunnel"}, args...)...); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%v: code %d, no %q in %s", args, code, want, out)
		}
	}
}

// Interrupted, the benchmark takes away what it made. Killed, its gateways and hosts die
// with it, and the next one takes the rest away.
func TestBenchTunnelLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	begin := func() (*exec.Cmd, string, []int) {
		cmd := exec.Command(binary, "bench", "tunnel", "--contenders", "adit", "--rounds", "1", "--seconds", "5")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() })
		prefix, pids := "", []int(nil)
		for end := time.Now().Add(20 * time.Second); len(pids) < 4; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("of two gateways and two hosts there are %v in %q", pids, prefix)
			}
			prefix, pids = labOf(cmd.Process.Pid), nil
			if prefix != "" {
				for _, node := range []string{"lh", "l", "r", "rh"} {
					out, _ := exec.Command("ip", "netns", "pids", prefix+"-"+node).Output()
					for _, f := range strings.Fields(string(out)) {
						pid, _ := strconv.Atoi(f)
						pids = append(pids, pid)
					}
				}
			}
		}
		return cmd, prefix, pids
	}
	namespaces := func(prefix string) bool {
		return strings.Contains(shell(t, "ip", "netns"), prefix+"-")
	}

	cmd, prefix, pids := begin()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Wait(); err == nil {
		t.Error("interrupted, it says that all is well")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
	if gone := waitGone(pids); namespaces(prefix) || !gone {
		t.Errorf("namespaces are left: %v, processes: %v", namespaces(prefix), !gone)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "adit-lab-"+prefix+"*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}

	cmd, prefix, pids = begin()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !waitGone(pids) {
		t.Error("processes outlive the benchmark")
	}
	if !namespaces(prefix) {
		t.Error("a killed process cannot have removed its namespaces: the test looks for the wrong ones")
	}
	if out, code := program(nil, "bench", "tunnel", "--contenders", "plain", "--quick", "--seconds", "0.05"); code != 0 {
		t.Errorf("%d %s", code, out)
	}
	if namespaces(prefix) {
		t.Error("the next benchmark leaves namespaces of the killed one")
	}
}

// labOf is the prefix of the lab whose lock a process has; empty: none.
func labOf(pid int) string {
	links, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	for _, l := range links {
		name, _ := os.Readlink(l)
		if base, ok := strings.CutPrefix(filepath.Base(name), "adit-lab-"); ok {
			return strings.TrimSuffix(base, ".lock")
		}
	}
	return ""
}

// waitGone reports whether all processes have ended.
func waitGone(pids []int) bool {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, pid := range pids {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if err == nil && !strings.Contains(string(b), ") Z ") {
				left++
			}
		}
		if left == 0 || time.Now().After(end) {
			return left == 0
		}
	}
}
