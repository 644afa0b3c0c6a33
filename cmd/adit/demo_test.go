package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The demonstration runs through in both modes and takes everything away again.
func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	for mode, wants := range map[string][]string{
		"tunnel": {"the observer sees the gateways' addresses and ESP only", "overhead:", "the effective MTU is", "round trip", "0 lost, 0 doubled",
			"1 packet with a wrong integrity check value: dropped"},
		"transport": {"transport mode: an observer sees the real endpoints", "0 lost, 0 doubled"},
	} {
		t.Run(mode, func(t *testing.T) {
			out, code := program(nil, "demo", "--quick", "--mode", mode)
			if code != 0 {
				t.Fatalf("code %d\n%s", code, out)
			}
			for _, w := range append(wants, "All namespaces, processes and files of the demonstration are removed.") {
				if !strings.Contains(out, w) {
					t.Errorf("no %q in:\n%s", w, out)
				}
			}
			if left := shell(t, "ip", "netns"); strings.Contains(left, "demo") {
				t.Errorf("namespaces are left:\n%s", left)
			}
		})
	}
	if out, code := program(nil, "demo", "--mode", "other"); code == 0 || !strings.Contains(out, "use tunnel or transport") {
		t.Errorf("%d %s", code, out)
	}
}

// Without root it needs nothing of the host.
func TestDemoWithoutRoot(t *testing.T) {
	args := []string{binary, "demo", "--quick"}
	if os.Geteuid() == 0 {
		if _, err := exec.LookPath("setpriv"); err != nil {
			t.Fatal("setpriv is needed (util-linux): ", err)
		}
		for _, dir := range []string{filepath.Dir(binary)} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, w := range []string{"adit demo without root", "ESP packets", `the observer saw "adit-demo-secret" nowhere`, "1 dropped for its integrity check"} {
		if !strings.Contains(string(out), w) {
			t.Errorf("no %q in:\n%s", w, out)
		}
	}
}
