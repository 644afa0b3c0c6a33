package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The unmodified swanctl drives a gateway that was started without a configuration.
func TestSwanctl(t *testing.T) {
	a, b := newSpace(t, "a"), newSpace(t, "b")
	if _, err := exec.LookPath("swanctl"); err != nil {
		t.Fatal("the Debian package strongswan-swanctl is needed: ", err)
	}
	join(a, b)
	left, notes := a.gateway()
	_, peer := b.gateway("--config", b.file("gw.conf", site("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24", "")))
	a.expect(notes, "READY=1")
	b.expect(peer, "READY=1")

	a.must("swanctl --version --daemon", "adit")
	a.must("swanctl --stats", "uptime:", "IKE_SAs: 0 total, 0 half-open")
	a.file("swanctl.conf", site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", ""))
	a.must("swanctl --load-all", "loaded ike secret 'ike-1'", "loaded connection 'gw'", "successfully loaded 1 connections, 0 unloaded")
	a.must("swanctl --list-conns", "gw: IKEv1/2, no reauthentication, rekeying every 14400s, dpd delay 30s", "local:  192.0.2.1", "remote: 192.0.2.2",
		"local pre-shared key authentication:", "net: TUNNEL, rekeying every 3600s, dpd action is none", "local:  10.1.0.0/24", "remote: 10.2.0.0/24")
	a.must("swanctl --initiate --child net", "initiate completed successfully", "[IKE] ", "established")
	a.must("swanctl --list-sas", "gw: #1, ESTABLISHED, IKEv2,", "local  '192.0.2.1' @ 192.0.2.1", "net: #1, reqid 1, INSTALLED, TUNNEL-in-UDP, ESP:", "local  10.1.0.0/24", "remote 10.2.0.0/24")
	a.must("swanctl --rekey --child net", "rekey completed successfully")
	eventually(t, "the Child SA is replaced", func() bool {
		out, err := a.tool("swanctl", "--list-sas")
		return err == nil && strings.Contains(out, "net: #2")
	})
	a.must("swanctl --rekey --ike gw", "rekey completed successfully")
	eventually(t, "the IKE SA is replaced", func() bool {
		out, err := a.tool("swanctl", "--list-sas", "--ike-id", "2")
		return err == nil && strings.Contains(out, "gw: #2, ESTABLISHED")
	})
	a.refused("swanctl --rekey --child other", "no matching SAs to rekey found")
	a.refused("swanctl --initiate --child other", "CHILD_SA config 'other' not found")
	a.must("swanctl --terminate --ike gw", "terminate completed successfully")
	a.refused("swanctl --terminate --ike gw", "no matching SAs to terminate found")
	b.must("adit status", "gw/net", "down")

	// A file that no longer has it unloads it; an error in it changes nothing.
	a.file("swanctl.conf", strings.Replace(site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", ""), "net {", "net {\n mark_in = 42", 1))
	a.refused("swanctl --load-conns", "marks cannot work with a TUN device")
	a.must("swanctl --list-conns", "gw: IKEv1/2")
	a.file("swanctl.conf", "")
	a.must("swanctl --load-all", "no connections found, 1 unloaded")
	if out := a.must("swanctl --list-conns"); strings.Contains(out, "gw") {
		t.Errorf("still loaded:\n%s", out)
	}
	if err := a.end(left, syscall.SIGTERM, 5*time.Second); err != nil {
		t.Error(err)
	}
}

// The verbs of adit itself, a reload by SIGHUP, and the end by SIGTERM.
func TestVerbsReloadAndEnd(t *testing.T) {
	a, b := newSpace(t, "a"), newSpace(t, "b")
	join(a, b)
	// The kernel adds link-local routes of its own links whenever it has probed them.
	footprint := func() string {
		var lines []string
		for line := range strings.Lines(a.run("nft", "list", "ruleset") + a.run("ip", "rule") + a.run("ip", "route", "show", "table", "all") + a.run("ip", "-br", "link")) {
			if !strings.Contains(line, "fe80:") && !strings.Contains(line, "ff00::") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	before := footprint()
	conf := site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", "start_action = trap")
	file := a.file("gw.conf", conf)
	g, notes := a.gateway("--config", file, "--log-format", "json")
	_, peer := b.gateway("--config", b.file("gw.conf", site("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24", "")))
	a.expect(notes, "READY=1")
	b.expect(peer, "READY=1")
	follow := a.command(binary, "--vici", a.uri(), "log", "-f")
	var lines gateway
	follow.Stdout, follow.Stderr = &lines, &lines
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = follow.Process.Kill(); _ = follow.Wait() }()
	time.Sleep(200 * time.Millisecond)

	a.must("adit up net", "net is up")
	a.must("adit status", "ESTABLISHED", "INSTALLED", "10.1.0.0/24 … 10.2.0.0/24")
	var st struct {
		SAs []struct {
			State    string                    `json:"state"`
			Children map[string]map[string]any `json:"child-sas"`
		} `json:"sas"`
		Connections []map[string]any `json:"connections"`
	}
	if err := json.Unmarshal([]byte(a.must("adit status --json")), &st); err != nil || len(st.SAs) != 1 || len(st.SAs[0].Children) != 1 || len(st.Connections) != 1 {
		t.Errorf("%+v %v", st, err)
	}
	child := func() string { return strings.Join(strings.Fields(a.must("adit status --json")), " ") }
	was := child()
	a.refused("adit up nett", `did you mean "net"?`)
	a.refused("adit down other", `no child or connection is called "other"`)
	eventually(t, "the log is followed", func() bool { return strings.Contains(lines.log(), "established") })

	// A reload with an error names file, line and option, and leaves the tunnel alone.
	a.file("gw.conf", strings.Replace(conf, "keyingtries", "keyingtrys", 1))
	_ = g.cmd.Process.Signal(syscall.SIGHUP)
	if got := a.expect(notes, "RELOADING=1"); !strings.Contains(got, "MONOTONIC_USEC=") {
		t.Errorf("systemd was told %q", got)
	}
	a.expect(notes, "READY=1")
	eventually(t, "the error is in the log", func() bool {
		return strings.Contains(g.log(), file+":5: connections.gw.keyingtrys: unknown option; did you mean keyingtries?")
	})
	a.file("gw.conf", conf)
	_ = g.cmd.Process.Signal(syscall.SIGHUP)
	a.expect(notes, "READY=1")
	for _, id := range []string{`"uniqueid": "1"`, `"spi-in": `} {
		i, j := strings.Index(was, id), strings.Index(child(), id)
		if i < 0 || j < 0 || was[i:i+len(id)+10] != child()[j:j+len(id)+10] {
			t.Errorf("the reload touched the tunnel: %s", id)
		}
	}

	began := time.Now()
	if err := a.end(g, syscall.SIGTERM, 5*time.Second); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v to end", took)
	}
	a.expect(notes, "STOPPING=1")
	if after := footprint(); after != before {
		t.Errorf("left behind on the host:\n%s\nbefore:\n%s", after, before)
	}
	eventually(t, "the peer was told", func() bool {
		out, err := b.tool("adit", "status")
		return err == nil && strings.Contains(out, "0 IKE SAs")
	})
}

// One gateway a network namespace and a socket; a socket that a dead one left is replaced.
func TestOneInstance(t *testing.T) {
	a := newSpace(t, "a")
	ln, err := net.Listen("unix", filepath.Join(a.dir, "vici"))
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = ln.Close() // a stale socket
	began := time.Now()
	g, notes := a.gateway()
	eventually(t, "the control socket answers", func() bool {
		c, err := net.Dial("unix", filepath.Join(a.dir, "vici"))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("the socket was bound after %v", took)
	}
	a.expect(notes, "READY=1")

	same, err := a.command(binary, "run", "--vici", a.uri()).CombinedOutput()
	if err == nil || !strings.Contains(string(same), a.uri()) {
		t.Errorf("a second one on the same socket: %v %s", err, same)
	}
	other, err := a.command(binary, "run", "--vici", "unix://"+filepath.Join(a.dir, "other")).CombinedOutput()
	if err == nil || !strings.Contains(string(other), "another adit runs in this network namespace") {
		t.Errorf("a second one in the same namespace: %v %s", err, other)
	}
	a.must("adit status", "0 IKE SAs")
	limits, err := os.ReadFile("/proc/" + gatewayPID(t, g) + "/limits")
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("core dumps are on: %v\n%s", err, limits)
	}
	if err := a.end(g, syscall.SIGINT, 5*time.Second); err != nil {
		t.Error(err)
	}
	a.refused("adit status", "no gateway answers on "+a.uri())
}

// gatewayPID is the process: `ip netns exec` becomes the program that it starts.
func gatewayPID(t *testing.T, g *gateway) string {
	t.Helper()
	link, err := os.Readlink("/proc/" + itoa(g.cmd.Process.Pid) + "/exe")
	if err != nil || link != binary {
		t.Fatalf("process %d is %s, %v", g.cmd.Process.Pid, link, err)
	}
	return itoa(g.cmd.Process.Pid)
}

// A name that does not resolve delays neither readiness nor the socket.
func TestSlowNames(t *testing.T) {
	a := newSpace(t, "a")
	began := time.Now()
	_, notes := a.gateway("--config", a.file("gw.conf", site("192.0.2.1", "gw.example.invalid", "dynamic", "dynamic", "mode = transport\n start_action = trap")))
	a.expect(notes, "READY=1")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("ready after %v", took)
	}
}

// Another name than the machine's own is refused with those that it has.
func TestRunAESGCM(t *testing.T) {
	if out, code := program(nil, "run", "--aes-gcm", "rot13"); code == 0 || !strings.Contains(out, "auto, ") || !strings.Contains(out, "go") {
		t.Errorf("%d %s", code, out)
	}
}
