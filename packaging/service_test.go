package packaging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/interop/lab"
	"adit/interop/peer"
)

// serviceUID stands for the user adit; it owns nothing else on the machine.
const serviceUID = 61431

// conf is a tunnel with a pre-shared key between the two networks of a lab.
func conf(me, other lab.Addresses, myID, otherID string) string {
	return fmt.Sprintf(`connections {
  net {
    local_addrs = %s
    remote_addrs = %s
    local { 
      auth = psk
      id = %s
    }
    remote {
      auth = psk
      id = %s
    }
    children {
      net {
        local_ts = %s
        remote_ts = %s
      }
    }
  }
}
secrets {
  ike {
    secret = "packed together, 32 octets or so"
  }
}
`, me.Wan4, other.Wan4, myID, otherID, me.Inner4, other.Inner4)
}

// plainPeer is an adit without restrictions at the right end of a lab.
func plainPeer(t *testing.T, l *lab.Lab) *peer.AditGateway {
	t.Helper()
	g, err := peer.Adit(l, lab.Right, peer.AditOptions{Config: conf(l.R, l.L, "right.example", "left.example")})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatalf("%v\n%s", err, g.Log())
	}
	t.Cleanup(func() { g.Stop() })
	return g
}

// output collects what a process says while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts a process of the test's own, which ends with the test, and tells when
// it has ended.
func start(t *testing.T, cmd *exec.Cmd) (*output, <-chan error) {
	t.Helper()
	out, ended := &output{}, make(chan error, 1)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		ended <- cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(cmd.Args, " "), out)
		}
	})
	return out, ended
}

