package vici_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/vici"
)

// TestActivatedServer is the process that TestSocketActivation starts as systemd would: with
// a listening socket as descriptor 3. The shell gives LISTEN_PID the process's own id.
func TestActivatedServer(t *testing.T) {
	want := os.Getenv("VICI_TEST_WANT")
	if want == "" {
		t.Skip("runs as a child of TestSocketActivation alone")
	}
	l, err := vici.Listen(want)
	if err != nil {
		fmt.Println("ERROR", errors.Is(err, vici.ErrActivation), err)
		return
	}
	if os.Getenv("LISTEN_FDS") != "" {
		t.Error("LISTEN_FDS is left to children")
	}
	if _, err := vici.Listen(want); !errors.Is(err, vici.ErrInUse) {
		t.Errorf("a socket was handed out twice: %v", err)
	}
	fmt.Println("LISTENING")
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	fmt.Println("ACCEPTED")
}

func TestSocketActivation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "real", "v.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	// As /var/run leads to /run.
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ want, say string }{
		"the same path":     {"unix://" + path, "ACCEPTED"},
		"by a link":         {"unix://" + filepath.Join(dir, "link", "v.sock"), "ACCEPTED"},
		"another path":      {"unix://" + filepath.Join(dir, "other"), "ERROR true"},
		"another kind":      {"tcp://127.0.0.1:4502", "ERROR true"},
		"something strange": {"unix://" + path, "ERROR false"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := l.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fds := "1"
			if name == "something strange" {
				fds = "100000"
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestActivatedServer$' -test.v`, os.Args[0])
			cmd.Env = append(os.Environ(), "LISTEN_FDS="+fds, "VICI_TEST_WANT="+c.want)
			cmd.ExtraFiles = []*os.File{f}
			if c.say == "ACCEPTED" {
				// It waits in the socket's queue, as a client does that is faster than the server.
				client, err := net.Dial("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
			}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.say) {
				t.Errorf("want %s: %v\n%s", c.say, err, out)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the manager's socket was removed: %v", err)
			}
		})
	}
}
