package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit"
)

// The real program: log files of strongswan.conf, their rotation, levels at run time,
// the ring, health in three ways, the watchdog, a dump on request, and what of
// strongswan.conf a reload applies.
func TestOperations(t *testing.T) {
	a, b := newSpace(t, "a"), newSpace(t, "b")
	join(a, b)
	logs, sock := filepath.Join(a.dir, "log"), filepath.Join(a.dir, "health")
	daemon := func(more string) string {
		return a.file("strongswan.conf", "charon {\n filelog {\n  f {\n path = "+logs+"\n ike_name = yes\n"+more+"}\n"+
			"adit {\n health = unix://"+sock+"\n}\n")
	}
	settings := daemon("}\n }\n")
	conf := a.file("gw.conf", site("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", ""))
	t.Setenv("WATCHDOG_USEC", "600000")
	t.Setenv("RUNTIME_DIRECTORY", a.dir)
	g, notes := a.gateway("--config", conf, "--strongswan-conf", settings)
	t.Setenv("WATCHDOG_USEC", "")
	// The peer's log is a pipe that nobody reads; that stops only the log.
	pipeline := filepath.Join(b.dir, "pipe")
	if err := syscall.Mkfifo(pipeline, 0o600); err != nil {
		t.Fatal(err)
	}
	_, peer := b.gateway("--strongswan-conf", b.file("strongswan.conf", "charon {\n filelog {\n  p {\n path = "+pipeline+"\n}\n }\n}\n"), "--config", b.file("gw.conf", site("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24", "")))
	a.expect(notes, "READY=1")
	a.expect(notes, "WATCHDOG=1")
	b.expect(peer, "READY=1")

	a.must("adit health", "engine-0", "pool-0", "plane-0", "plane-timer", "host ", "log ", "answers", "log "+logs, "is written")
	var told struct {
		Healthy string
		Parts   map[string]struct{ OK string }
	}
	if err := json.Unmarshal([]byte(a.must("adit health --json")), &told); err != nil || told.Healthy != "yes" || told.Parts["engine-0"].OK != "yes" {
		t.Errorf("%v %+v", err, told)
	}
	if code, body := healthOf(t, sock, "GET", "/healthz"); code != 200 || !strings.Contains(body, `"healthy":true`) || !strings.Contains(body, `{"name":"engine-0","ok":true,"silent_seconds":0}`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := healthOf(t, sock, "GET", "/other"); code != 404 {
		t.Errorf("other path: %d", code)
	}
	if code, _ := healthOf(t, sock, "POST", "/healthz"); code != 405 {
		t.Errorf("other method: %d", code)
	}

	read := func(path string) string {
		text, _ := os.ReadFile(path)
		return string(text)
	}
	a.must("adit up net")
	eventually(t, "the file has charon's lines", func() bool {
		return strings.Contains(read(logs), "00[IKE] <gw|1> IKE SA gw[1] established between") && strings.Contains(read(logs), "00[NET] <gw|1> sent IKE_SA_INIT")
	})
	a.must("adit log", "IKE gw[1] IKE SA gw[1] established", "NET gw[1] sent", "configuration loaded, file "+conf)
	if out := a.must("adit log --peer 192.0.2.9"); out != "" {
		t.Errorf("of another peer: %s", out)
	}
	if out := a.must("adit log -n 2 --conn gw --peer 192.0.2.0/24"); strings.Count(out, "\n") != 2 {
		t.Errorf("two lines: %s", out)
	}
	if text := strings.TrimSpace(read(logs)); strings.Contains(text, "a secret that is long enough") {
		t.Error("the log has the secret")
	}

	// Less, then rotation.
	a.must("adit log --set 0 --conn gw --for 1h", "level 0 for connection gw for another 1h0m0s")
	a.refused("adit log --set 9", "use -1 (nothing) to 4")
	a.refused("adit log --set 1 --group nonsense", "there is no group")
	if err := os.Rename(logs, logs+".1"); err != nil {
		t.Fatal(err)
	}
	daemon("net = 2\n}\n }\n retransmit_timeout = 2\n port = 501\n")
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	a.expect(notes, "RELOADING=1")
	a.expect(notes, "READY=1")
	eventually(t, "a new file with what the reload said", func() bool {
		return strings.Contains(read(logs), "settings of strongswan.conf have changed: retransmit_*, filelog, syslog, journal") &&
			strings.Contains(read(logs), "count only after a restart: port")
	})
	a.must("adit down gw")
	a.must("adit up net")
	eventually(t, "what stays of a quiet connection", func() bool { return strings.Contains(read(logs), "<gw|2> IKE SA gw[2] established") })
	if strings.Contains(read(logs), "sent IKE_SA_INIT") {
		t.Errorf("messages are logged of a quiet connection:\n%s", read(logs))
	}
	a.must("adit log --reset", "levels are as configured")
	eventually(t, "systemd's line of status", func() bool {
		for {
			select {
			case n := <-notes:
				if n == "STATUS=1 IKE SAs, 1 Child SAs" {
					return true
				}
			default:
				return false
			}
		}
	})

	// Following, filtered; one line each.
	follow := a.command(binary, "--vici", a.uri(), "log", "-f", "--conn", "gw", "--json", "--level", "1")
	pipe, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer follow.Process.Kill() //nolint:errcheck // at the end
	first := make(chan map[string]any, 1)
	go func() {
		var m map[string]any
		_ = json.NewDecoder(pipe).Decode(&m)
		first <- m
	}()
	eventually(t, "a line for the follower", func() bool {
		a.must("adit down gw")
		a.must("adit up net")
		select {
		case m := <-first:
			if m["ikesa-name"] != "gw" || m["peer"] == nil || m["msg"] == nil {
				t.Errorf("%v", m)
			}
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})

	b.must("adit health", "engine-0       answers", "log "+pipeline+" has been stuck for")

	// A mistake changes nothing.
	daemon("default = x\n}\n }\n")
	out, err := a.tool("swanctl", "--reload-settings")
	if err == nil || !strings.Contains(out, "x") {
		t.Errorf("a mistake in strongswan.conf: %v %s", err, out)
	}
	if err := g.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dump", func() bool {
		files, _ := filepath.Glob(filepath.Join(a.dir, "adit-asked-*.txt"))
		return len(files) == 1 && strings.Contains(read(files[0]), "gateway.(*shard).run")
	})
	if err := a.end(g, syscall.SIGTERM, 10*time.Second); err != nil {
		t.Error(err)
	}
	if text := read(logs); !strings.Contains(text, "IKE SA gw[") || strings.Count(text, "\n") < 5 {
		t.Errorf("the log is not whole at the end:\n%s", text)
	}
}

