package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func program(env []string, args ...string) (string, int) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(append(os.Environ(), "STRONGSWAN_CONF="), env...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "swanctl.conf")
	write := func(text string, mode os.FileMode) {
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	good := site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", "")
	write(good, 0o600)
	out, code := program(nil, "check", file)
	if code != 0 || !strings.Contains(out, "is fine: 1 connections, 1 children, 1 secrets") || strings.Contains(out, "warning") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code = program([]string{"SWANCTL_DIR=" + dir}, "check"); code != 0 || !strings.Contains(out, file+" is fine") {
		t.Errorf("%d: %s", code, out)
	}
	write(good+"include nothing-there.conf\n", 0o644)
	out, code = program(nil, "check", file)
	if code != 0 || !strings.Contains(out, "others may read it") || !strings.Contains(out, "nothing-there.conf") {
		t.Errorf("%d: %s", code, out)
	}
	bad := strings.NewReplacer("keyingtries", "keyingtrys", "remote_ts", "remote_tss", "auth = psk", "auth = pubky").Replace(good)
	write(bad, 0o600)
	out, code = program(nil, "check", file)
	for _, want := range []string{file + ":5: ", "did you mean keyingtries?", "did you mean remote_ts?", "did you mean pubkey?"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("code %d, no %q in:\n%s", code, want, out)
		}
	}
	if out, code = program(nil, "check", filepath.Join(dir, "none.conf")); code == 0 || !strings.Contains(out, "none.conf") {
		t.Errorf("%d: %s", code, out)
	}
	// run refuses it the same way, before it touches anything.
	if out, code = program(nil, "run", "--config", file, "--vici", "unix://"+dir+"/vici"); code == 0 || !strings.Contains(out, "did you mean keyingtries?") {
		t.Errorf("%d: %s", code, out)
	}
}

func TestHelpAndCompletion(t *testing.T) {
	for _, verb := range []string{"run", "up", "down", "status", "log", "check", "demo"} {
		out, code := program(nil, verb, "--help")
		if code != 0 || !strings.Contains(out, "Examples:\n  adit "+verb) {
			t.Errorf("adit %s --help: %d\n%s", verb, code, out)
		}
	}
	if out, code := program(nil, "--help"); code != 0 || !strings.Contains(out, "Examples:") {
		t.Error(out)
	}
	if out, code := program(nil, "version"); code != 0 || !strings.HasPrefix(out, "adit ") {
		t.Error(out)
	}
	for _, sh := range []string{"bash", "zsh", "fish"} {
		if out, code := program(nil, "completion", sh); code != 0 || len(out) < 500 {
			t.Errorf("completion %s: %d", sh, code)
		}
	}
	if out, code := program(nil, "__complete", "sta"); code != 0 || !strings.Contains(out, "status") {
		t.Error(out)
	}
	if out, code := program(nil, "up"); code == 0 || !strings.Contains(out, "accepts 1 arg") {
		t.Errorf("%d %s", code, out)
	}
	if out, code := program(nil, "statsu"); code == 0 || !strings.Contains(out, "status") {
		t.Errorf("%d %s", code, out)
	}
	if out, code := program(nil, "--vici", "unix:///nonexistent/vici", "status"); code == 0 || !strings.Contains(out, "no gateway answers on unix:///nonexistent/vici") {
		t.Errorf("%d %s", code, out)
	}
}

// --json is for programs, --strict for pipelines that want no warnings.
func TestCheckJSONAndStrict(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swanctl.conf")
	check := func(text string, flags ...string) (out struct {
		File             string
		Errors, Warnings []struct {
			File, Text string
			Line       int
		}
	}, code int) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, code := program(nil, append([]string{"check", file, "--json"}, flags...)...)
		if err := json.Unmarshal([]byte(s), &out); err != nil {
			t.Fatalf("%v: %s", err, s)
		}
		return out, code
	}
	good := site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", "")
	if out, code := check(good, "--strict"); code != 0 || len(out.Errors)+len(out.Warnings) != 0 || out.File != file {
		t.Errorf("%d %+v", code, out)
	}
	bites := site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", "close_action = start")
	if out, code := check(bites); code != 0 || len(out.Warnings) != 1 || out.Warnings[0].Line != 15 || !strings.HasPrefix(out.Warnings[0].Text, "connections.gw.children.net.close_action: ") {
		t.Errorf("%d %+v", code, out)
	}
	if _, code := check(bites, "--strict"); code != 2 {
		t.Errorf("--strict: %d", code)
	}
	if out, code := check(strings.Replace(good, "keyingtries", "keyingtrys", 1), "--strict"); code != 1 || len(out.Errors) != 1 || out.Errors[0].Line != 5 || out.Errors[0].File != file {
		t.Errorf("%d %+v", code, out)
	}
}
