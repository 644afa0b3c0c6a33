package vici_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	govici "github.com/strongswan/govici/vici"

	"adit/conf"
	"adit/vici"
)

// swanctl runs Debian's unmodified swanctl against a server and returns what it prints.
func swanctl(t *testing.T, uri string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("swanctl")
	if err != nil && os.Getuid() != 0 {
		t.Skip("swanctl is not installed, and only root can install it")
	} else if err != nil {
		t.Fatal("swanctl is missing: apt-get install strongswan-swanctl")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, append(args, "--uri", uri)...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("swanctl %s hangs\n%s", strings.Join(args, " "), out)
	}
	return string(out), err
}

func TestSwanctl(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	s.Handle("version", func(context.Context, *vici.Request) (*conf.Section, error) {
		m := conf.New("")
		m.Set("daemon", "adit")
		m.Set("version", "1.2.3")
		m.Set("sysname", "Linux")
		m.Set("release", "6.1")
		m.Set("machine", "x86_64")
		return m, nil
	})
	s.Handle("stats", func(context.Context, *vici.Request) (*conf.Section, error) {
		m := conf.New("")
		m.Add("uptime").Set("running", "5 minutes")
		m.Add("uptime").Set("since", "today")
		m.Add("workers").Set("total", "16")
		m.Add("workers").Add("active").Set("high", "3")
		m.Add("ikesas").Set("total", "12345")
		m.Add("ikesas").Set("half-open", "7")
		m.SetList("plugins", "one", "two", "three")
		return m, nil
	})
	s.Event("list-sa", "control-log")
	s.Handle("list-sas", func(_ context.Context, r *vici.Request) (*conf.Section, error) {
		for i := range 200 {
			m := conf.New("")
			sa := m.Add(fmt.Sprintf("conn-%d", i))
			sa.Setf("uniqueid", "%d", i)
			sa.Set("version", "2")
			sa.Set("state", "ESTABLISHED")
			sa.Set("remote-host", "192.0.2.1")
			child := sa.Add("child-sas").Add(fmt.Sprintf("net-%d", i))
			child.Set("name", "net")
			child.Set("state", "INSTALLED")
			child.SetList("local-ts", "10.1.0.0/16", "10.9.0.0/16")
			if err := r.Emit("list-sa", m); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	s.Handle("initiate", func(_ context.Context, r *vici.Request) (*conf.Section, error) {
		m := conf.New("")
		m.Setf("msg", "initiating %s", r.Msg.Text("child"))
		m.Set("level", "1")
		m.Set("group", "IKE")
		if err := r.Emit("control-log", m); err != nil {
			return nil, err
		}
		reply := conf.New("")
		reply.Set("success", "no")
		reply.Set("errmsg", "the peer does not answer")
		return reply, nil
	})

	if out, err := swanctl(t, uri, "--version", "--daemon"); err != nil || !strings.Contains(out, "1.2.3 adit (Linux, 6.1, x86_64)") {
		t.Errorf("--version prints %s", out)
	}
	if out, err := swanctl(t, uri, "--stats"); err != nil || !strings.Contains(out, "uptime: 5 minutes, since today") ||
		!strings.Contains(out, "IKE_SAs: 12345 total, 7 half-open") || !strings.Contains(out, "loaded plugins: one two three") {
		t.Errorf("--stats prints %s", out)
	}
	out, err := swanctl(t, uri, "--list-sas")
	if n := strings.Count(out, "ESTABLISHED"); err != nil || n != 200 || !strings.Contains(out, "conn-199: #199, ESTABLISHED") || !strings.Contains(out, "10.1.0.0/16 10.9.0.0/16") {
		t.Errorf("--list-sas prints %d SAs, last %s", n, out[max(0, len(out)-300):])
	}
	out, err = swanctl(t, uri, "--initiate", "--child", "net")
	if err == nil || !strings.Contains(out, "[IKE] initiating net") || !strings.Contains(out, "initiate failed: the peer does not answer") {
		t.Errorf("--initiate prints %s (%v)", out, err)
	}
}

// loader is a server for swanctl --load-conns, and what swanctl has loaded into it.
type loader struct {
	uri    string
	mu     sync.Mutex
	loaded *conf.Section
}

func newLoader(t *testing.T) *loader {
	t.Helper()
	s, uri := serve(t, vici.Options{})
	l := &loader{uri: uri}
	s.Handle("get-conns", func(context.Context, *vici.Request) (*conf.Section, error) {
		m := conf.New("")
		m.SetList("conns")
		return m, nil
	})
	s.Handle("load-conn", func(_ context.Context, r *vici.Request) (*conf.Section, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for sub := range r.Msg.Sections() {
			l.loaded.Attach(sub)
		}
		m := conf.New("")
		m.Set("success", "yes")
		return m, nil
	})
	return l
}

// compare has swanctl and package conf read a text and fails the test if they differ, in whether
// they accept it too. It reports whether conf accepts it.
func (l *loader) compare(t *testing.T, text string) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "swanctl.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ours, err := conf.ParseFile(file)
	if errors.Is(err, conf.ErrReference) || errors.Is(err, conf.ErrLimit) {
		return false // strongSwan ignores such a reference, or recurses until it crashes
	}
	l.mu.Lock()
	l.loaded = conf.New("connections")
	l.mu.Unlock()
	out, _ := swanctl(t, l.uri, "--load-conns", "--file", file) // succeeds with an invalid file as well
	if (err != nil) != strings.Contains(out, "invalid config file") {
		t.Errorf("conf: %v\nswanctl: %s\nfor\n%s", err, out, text)
	}
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	want := slices.Collect(ours.Sub("connections").Sections())
	got := slices.Collect(l.loaded.Sections())
	if len(got) != len(want) {
		t.Errorf("swanctl loads %d connections, conf reads %d\n%s\n%s", len(got), len(want), out, text)
		return true
	}
	for i := range got {
		if theirs, ours := flatten(got[i]), flatten(want[i]); theirs != ours {
			t.Errorf("strongSwan reads\n%s\nconf reads\n%s\nfrom\n%s", theirs, ours, text)
		}
	}
	return true
}

// TestSwanctlReadsTheSame has strongSwan's own parser read configurations: swanctl sends what it
// made of them as load-conn messages, and these must be what package conf makes of them.
func TestSwanctlReadsTheSame(t *testing.T) {
	l := newLoader(t)
	templates, err := filepath.Abs("../conf/testdata/templates.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"templates": "include " + templates,
		"strings": "connections { c { a = \"  blanks\tkept \"\n b =   collapsed   blanks\n c = \"one\\n\ntwo \\\nthree\" four # five\n" +
			"d = x#y\n e = \"\\\"\\\\ \\a\"\n f = a\"b\"c\n g = ={=\n h = \\n\n i = \"\"\n j =\n } }",
		"merge": "connections { c { a = 1\nb = 2\ns { x = 1 } }\nd { z = 1 }\nc { b = 3\nb =\nc = 4\ns { y = 2\nx = 5 } } }\nconnections { e { k = v } }",
		"references": "x { a = 1\nb = 2\nsub { k = x\n only = x } }\ny : x { a = \n c = 3\n sub { k = y } }\n" +
			"connections { one : y, x { d = 4\n sub { l = one } }\n two : connections.one { sub { k = } }\n three : x, y { }\n" +
			"four { sub : x.sub, y.sub { } }\n three : connections.four { } }",
		"resolution": "sec-a { sub1 { a1 = val-a1\nkey = a\nsub-a { } } }\nsec-b : sec-a { sub1 { b1 = val-b1\nkey = b\nsub-b1 { } }\n" +
			"sub2 { b2 = val-b2\nkey = b2\nsub-b2 { } } }\nconnections { sec-c : sec-b { sub2 : sec-b.sub1 { c2 = val-c2\nsub-c2 { } } } }",
		"layout": "connections\n{\nc\n:\nlater # comment\n,\nlatest\n{\r\n  a\t=\t1\r\n} d { k = v } }\nlater { l = 1 }\nlatest { m = \"x\r\ny\" }",
		"names":  "connections { a-b_c/d\\e*f+@[]' { ;k = v\n include = x\n include2 { y = z } } }",
	} {
		t.Run(name, func(t *testing.T) {
			if !l.compare(t, text+"\n") {
				t.Error("conf refuses it")
			}
		})
	}
}

// TestSwanctlReadsTheSameAtRandom does so with texts made at random, mistakes among them.
func TestSwanctlReadsTheSameAtRandom(t *testing.T) {
	l := newLoader(t)
	accepted := 0
	const texts = 150
	for seed := range uint64(texts) {
		w := &writer{rand.New(rand.NewPCG(seed, 1))}
		text := "connections {\n" + w.section(1) + w.statements(1) + "}\n"
		for _, name := range []string{"x", "y", "x", "y"} { // the second ones extend the first
			text += name + " {\n" + w.statements(-2) + "s {\n" + w.statements(-1) + "}\nt {\n}\n}\n"
		}
		if w.IntN(4) == 0 { // break it
			at := w.IntN(len(text))
			text = text[:at] + w.pick("{", "}", "=", ":", ",", ".", "\"", "#", "\\", "\n", " ", "x") + text[at:]
		}
		if l.compare(t, text) {
			accepted++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if accepted < texts/4 || accepted == texts {
		t.Errorf("%d of %d texts are accepted: the generator is no good", accepted, texts)
	}
}

// writer makes up configurations. Depths below zero are those of templates.
type writer struct{ *rand.Rand }

func (w *writer) pick(of ...string) string { return of[w.IntN(len(of))] }

func (w *writer) statements(depth int) string {
	var b strings.Builder
	for range w.IntN(5) {
		if w.IntN(3) == 0 || depth == 1 {
			b.WriteString(w.section(depth))
		} else {
			b.WriteString(w.pick("a", "b", "c", "include") + w.pick(" = ", "=", "\n= ") + w.value() + w.pick("\n", "\r\n", " # c\n"))
		}
	}
	return b.String()
}

func (w *writer) section(depth int) string {
	if depth > 3 || depth == 0 {
		return ""
	}
	name := w.pick("s", "t", "u")
	switch {
	case depth > 0 && w.IntN(2) == 0:
		name += w.pick(" : ", ":") + w.pick("x", "y", "x.s", "y.t") + w.pick("", " , x", ",y.s")
	case depth <= 0 && w.IntN(8) == 0:
		name += w.pick(": y", " : connections.s", ": x.t")
	}
	return name + w.pick(" {", "{\n", "\n{") + "\n" + w.statements(depth+1) + w.pick("}\n", "}", " } # c\n")
}

func (w *writer) value() string {
	var b strings.Builder
	for range w.IntN(4) {
		b.WriteString(w.pick("1", "two", " ", "\t", "{", "=", ":x", "\\n", `"q"`, `" q "`, `"\n\t\"#}"`, "\"l\nm\"", "\"l\\\nm\"", `""`))
	}
	return b.String()
}

// flatten prints a section with its keys before its sub-sections, the order in which swanctl
// sends them, and lists as the comma-separated words that they are in a file.
func flatten(s *conf.Section) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s {\n", s.Name)
	for v := range s.Values() {
		text := v.Text
		if v.IsList {
			text = strings.Join(v.List, ",")
		} else if v.Key == "esp_proposals" || v.Key == "remote_addrs" || v.Key == "remote_ts" || v.Key == "local_addrs" {
			text = strings.Join(v.Strings(), ",")
		}
		fmt.Fprintf(&b, "%s = %q\n", v.Key, text)
	}
	for sub := range s.Sections() {
		b.WriteString(flatten(sub))
	}
	return b.String() + "}\n"
}

// TestGovici: the client library of the strongSwan project works with the server.
func TestGovici(t *testing.T) {
	s, uri := serve(t, vici.Options{})
	session, err := govici.NewSession(govici.WithAddr("unix", strings.TrimPrefix(uri, "unix://")))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	m := govici.NewMessage()
	sub := govici.NewMessage()
	for _, err := range []error{sub.Set("inner", "x\x00y"), m.Set("key", "value"), m.Set("list", []string{"a", "", "c"}), m.Set("section", sub)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	reply, err := session.Call(t.Context(), "echo", m)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Get("key") != "value" || !slices.Equal(reply.Get("list").([]string), []string{"a", "", "c"}) || reply.Get("section").(*govici.Message).Get("inner") != "x\x00y" {
		t.Errorf("answer is %v", reply)
	}
	if _, err := session.Call(t.Context(), "nonsense", nil); err == nil {
		t.Error("unknown command is answered")
	}
	// It puts events and answers into two queues and takes from either at random, so that it loses
	// events of a quick server: this one is slow.
	s.Handle("list", func(_ context.Context, r *vici.Request) (*conf.Section, error) {
		for i := range 20 {
			if err := r.Emit("counted", number(i)); err != nil {
				return nil, err
			}
		}
		time.Sleep(200 * time.Millisecond)
		return nil, nil
	})
	next := 0
	for e, err := range session.CallStreaming(t.Context(), "list", "counted", nil) {
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Get("n"); next < 20 && got != fmt.Sprint(next) {
			t.Errorf("event %d is %v", next, got)
		}
		next++
	}
	if next < 20 {
		t.Errorf("only %d events", next)
	}
	if err := session.Subscribe("unheard"); err == nil {
		t.Error("unknown event is registered for")
	}
	events := make(chan govici.Event, 100)
	session.NotifyEvents(events)
	if err := session.Subscribe("news"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.Publish("news", number(i)); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-events:
			if e.Name != "news" || e.Message.Get("n") != fmt.Sprint(i) {
				t.Errorf("event %d is %v", i, e)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no event")
		}
	}
	if err := session.Unsubscribe("news"); err != nil {
		t.Error(err)
	}
}

// TestCharon: the client works with strongSwan's daemon, which is given a configuration, a socket
// and a network namespace of its own.
func TestCharon(t *testing.T) {
	const daemon = "/usr/sbin/charon-systemd"
	if os.Getuid() != 0 {
		t.Skip("charon runs as root only")
	}
	dir := t.TempDir()
	uri := "unix://" + filepath.Join(dir, "charon.vici")
	config := filepath.Join(dir, "strongswan.conf")
	text := fmt.Sprintf("charon-systemd {\n port = 0\n port_nat_t = 0\n load = random nonce openssl kernel-netlink socket-default vici\n plugins { vici { socket = %s } }\n journal { default = -1 }\n}\n", uri)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatalf("charon is missing: apt-get install charon-systemd: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
	})
	var c *vici.Client
	for deadline := time.Now().Add(10 * time.Second); c == nil; time.Sleep(20 * time.Millisecond) {
		var err error
		if c, err = vici.Dial(t.Context(), uri); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	version, err := c.Call(t.Context(), "version", nil)
	if err != nil || version.Text("daemon") != "charon-systemd" {
		t.Fatalf("version: %v, %v", version, err)
	}
	stats, err := c.Call(t.Context(), "stats", nil)
	if v, _ := stats.Get("plugins"); err != nil || !slices.Contains(v.List, "vici") {
		t.Errorf("stats: %v, %v", v.List, err)
	}
	load, err := conf.ParseBytes("load", []byte("home { version = 2\n local { auth = psk }\n remote { auth = psk }\n children { net { mode = tunnel } } }"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Call(t.Context(), "load-conn", load); err != nil || r.Text("success") != "yes" {
		t.Fatalf("load-conn: %v, %v", r.Format(nil), err)
	}
	var conns []string
	if _, err := c.Stream(t.Context(), "list-conns", "list-conn", nil, func(m *conf.Section) error {
		for s := range m.Sections() {
			conns = append(conns, s.Name+" "+s.Text("version")+" "+s.Sub("children").Sub("net").Text("mode"))
		}
		return nil
	}); err != nil || !slices.Equal(conns, []string{"home IKEv2 TUNNEL"}) {
		t.Errorf("list-conns: %q, %v", conns, err)
	}
	if _, err := c.Call(t.Context(), "nonsense", nil); !errors.Is(err, vici.ErrUnknownCommand) {
		t.Errorf("unknown command: %v", err)
	}
	if _, err := vici.Listen(uri); !errors.Is(err, vici.ErrInUse) {
		t.Errorf("charon's socket is not recognised as in use: %v", err)
	}
}