func healthOf(t *testing.T, sock, method, path string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock)
		}}}
	req, _ := http.NewRequest(method, "http://adit"+path, nil)
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

// The watchdog is fed only while every part answers; a stall is told, and what the
// goroutines do is written down once, bounded.
func TestWatchdog(t *testing.T) {
	dir := t.TempDir()
	var told []string
	silent := time.Duration(0)
	w := &watch{watchdog: 8 * time.Second, dir: dir, log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		parts:  func() []adit.Part { return []adit.Part{{Name: "engine-0", Silent: silent}, {Name: "log"}} },
		notify: func(s string) { told = append(told, s) }}
	now := time.Now()
	dumps := func() int {
		files, _ := filepath.Glob(filepath.Join(dir, "adit-stall-*.txt"))
		for _, f := range files {
			if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 || st.Size() == 0 {
				t.Errorf("%s: %v", f, err)
			}
		}
		return len(files)
	}
	look := func(after, s time.Duration, want ...string) {
		t.Helper()
		told, silent = nil, s
		now = now.Add(after)
		w.look(now)
		if got := strings.Join(told, "|"); got != strings.Join(want, "|") {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	look(0, 0, "WATCHDOG=1")
	look(time.Second, 3*time.Second, "WATCHDOG=1")
	if dumps() != 0 {
		t.Error("a dump without a stall")
	}
	look(time.Second, 4*time.Second, "STATUS=does not answer: engine-0 for 4s")
	look(time.Second, 5*time.Second)
	look(time.Minute, time.Minute)
	if dumps() != 1 {
		t.Errorf("%d dumps of one stall", dumps())
	}
	look(time.Second, 0, "WATCHDOG=1")
	look(time.Second, 5*time.Second, "STATUS=does not answer: engine-0 for 5s")
	if dumps() != 1 || w.stalls != 2 {
		t.Errorf("%d dumps within 10 minutes, %d stalls", dumps(), w.stalls)
	}
	for range 20 {
		look(11*time.Minute, time.Hour)
	}
	if dumps() != dumpsKept {
		t.Errorf("%d dumps are kept", dumps())
	}
	w.parts = func() []adit.Part { return nil }
	look(time.Second, 0)
}
