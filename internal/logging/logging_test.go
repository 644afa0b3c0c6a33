package logging_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/internal/logging"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

func quiet() logging.Target {
	return logging.Target{Kind: logging.Forward, Handler: slog.NewTextHandler(io.Discard, nil), Default: 1}
}

// event logs a line as the gateway does.
func event(h *logging.Hub, group string, level int, conn, peer, text string, more ...slog.Attr) {
	attrs := append([]slog.Attr{slog.String("group", group), slog.Int("loglevel", level), slog.String("conn", conn), slog.Uint64("ike", 7),
		slog.String("remote", peer), slog.String("remote_id", "C=CH, CN=peer")}, more...)
	s := slog.LevelInfo
	if level > 1 {
		s = slog.LevelDebug
	}
	slog.New(h).LogAttrs(context.Background(), s, text, attrs...)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 5 s: ", what)
		}
	}
}

// Files look as charon's, each with levels by group of its own.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	plain, named, structured := filepath.Join(dir, "sub", "plain.log"), filepath.Join(dir, "named.log"), filepath.Join(dir, "lines.json")
	if err := os.WriteFile(named, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := logging.New(quiet())
	if err := h.Apply([]logging.Target{
		{Kind: logging.File, Path: plain, Default: 1, Levels: map[string]int8{"net": 0, "chd": 2}, Append: true},
		{Kind: logging.File, Path: named, Default: 1, IKEName: true, LogLevel: true, TimeFormat: "%b %e %T", Precision: "ms", FlushLine: true},
		{Kind: logging.File, Path: structured, Default: 4, JSON: true, IKEName: true, TimeFormat: "%FT%T%z", Append: true},
	}); err != nil {
		t.Fatal(err)
	}
	event(h, "IKE", 1, "gw", "192.0.2.2:500", "first")
	event(h, "NET", 1, "gw", "192.0.2.2:500", "sent")
	event(h, "CHD", 2, "gw", "192.0.2.2:500", "detail", slog.Uint64("child_id", 3))
	slog.New(h).Info("configuration loaded", "file", "/etc/x", "connections", 2)
	h.Close()
	if got, want := read(t, plain), "00[IKE] first\n00[CHD] detail\n00[DMN] configuration loaded, file /etc/x, connections 2\n"; got != want {
		t.Errorf("plain:\n%s", got)
	}
	got := read(t, named)
	if strings.Contains(got, "old") || strings.Contains(got, "detail") || !strings.Contains(got, " 00[NET1] <gw|7> sent\n") {
		t.Errorf("named:\n%s", got)
	}
	if line, _, _ := strings.Cut(got, "\n"); len(line) < 20 || line[15] != '.' || !strings.HasSuffix(line, " 00[IKE1] <gw|7> first") {
		t.Errorf("time of %q", line)
	}
	lines := strings.Split(strings.TrimSpace(read(t, structured)), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines of JSON", len(lines))
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(lines[2]), &m); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{"group": "CHD", "level": 2.0, "ikesa-name": "gw", "ikesa-uniqueid": "7", "msg": "detail", "peer": "192.0.2.2:500", "child_id": 3.0} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}
}

