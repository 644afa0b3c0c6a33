package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program as it is shipped, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ctl-adit")
	if err == nil {
		binary = filepath.Join(dir, "adit")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "building adit:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// space is a network namespace of the test's own.
type space struct {
	t    *testing.T
	name string
	dir  string
}

func newSpace(t *testing.T, suffix string) space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	s := space{t, fmt.Sprintf("ctl%d%s", os.Getpid()%100000, suffix), t.TempDir()}
	shell(t, "ip", "netns", "add", s.name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", s.name).Run() })
	s.run("ip", "link", "set", "lo", "up")
	return s
}

// join links two namespaces and gives them addresses.
func join(a, b space) {
	shell(a.t, "ip", "link", "add", "eth0", "netns", a.name, "type", "veth", "peer", "name", "eth0", "netns", b.name)
	for s, addr := range map[space]string{a: "192.0.2.1/24", b: "192.0.2.2/24"} {
		s.run("ip", "addr", "add", addr, "dev", "eth0")
		s.run("ip", "link", "set", "eth0", "up")
	}
}

func shell(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s space) run(args ...string) string {
	s.t.Helper()
	return shell(s.t, append([]string{"ip", "netns", "exec", s.name}, args...)...)
}

func (s space) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s space) uri() string { return "unix://" + filepath.Join(s.dir, "vici") }

// command is a program in the namespace, with strongSwan's files out of the way.
func (s space) command(args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", s.name}, args...)...)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF=", "SWANCTL_DIR="+s.dir)
	return cmd
}

// tool runs adit or swanctl against the namespace's gateway; it returns what it printed.
func (s space) tool(args ...string) (string, error) {
	if args[0] == "swanctl" {
		args = append(args, "--uri", s.uri())
	} else {
		args = append([]string{binary, "--vici", s.uri()}, args[1:]...)
	}
	out, err := s.command(args...).CombinedOutput()
	return string(out), err
}

// must runs a tool that has to succeed and to print all of wants.
func (s space) must(tool string, wants ...string) string {
	s.t.Helper()
	out, err := s.tool(strings.Fields(tool)...)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", tool, err, out)
	}
	for _, w := range wants {
		if !strings.Contains(out, w) {
			s.t.Fatalf("%s printed no %q:\n%s", tool, w, out)
		}
	}
	return out
}

// refused runs a tool that has to fail and to print all of wants.
func (s space) refused(tool string, wants ...string) {
	s.t.Helper()
	out, err := s.tool(strings.Fields(tool)...)
	if err == nil {
		s.t.Fatalf("%s succeeded:\n%s", tool, out)
	}
	for _, w := range wants {
		if !strings.Contains(out, w) {
			s.t.Fatalf("%s printed no %q:\n%s", tool, w, out)
		}
	}
}

// gateway is a running `adit run`.
type gateway struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	text bytes.Buffer
	done chan error
}

func (g *gateway) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.Write(b)
}

func (g *gateway) log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

// gateway starts adit; what systemd would be told goes to notes.
func (s space) gateway(args ...string) (g *gateway, notes <-chan string) {
	s.t.Helper()
	path := filepath.Join(s.dir, "notify")
	_ = os.Remove(path)
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		s.t.Fatal(err)
	}
	told := make(chan string, 64)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := sock.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:n])
		}
	}()
	g = &gateway{cmd: s.command(append([]string{binary, "run", "--vici", s.uri()}, args...)...), done: make(chan error, 1)}
	g.cmd.Env = append(g.cmd.Env, "NOTIFY_SOCKET="+path)
	g.cmd.Stdout, g.cmd.Stderr = g, g
	if err := g.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { g.done <- g.cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		_ = sock.Close()
		if s.t.Failed() {
			s.t.Logf("log of the gateway in %s:\n%s", s.name, g.log())
		}
	})
	return g, told
}

// expect waits for a note to systemd that begins so.
func (s space) expect(notes <-chan string, want string) string {
	s.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case got := <-notes:
			if strings.HasPrefix(got, want) {
				return got
			}
		case <-limit:
			s.t.Fatalf("systemd was not told %s", want)
		}
	}
}

// end sends the signal and waits for the program to end.
func (s space) end(g *gateway, sig syscall.Signal, within time.Duration) error {
	s.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-g.done:
		return err
	case <-time.After(within):
		s.t.Fatalf("still running %v after %v", within, sig)
		return nil
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatal("not within 10 s: " + what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// site is one end of a tunnel between 10.1.0.0/24 and 10.2.0.0/24.
func site(local, remote, localNet, remoteNet, options string) string {
	return fmt.Sprintf(`connections {
  gw {
    local_addrs = %s
    remote_addrs = %s
    keyingtries = 3
    dpd_delay = 30s
    local { auth = psk
    }
    remote { auth = psk
    }
    children {
      net {
        local_ts = %s
        remote_ts = %s
        %s
      }
    }
  }
}
secrets {
  ike-1 {
    secret = "q7HkTz0pVn3xWbYc5e"
  }
}
`, local, remote, localNet, remoteNet, options)
}
