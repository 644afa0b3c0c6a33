package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root skips a test that changes namespaces, users or packages where that isn't allowed.
func root(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root, for namespaces and other users")
	}
}

// command runs a program and returns what it said; anything but success fails the test.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	return run(t, exec.Command(name, args...))
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// settings are the values of a setting of a unit, in the order of its lines.
func settings(t *testing.T, unit, name string) (values []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(read(t, unit), -1) {
		values = append(values, m[1])
	}
	if len(values) == 0 {
		t.Fatalf("%s has no %s=", unit, name)
	}
	return values
}

// systemd finds nothing wrong with the units, and the service is well closed.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"adit.service", "adit.socket"} {
		// The binary need not be installed here.
		text := strings.ReplaceAll(read(t, name), "/usr/sbin/adit ", "/bin/true ")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service, socket := filepath.Join(dir, "adit.service"), filepath.Join(dir, "adit.socket")
	if out := command(t, "systemd-analyze", "verify", "--man=no", service, socket); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	command(t, "systemd-analyze", "security", "--offline=yes", "--threshold=21", service)

	// It must notice: a unit with a misspelt option, and one without a sandbox.
	text := read(t, service)
	broken := filepath.Join(t.TempDir(), "adit.service")
	for name, change := range map[string]func() string{
		"misspelt": func() string { return strings.Replace(text, "ProtectHome=", "ProtectHouse=", 1) },
		"root":     func() string { return strings.NewReplacer("User=", "#", "CapabilityBoundingSet=", "#").Replace(text) },
	} {
		if err := os.WriteFile(broken, []byte(change()), 0o600); err != nil {
			t.Fatal(err)
		}
		out, verify := exec.Command("systemd-analyze", "verify", "--man=no", broken, socket).CombinedOutput()
		security := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=21", broken).Run()
		if verify == nil && len(out) == 0 && security == nil {
			t.Errorf("nothing was found in a unit that is %s", name)
		}
	}
}

// The socket is where charon's is and swanctl looks, and only root and adit's group reach it.
func TestSocketUnit(t *testing.T) {
	for name, want := range map[string]string{"ListenStream": "/run/charon.vici", "SocketMode": "0660", "SocketUser": "root", "SocketGroup": "adit"} {
		if got := settings(t, "adit.socket", name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %s", name, got, want)
		}
	}
}

// The page is made of the texts of --help and troff understands all of it.
func TestManualPage(t *testing.T) {
	bin := binary(t)
	cmd := exec.Command(bin, "man")
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	page := filepath.Join(t.TempDir(), "adit.8")
	if err := os.WriteFile(page, []byte(run(t, cmd)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := command(t, "groff", "-man", "-Tutf8", "-ww", "-z", page); out != "" {
		t.Errorf("groff complains:\n%s", out)
	}
	text := run(t, exec.Command("groff", "-man", "-Tutf8", "-P-cbou", "-rLL=2000n", page))
	for _, heading := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "FILES", "SIGNALS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"} {
		if !strings.Contains(text, "\n"+heading+"\n") {
			t.Errorf("no section %s", heading)
		}
	}
	words := func(s string) string {
		s = strings.NewReplacer("‘", "'", "’", "'", "−", "-", "‐", "-").Replace(s)
		return strings.Join(strings.Fields(s), " ")
	}
	got := words(text)
	for _, verb := range append([]string{"signals", "files", "environment", "exit-status"}, verbs(t, bin)...) {
		long, _, _ := strings.Cut(command(t, bin, verb, "--help"), "\nUsage:")
		long = strings.TrimSuffix(strings.TrimSpace(long), "Flags:")
		if !strings.Contains(got, words(long)) {
			t.Errorf("the page lacks what `adit %s --help` says:\n%s", verb, long)
		}
	}
	if !strings.Contains(got, "2023-11-14") {
		t.Error("the page does not have the date of SOURCE_DATE_EPOCH")
	}
}

// verbs are the commands that `adit --help` lists and that run by themselves.
func verbs(t *testing.T, bin string) (found []string) {
	t.Helper()
	_, list, _ := strings.Cut(command(t, bin, "--help"), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		if name != "completion" && name != "help" && name != "bench" {
			found = append(found, name)
		}
	}
	if len(found) < 8 {
		t.Fatal(fmt.Sprint("only these verbs were found: ", found))
	}
	return found
}
