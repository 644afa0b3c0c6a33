// Package packaging_test looks at the packages as their users do: it installs the
// Debian package, runs the service's binary as the unit does, and the container
// image in namespaces of its own.
package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"adit/interop/peer"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		if become := map[string]func([]string) error{filterArg: underFilter, imageArg: inImage}[os.Args[1]]; become != nil {
			fmt.Fprintln(os.Stderr, become(os.Args[2:]))
			os.Exit(1)
		}
	}
	code := m.Run()
	peer.RemoveBuilds()
	if dir, err := buildDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// buildDir is a directory that other users may enter.
var buildDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "adit-pack-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
})

// built is the program as it is shipped, and the test's own binary beside it.
var built = sync.OnceValues(func() (path string, err error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "adit")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/adit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building adit: %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(filepath.Join(dir, "launch"), b, 0o755)
})

// binary is the path of the program; everybody may run it.
func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// launcher is the path of the test's own binary, for everybody.
func launcher(t *testing.T) string {
	t.Helper()
	return filepath.Join(filepath.Dir(binary(t)), "launch")
}