// The gateway as the unit runs it: another user with three capabilities, and a fourth until
// its device is made, and no way to more, a read-only file system, the unit's filter of
// system calls, the control socket passed by descriptor. It carries a tunnel, whose single
// packets come by the ring, tells systemd that it lives, and leaves nothing behind.
func TestService(t *testing.T) {
	root(t)
	l := lab.ForTest(t, "pkun", lab.Options{})
	plainPeer(t, l)
	dir := shared(t)
	runDir, stateDir := filepath.Join(dir, "run"), filepath.Join(dir, "state") // RuntimeDirectory, StateDirectory
	for _, d := range []string{runDir, stateDir} {
		if err := errors.Join(os.Mkdir(d, 0o700), os.Chown(d, serviceUID, serviceUID)); err != nil {
			t.Fatal(err)
		}
	}
	// adit.socket.
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "charon.vici"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	fd, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	uri := "unix://" + socket.Addr().String()
	// Type=notify.
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	if err := os.Chmod(filepath.Join(dir, "notify"), 0o777); err != nil {
		t.Fatal(err)
	}
	filters, err := json.Marshal(unitFilter(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "filter"), filters, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "strongswan.conf"), []byte(oneWorker), 0o644); err != nil {
		t.Fatal(err)
	}

	caps := ""
	for name := range strings.FieldsSeq(settings(t, "adit.service", "CapabilityBoundingSet")[0]) {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	if settings(t, "adit.service", "AmbientCapabilities")[0] != settings(t, "adit.service", "CapabilityBoundingSet")[0] {
		t.Error("the capabilities differ")
	}
	argv := strings.Fields(strings.TrimPrefix(settings(t, "adit.service", "ExecStart")[0], "/usr/sbin/adit"))
	launch := `set -e
mkdir -p /run/adit
mount --bind "$RUN_DIR" /run/adit
mkdir -p /var/lib/adit
mount --bind "$STATE_DIR" /var/lib/adit
mount -o remount,ro,bind /
export LISTEN_PID=$$ WATCHDOG_PID=$$
exec setpriv --reuid $SERVICE_UID --regid $SERVICE_UID --clear-groups --inh-caps=-all$CAPS --ambient-caps=-all$CAPS \
	--bounding-set=-all$CAPS --no-new-privs "$@"`
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.NS(lab.Left), "sh", "-c", launch, "sh",
		launcher(t), filterArg, filepath.Join(dir, "filter"), binary(t)}, append(argv, "--vici", uri)...)...)
	cmd.Env = append(os.Environ(), "RUN_DIR="+runDir, "STATE_DIR="+stateDir, "STATE_DIRECTORY=/var/lib/adit", "CAPS="+caps, fmt.Sprint("SERVICE_UID=", serviceUID), "LISTEN_FDS=1",
		"STRONGSWAN_CONF="+filepath.Join(dir, "strongswan.conf"), "NOTIFY_SOCKET="+notify.LocalAddr().String(), "WATCHDOG_USEC=1000000")
	cmd.ExtraFiles = []*os.File{fd}
	said, ended := start(t, cmd)
	waitNotify(t, notify, "READY=1")

	status := read(t, fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	for _, want := range []string{fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", serviceUID),
		"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("the process is not confined as the unit says: no %q in\n%s", want, status)
		}
	}
	const network, bpf = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_BIND_SERVICE, 1 << unix.CAP_BPF
	kept := capsAre(network, network|bpf)
	hasCaps(t, fmt.Sprint(cmd.Process.Pid), kept...)
	// ExecStartPost, as root: keys and secrets that the gateway's user can't read.
	file := filepath.Join(dir, "swanctl.conf")
	script := filepath.Join(dir, "updown") // it may do what the gateway may
	text := "#!/bin/sh\ncase $PLUTO_VERB in up-*) ip route add 10.99.0.0/16 dev lo && grep Cap /proc/self/status >/run/adit/caps && echo $PLUTO_VERB $(id -u) >/run/adit/seen ;; down-*) ip route del 10.99.0.0/16 ;; esac\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	tunnel := strings.Replace(conf(l.L, l.R, "left.example", "right.example"), "local_ts", "updown = "+script+"\n        local_ts", 1)
	if err := os.WriteFile(file, []byte(tunnel), 0o600); err != nil {
		t.Fatal(err)
	}
	reload := func() {
		t.Helper()
		args := strings.Fields(strings.TrimPrefix(settings(t, "adit.service", "ExecStartPost")[0], "+/usr/sbin/adit "))
		inNode(t, l, lab.Left, append(append([]string{binary(t)}, args...), file, "--vici", uri)...)
	}
	reload()
	inNode(t, l, lab.Left, binary(t), "up", "net", "--vici", uri)
	if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	seen := filepath.Join(runDir, "seen")
	if err := lab.Poll(5*time.Second, func() (bool, error) { fi, err := os.Stat(seen); return err == nil && fi.Size() > 0, nil }); err != nil {
		t.Fatalf("the updown script did not run: %v\n%s", err, said)
	}
	if got := strings.TrimSpace(read(t, seen)); got != fmt.Sprint("up-client ", serviceUID) {
		t.Errorf("the updown script saw %q", got)
	}
	if got := capsOf(read(t, filepath.Join(runDir, "caps"))); !slices.Equal(got, kept) {
		t.Errorf("the updown script has %v, want %v", got, kept)
	}
	if start, again := settings(t, "adit.service", "ExecStartPost")[0], settings(t, "adit.service", "ExecReload")[0]; start != again {
		t.Errorf("a reload is %s, not %s", again, start)
	}
	reload()
	if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	singlePackets(t, l, said, true)
	ringFull(t, l, cmd.Process.Pid, uri)
	hasCaps(t, fmt.Sprint(cmd.Process.Pid), kept...) // threads that came since then
	if strings.Contains(read(t, "adit.service"), "\nWatchdogSec=") {
		waitNotify(t, notify, "WATCHDOG=1")
	}
	cmd.Process.Signal(syscall.SIGTERM)
	waitNotify(t, notify, "STOPPING=1")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	for _, left := range [][]string{{"nft", "list", "tables"}, {"ip", "-o", "link", "show", "type", "tun"}, {"ip", "rule", "show", "lookup", "220"}, {"ip", "route", "show", "10.99.0.0/16"}} {
		if out := inNode(t, l, lab.Left, left...); strings.TrimSpace(out) != "" {
			t.Errorf("left behind: %s:\n%s", strings.Join(left, " "), out)
		}
	}
	if strings.Contains(said.String(), "level=ERROR") || strings.Contains(said.String(), "denied") {
		t.Errorf("errors were logged:\n%s", said)
	}
}

// The filter of the test above is no decoration.
func TestServiceFilterHolds(t *testing.T) {
	root(t)
	dir := shared(t)
	b, err := json.Marshal(unitFilter(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "filter"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program string
		good    bool
	}{{"true", true}, {"mount -t tmpfs none " + dir, false}, {"chroot / true", false}} {
		err := exec.Command(launcher(t), append([]string{filterArg, filepath.Join(dir, "filter")}, strings.Fields(c.program)...)...).Run()
		if (err == nil) != c.good {
			t.Errorf("%s: %v", c.program, err)
		}
	}
}

// shared is a directory that other users may enter.
func shared(t *testing.T) string {
	t.Helper()
	binary(t)
	parent, err := buildDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "t")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func inNode(t *testing.T, l *lab.Lab, node string, argv ...string) string {
	t.Helper()
	out, err := l.Exec(20*time.Second, node, argv...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return out
}

// waitNotify waits for a message to the service manager.
func waitNotify(t *testing.T, c *net.UnixConn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(15 * time.Second))
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("no %s: %v", want, err)
		}
		if strings.Contains("\n"+string(b[:n])+"\n", "\n"+want+"\n") {
			return
		}
	}
}