// What a peer sends cannot end a line, nor begin another, in any format.
func TestForgery(t *testing.T) {
	dir := t.TempDir()
	file, structured := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	h := logging.New(quiet())
	_ = h.Apply([]logging.Target{{Kind: logging.File, Path: file, Default: 1, IKEName: true}, {Kind: logging.File, Path: structured, Default: 1, JSON: true}})
	evil := "x\n00[IKE] forged\r\x1b[2J\x00\u2028\u202e\xff\x85\""
	event(h, "IKE", 1, evil, "192.0.2.2:500", "peer "+evil, slog.String(evil, evil))
	slog.New(h).Info(evil, evil, evil)
	h.Close()
	for _, path := range []string{file, structured} {
		got := read(t, path)
		if strings.Count(got, "\n") != 2 || strings.ContainsAny(strings.ReplaceAll(got, "\n", ""), "\r\x1b\x00") {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got := read(t, file); !strings.Contains(got, `peer x\n00[IKE] forged\r\x1b[2J\x00\u2028\u202e\xff\x85"`) {
		t.Errorf("%q", got)
	}
}

// After a rotation the file is opened again by its name; other levels do not empty it.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	h := logging.New(quiet())
	spec := logging.Target{Kind: logging.File, Path: path, Default: 1}
	_ = h.Apply([]logging.Target{spec})
	event(h, "IKE", 1, "", "", "one")
	eventually(t, "the first line", func() bool { b, _ := os.ReadFile(path); return strings.Contains(string(b), "one") })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	h.Reopen()
	eventually(t, "a new file", func() bool { _, err := os.Stat(path); return err == nil })
	event(h, "IKE", 1, "", "", "two")
	eventually(t, "the second line", func() bool { b, _ := os.ReadFile(path); return strings.Contains(string(b), "two") })
	spec.Default = 2
	_ = h.Apply([]logging.Target{spec})
	event(h, "IKE", 2, "", "", "three")
	h.Close()
	if got := read(t, path); got != "00[IKE] two\n00[IKE] three\n" {
		t.Errorf("%q", got)
	}
	if got := read(t, path+".1"); got != "00[IKE] one\n" {
		t.Errorf("rotated: %q", got)
	}
}

// stuck is a handler that blocks until it is let go.
type stuck struct {
	slog.Handler
	gate chan struct{}
}

func (s stuck) Handle(ctx context.Context, r slog.Record) error {
	<-s.gate
	return s.Handler.Handle(ctx, r)
}

// A target that blocks delays neither the caller nor the others; what it lost is told.
func TestStalledTarget(t *testing.T) {
	path, late := filepath.Join(t.TempDir(), "log"), &strings.Builder{}
	gate := make(chan struct{})
	h := logging.New(logging.Target{Kind: logging.Forward, Handler: stuck{slog.NewTextHandler(late, nil), gate}, Default: 1})
	_ = h.Apply([]logging.Target{{Kind: logging.File, Path: path, Default: 1}})
	began := time.Now()
	const lines = 3000
	for i := range lines {
		event(h, "IKE", 1, "gw", "192.0.2.2", fmt.Sprint("line ", i))
		if i%500 == 499 { // the file's thread gets its turn
			want := fmt.Sprintf("line %d\n", i)
			eventually(t, "the file has the lines", func() bool { b, _ := os.ReadFile(path); return strings.HasSuffix(string(b), want) })
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("%v for %d lines", took, lines)
	}
	var s logging.TargetState
	eventually(t, "the stall is visible", func() bool { s = h.Targets()[0]; return s.Stalled > 2*time.Second })
	if s.Lost < lines-1100 || s.Lost >= lines {
		t.Errorf("%+v", s)
	}
	close(gate)
	eventually(t, "the queue is empty", func() bool { s = h.Targets()[0]; return s.Waiting == 0 && s.Stalled == 0 })
	h.Close()
	if got := late.String(); !strings.Contains(got, fmt.Sprintf("%d log lines were lost here", s.Lost)) {
		t.Errorf("the loss was not told: %d bytes", len(got))
	}
	if strings.Contains(read(t, path), "lost") {
		t.Error("the file lost lines, too")
	}
}

// A target that cannot be written is told by the others, and tried again.
func TestBrokenTarget(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	h := logging.New(quiet())
	_ = h.Apply([]logging.Target{{Kind: logging.File, Path: path, Default: 1}, {Kind: logging.Syslog, Path: filepath.Join(dir, "none"), Facility: "daemon"}})
	eventually(t, "the complaint", func() bool {
		b, _ := os.ReadFile(path)
		return strings.Contains(string(b), "[DMN] the log syslog daemon cannot be written: ")
	})
	if s := h.Targets()[2]; s.Err == "" || s.Name != "syslog daemon" {
		t.Errorf("%+v", s)
	}
	h.Close()
}

func listen(t *testing.T) (path string, next func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return path, func() string {
		t.Helper()
		b := make([]byte, 1<<17)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// The journal gets fields, and text of several lines by its length.
func TestJournal(t *testing.T) {
	path, next := listen(t)
	h := logging.New(logging.Target{Kind: logging.Journal, Path: path, Default: 2})
	defer h.Close()
	event(h, "CHD", 0, "gw", "192.0.2.2:4500", "Child SA up", slog.String("child", "net"), slog.String("stack", "a\nb"), slog.String("group ", "x"))
	got := next()
	for _, want := range []string{"MESSAGE=Child SA up\n", "PRIORITY=5\n", "GROUP=CHD\n", "LEVEL=0\n", "CONN=gw\n", "IKE=7\n", "IKE_SA_UNIQUE_ID=7\n",
		"PEER=192.0.2.2:4500\n", "PEER_ID=C=CH, CN=peer\n", "CHILD=net\n", "STACK\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n", "GROUP_=x\n", "SYSLOG_IDENTIFIER=adit\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	event(h, "NET", 2, "gw", "192.0.2.2", strings.Repeat("x", 1<<20), slog.String("big", strings.Repeat("y", 1<<20)))
	if got = next(); !strings.Contains(got, "PRIORITY=7\n") || len(got) > 64<<10 {
		t.Errorf("%d bytes", len(got))
	}
	slog.New(h).Error("it broke\nMESSAGE=forged", "why", "x")
	if got = next(); !strings.HasPrefix(got, `MESSAGE=it broke\nMESSAGE=forged, why x`+"\n") || !strings.Contains(got, "PRIORITY=3\n") {
		t.Errorf("%q", got)
	}
}

// The journal is used where systemd says that standard error goes there.
func TestOnJournal(t *testing.T) {
	var st syscall.Stat_t
	if err := syscall.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, "": false, "x": false} {
		t.Setenv("JOURNAL_STREAM", value)
		if got := logging.OnJournal(); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestSyslog(t *testing.T) {
	path, next := listen(t)
	h := logging.New(quiet())
	defer h.Close()
	_ = h.Apply([]logging.Target{{Kind: logging.Syslog, Path: path, Facility: "auth", Identifier: "vpn", Default: 1, IKEName: true, MapLevel: 5}})
	event(h, "IKE", 1, "gw", "192.0.2.2", "up\nforged")
	if got, end := next(), fmt.Sprintf(" vpn[%d]: 00[IKE] <gw|7> up\\nforged", os.Getpid()); !strings.HasPrefix(got, "<38>") || !strings.HasSuffix(got, end) {
		t.Errorf("%q", got)
	}
	_ = h.Apply([]logging.Target{{Kind: logging.Syslog, Path: path, Facility: "daemon", Default: 1, MapLevel: -1}})
	event(h, "IKE", 0, "gw", "192.0.2.2", "up")
	if got := next(); !strings.HasPrefix(got, "<30>") || !strings.Contains(got, " adit[") {
		t.Errorf("%q", got)
	}
}

// Levels change at run time, for all, a group, a connection or a peer, and fall back.
func TestRules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	h := logging.New(quiet())
	defer h.Close()
	_ = h.Apply([]logging.Target{{Kind: logging.File, Path: path, Default: 1}})
	shown := func(group string, level int, conn, peer string) bool {
		t.Helper()
		mark := fmt.Sprint("mark ", time.Now().UnixNano())
		event(h, group, level, conn, peer, mark)
		event(h, "JOB", 0, "", "", "end of "+mark) // of level 0
		var got string
		eventually(t, "the last line", func() bool { b, _ := os.ReadFile(path); got = string(b); return strings.Contains(got, "end of "+mark) })
		return strings.Contains(got, "] "+mark)
	}
	set := func(r logging.Rule) {
		t.Helper()
		if err := h.Set(r); err != nil {
			t.Fatal(err)
		}
	}
	if shown("IKE", 2, "gw", "192.0.2.2:500") || h.Takes("IKE", 2) {
		t.Error("level 2 at the start")
	}
	set(logging.Rule{Conn: "gw", Level: 3})
	if !shown("IKE", 3, "gw", "192.0.2.2:500") || shown("IKE", 2, "other", "192.0.2.2:500") || !h.Takes("ENC", 3) || h.Takes("ENC", 4) {
		t.Error("of a connection")
	}
	h.Unset(logging.Rule{Conn: "gw"})
	for _, peer := range []string{"192.0.2.2", "192.0.2.0/24", "c=ch, cn=PEER"} {
		set(logging.Rule{Peer: peer, Level: 2})
		if !shown("IKE", 2, "gw", "192.0.2.2:500") {
			t.Error("of the peer ", peer)
		}
		if n := h.Unset(logging.Rule{Peer: peer}); n != 1 || shown("IKE", 2, "gw", "192.0.2.2:500") {
			t.Error("taken back: ", peer, n)
		}
	}
	set(logging.Rule{Peer: "192.0.2.3", Group: "net", Level: 2})
	if shown("NET", 2, "gw", "192.0.2.2:500") || shown("IKE", 2, "gw", "192.0.2.3") || !shown("NET", 2, "gw", "[::ffff:192.0.2.3]:500") {
		t.Error("of a group and a peer")
	}
	set(logging.Rule{Level: 2, Until: time.Now().Add(300 * time.Millisecond)})
	set(logging.Rule{Group: "NET", Level: -1})
	if !shown("IKE", 2, "", "") || shown("NET", 0, "", "") {
		t.Error("of all, and less of a group")
	}
	eventually(t, "the level falls back", func() bool { return len(h.Rules()) == 2 })
	if shown("IKE", 2, "", "") || !strings.Contains(read(t, path), "log level 2 until ") {
		t.Error("after its time")
	}
	if n := h.Unset(logging.Rule{}); n != 2 {
		t.Error("all taken back: ", n)
	}
	for i := range 64 {
		set(logging.Rule{Conn: fmt.Sprint(i), Level: 2})
	}
	if err := h.Set(logging.Rule{Conn: "more"}); err != logging.ErrRules {
		t.Error(err)
	}
}

// The ring keeps the last lines, within bounds of number and bytes.
func TestRecent(t *testing.T) {
	h := logging.New(quiet())
	defer h.Close()
	for i := range 1500 {
		event(h, "IKE", 1, fmt.Sprint("gw", i%2), "192.0.2.2", fmt.Sprint("line ", i))
	}
	if all := h.Recent(0, nil); len(all) != 1000 || all[0].Text != "line 500" || all[999].Text != "line 1499" {
		t.Errorf("%d lines", len(all))
	}
	if got := h.Recent(3, logging.Matcher{Conn: "gw1"}.Match); len(got) != 3 || got[0].Text != "line 1495" || got[2].Text != "line 1499" {
		t.Errorf("%v", got)
	}
	for range 200 {
		event(h, "IKE", 1, "gw", "192.0.2.2", strings.Repeat("x", 1<<20))
	}
	bytes := 0
	for _, l := range h.Recent(0, nil) {
		bytes += len(l.Text)
	}
	if bytes > 512<<10 || bytes < 256<<10 {
		t.Errorf("%d bytes", bytes)
	}
}

func TestStrftime(t *testing.T) {
	at := time.Date(2026, 1, 4, 13, 5, 9, 0, time.FixedZone("CET", 3600))
	for format, want := range map[string]string{
		"%b %e %T": "Jan  4 13:05:09", "%Y-%m-%dT%H:%M:%S%z": "2026-01-04T13:05:09+0100", "%a %A %d %I %p %Z %j": "Sun Sunday 04 01 PM CET 004",
		"%%|%Q|%": "%|%Q|%", "%s %u %V": "1767528309 7 01", "a\nb%n": `a\nb `, "%F %R": "2026-01-04 13:05",
	} {
		if got := logging.Strftime(format, at); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}
