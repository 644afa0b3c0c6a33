package conf_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/conf"
)

// TestFilesOfTheSystem: what lies about in a directory of configurations neither blocks the
// parser nor is taken for a configuration.
func TestFilesOfTheSystem(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "d.conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone.conf")); err != nil {
		t.Fatal(err)
	}
	write("b.conf", "b = 1")
	write("a.conf", "a = 1")
	write(".hidden.conf", "hidden = 1")
	write("a.conf~", "backup = 1")

	s, err := conf.ParseFile(write("main", "include [ab].conf\ninclude d*.conf\ninclude [!abg].conf"))
	if err != nil || s.Format(nil) != "a = 1\nb = 1\n" {
		t.Errorf("parsed as %v, %v", s.Format(nil), err)
	}
	s, err = conf.ParseFile(write("main", "include missing.conf\ninclude b*"))
	if err != nil || s.Format(nil) != "b = 1\n" {
		t.Errorf("parsed as %v, %v", s.Format(nil), err)
	}
	start := time.Now()
	for text, want := range map[string]string{
		"\ninclude d.conf": "main:2: cannot read " + dir + "/d.conf: not a regular file",
		"include fifo":     "main:1: cannot ",
		"include *.conf":   "main:1: cannot read " + dir + "/gone.conf: no such file or directory",
	} {
		if _, err := conf.ParseFile(write("main", text)); !errors.Is(err, conf.ErrInclude) || !strings.HasPrefix(err.Error(), dir+"/"+want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, path := range []string{fifo, dir, filepath.Join(dir, "nothing"), "/dev/zero"} {
		var e *conf.Error
		if _, err := conf.ParseFile(path); !errors.As(err, &e) || !strings.HasPrefix(err.Error(), path+": cannot read: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := conf.ParseFile(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// BenchmarkParse parses ten thousand connections, each inheriting from a template.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString("defaults { version = 2\n local { auth = psk\n id = gw }\n remote { auth = psk } }\nconnections {\n")
	text.WriteString(many(10000, "c%d : defaults {\n remote_addrs = 192.0.2.1\n remote { id = peer%d }\n children { net { remote_ts = 10.0.0.0/8\n esp_proposals = default } }\n}\n"))
	text.WriteString("}\n")
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := conf.ParseBytes("f", data); err != nil {
			b.Fatal(err)
		}
	}
}
