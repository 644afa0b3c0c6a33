package vici_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"adit/vici"
)

func TestListenURI(t *testing.T) {
	for _, uri := range []string{"", "unix://relative", "unix:/x", "tcp://nowhere", "http://x:1", "/var/run/charon.vici", "unix:///" + strings.Repeat("x", 108)} {
		if l, err := vici.Listen(uri); !errors.Is(err, vici.ErrURI) {
			t.Errorf("Listen(%q): %v, %v", uri, l, err)
		}
		if c, err := vici.Dial(t.Context(), uri); !errors.Is(err, vici.ErrURI) {
			t.Errorf("Dial(%q): %v, %v", uri, c, err)
		}
	}
}

func TestListenTCP(t *testing.T) {
	l, err := vici.Listen("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := vici.Listen("tcp://" + l.Addr().String()); !errors.Is(err, vici.ErrInUse) {
		t.Errorf("taken port: %v", err)
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vici")
	uri := "unix://" + path
	defer syscall.Umask(syscall.Umask(0))
	l, err := vici.Listen(uri)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o770 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := vici.Listen(uri); !errors.Is(err, vici.ErrInUse) {
		t.Errorf("socket in use: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("closed socket remains: %v", err)
	}
	if _, err := vici.Listen("unix:///no/such/directory/vici"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestListenReplacesStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vici")
	stale(t, path)
	l, err := vici.Listen("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := vici.Listen("unix://" + path); err == nil {
		l.Close()
		t.Error("a file is replaced")
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("a file is destroyed")
	}
}

// stale leaves a socket behind on which nobody listens.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

// TestListenRace: of many servers that find a stale socket at once, one wins.
func TestListenRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vici")
	for range 20 {
		stale(t, path)
		var wg sync.WaitGroup
		var won atomic.Int32
		listeners := make(chan net.Listener, 8)
		for range 8 {
			wg.Go(func() {
				l, err := vici.Listen("unix://" + path)
				if err == nil {
					won.Add(1)
					listeners <- l
				} else if !errors.Is(err, vici.ErrInUse) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d servers won", won.Load())
		}
		(<-listeners).Close()
	}
}

func TestCloseSparesAnotherSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vici")
	l, err := vici.Listen("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := vici.Listen("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("another server's socket is removed: %v", err)
	}
}
