package adit

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The secret of crash detection outlives the process, is nobody else's, and is held by one gateway.
func TestCrashSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, release, err := crashSecret(dir)
	if err != nil || len(first) != crashSecretLen {
		t.Fatal(len(first), err)
	}
	if _, _, err := crashSecret(dir); err == nil || !strings.Contains(err.Error(), "another gateway uses it") {
		t.Errorf("a second gateway: %v", err)
	}
	release()
	path := filepath.Join(dir, "crash.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	again, release, err := crashSecret(dir)
	if release(); err != nil || !bytes.Equal(first, again) {
		t.Error("another secret after a restart", err)
	}
	for name, spoil := range map[string]func() error{
		"cut short": func() error { return os.Truncate(path, 5) }, "too long": func() error { return os.WriteFile(path, make([]byte, 64), 0o600) },
		"readable": func() error { return os.Chmod(path, 0o644) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		next, release, err := crashSecret(dir)
		if release(); err != nil || bytes.Equal(next, again) || len(next) != crashSecretLen {
			t.Errorf("%s: %v", name, err)
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 || info.Size() != crashSecretLen {
			t.Errorf("%s: %v", name, info)
		}
		again = next
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := crashSecret(dir); err == nil {
		t.Error("a symbolic link was followed")
	}
}
