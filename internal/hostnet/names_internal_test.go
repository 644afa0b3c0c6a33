package hostnet

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

func bareNet(t *testing.T) *Net {
	t.Helper()
	return &Net{servers: map[serverKey]int{}, jr: journal{path: filepath.Join(t.TempDir(), "state.json"), state: journalState{Protocols: []int{defaultProtocol}}}}
}

// A client's name servers stand before all others, or instead of them, and the file is
// afterwards as it was: at an end, after a crash, and whatever somebody has done meanwhile.
func TestNamesInAFile(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
	file := filepath.Join(t.TempDir(), "resolv.conf")
	own := "# mine\nnameserver 192.0.2.53\nsearch home.example\noptions edns0\n"
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(what, want string) {
		t.Helper()
		if b, err := os.ReadFile(file); err != nil || string(b) != want {
			t.Errorf("%s: %q, want %q (%v)", what, b, want, err)
		}
	}
	ok(os.WriteFile(file, []byte(own), 0o644))
	n := bareNet(t)
	w := Names{Device: "adit0", Servers: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("fd00::53")}, Domains: []string{"corp.example"}, File: file}
	by, err := n.SetNames(t.Context(), w)
	ok(err)
	if by != ByFile {
		t.Error(by)
	}
	some := "# adit, until the tunnel is down {\nnameserver 10.0.0.53\nnameserver fd00::53\nsearch corp.example home.example\n# } adit\n# mine\nnameserver 192.0.2.53\n#adit# search home.example\noptions edns0\n"
	has("for some domains", some)
	w.All, w.Domains = true, nil
	_, err = n.SetNames(t.Context(), w)
	ok(err)
	all := "# adit, until the tunnel is down {\nnameserver 10.0.0.53\nnameserver fd00::53\n# } adit\n# mine\n#adit# nameserver 192.0.2.53\nsearch home.example\noptions edns0\n"
	has("for everything", all)
	// A DHCP client writes its own again.
	ok(os.WriteFile(file, []byte(own), 0o644))
	ok(n.KeepNames())
	has("written again", all)
	ok(n.DropNames(t.Context()))
	has("at the end", own)
	for what, left := range map[string]string{"after a crash": all, "after another crash": some, "cut": strings.Replace(some, "# } adit\n", "", 1)} {
		ok(os.WriteFile(file, []byte(left), 0o644))
		ok(dropServers([]string{file}))
		want := own
		if what == "cut" { // the block's end is unknown: nothing of others is taken
			want = "nameserver 10.0.0.53\nnameserver fd00::53\nsearch corp.example home.example\n" + own
			want = strings.Replace(want, ourBegin+"\n", "", 1)
		}
		has(what, want)
	}
	for _, bad := range []Names{{}, {Device: "adit0"}, {Device: "a/b", Servers: w.Servers}, {Device: "adit0", Servers: w.Servers, Domains: []string{"a\nnameserver 1.2.3.4"}}, {Device: "adit0", Servers: []netip.Addr{{}}}} {
		if _, err := n.SetNames(t.Context(), bad); err == nil {
			t.Errorf("accepted: %+v", bad)
		}
	}
}

// fakeResolved writes down what is asked of it.
type fakeResolved struct {
	mu  sync.Mutex
	log []string
}

func (f *fakeResolved) note(format string, args ...any) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, fmt.Sprintf(format, args...))
	return nil
}

func (f *fakeResolved) SetLinkDNS(link int32, servers []struct {
	Family  int32
	Address []byte
}) *dbus.Error {
	return f.note("dns %d %v", link, servers)
}

func (f *fakeResolved) SetLinkDomains(link int32, domains []struct {
	Name        string
	RoutingOnly bool
}) *dbus.Error {
	return f.note("domains %d %v", link, domains)
}

func (f *fakeResolved) SetLinkDefaultRoute(link int32, on bool) *dbus.Error {
	return f.note("default %d %v", link, on)
}

func (f *fakeResolved) RevertLink(link int32) *dbus.Error { return f.note("revert %d", link) }

// privateBus starts a message bus of this test's own, which the environment calls the system's.
func privateBus(t *testing.T) {
	t.Helper()
	bin, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("dbus-daemon is not installed (run scripts/setup.sh)")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:dir=` + dir + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>`
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--config-file="+conf, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
}

// systemd-resolved gets the servers and domains of the link by its D-Bus interface, over a
// real bus; without it on the bus the file is written.
func TestNamesByResolved(t *testing.T) {
	privateBus(t)
	file := filepath.Join(t.TempDir(), "resolv.conf")
	n := bareNet(t)
	// "lo" stands for the tunnel's device: it is there, with index 1, also without root.
	w := Names{Device: "lo", Servers: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("fd00::53")}, Domains: []string{"corp.example"}, File: file}
	if by, err := n.SetNames(t.Context(), w); err != nil || by != ByFile {
		t.Fatalf("without it: %s %v", by, err)
	}
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	f := &fakeResolved{}
	if err := bus.Export(f, resolvedPath, resolvedName+".Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.RequestName(resolvedName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	if by, err := n.SetNames(t.Context(), w); err != nil || by != ByResolved {
		t.Fatalf("with it: %s %v", by, err)
	}
	if b, err := os.ReadFile(file); err != nil || strings.Contains(string(b), "10.0.0.53") {
		t.Errorf("the file still has the servers: %s %v", b, err)
	}
	w.All = true
	if _, err := n.SetNames(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := n.DropNames(context.Background()); err != nil {
		t.Fatal(err)
	}
	servers := "dns 1 [{2 [10 0 0 53]} {10 [253 0 0 0 0 0 0 0 0 0 0 0 0 0 0 83]}]"
	want := []string{servers, "domains 1 [{corp.example false}]", "default 1 false", "revert 1", servers, "domains 1 [{. true} {corp.example false}]", "default 1 true", "revert 1"}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.log, want) {
		t.Errorf("%q\nwant %q", f.log, want)
	}
}
