package interop_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// govici is the client whose tests and examples are run, as they are in the module.
const govici = "github.com/strongswan/govici@v0.8.0"

// needNoDaemon are its files of tests that talk to themselves, and no longer compile: Go
// 1.26 has no synctest.Run.
const needNoDaemon = "client_conn_test.go"

// The tests of strongSwan's own Go client, with those that need a running daemon, and the
// programs of its manual, pass with adit where they look for charon.
func TestGovici(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, strongSwan}}, settings{noAttach: true}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		p.load(left, right)
		g := newGoviciLab(t, p)
		t.Run("tests", g.tests)
		t.Run("examples", g.examples)
	})
}

// goviciLab is a copy of the module and a place to run programs that find the daemon's
// socket where charon has it.
type goviciLab struct {
	*path
	dir string // of the module's copy
}

func newGoviciLab(t *testing.T, p *path) *goviciLab {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", govici).Output()
	var module struct{ Dir, Error string }
	if e := json.Unmarshal(out, &module); e != nil || module.Dir == "" {
		t.Fatalf("%s is not to be had: %v %v %s", govici, err, e, module.Error)
	}
	g := &goviciLab{p, filepath.Join(t.TempDir(), "govici")}
	if err := os.CopyFS(g.dir, os.DirFS(module.Dir)); err != nil {
		t.Fatal(err)
	}
	// The module cache is not writable, nor is a copy of it.
	err = filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, map[bool]fs.FileMode{true: 0o755, false: 0o644}[d.IsDir()])
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(g.dir, "vici", needNoDaemon)); err != nil {
		t.Fatal(err)
	}
	return g
}

// build compiles with the Go command in the module.
func (g *goviciLab) build(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = g.dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
}

// command runs a program in a mount namespace where /run/charon.vici is the left
// gateway's socket and `systemctl` is ours.
func (g *goviciLab) command(program string, args ...string) *exec.Cmd {
	const script = `mount -t tmpfs none /run && ln -s "$1" /run/charon.vici && shift && exec "$@"`
	cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, "sh", filepath.Join(g.left.Dir(), "vici"), program}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+g.dir+":"+os.Getenv("PATH"))
	return cmd
}

func (g *goviciLab) tests(t *testing.T) {
	g.build(t, "test", "-c", "-o", "govici.test", "./vici")
	g.systemctl(t)
	passed := map[string]bool{}
	only := "."
	// TestNotifyEventsNoBlock races with its own listener on a busy machine: what fails is
	// tried again, and only that.
	for tries := 3; ; tries-- {
		out, err := g.command(filepath.Join(g.dir, "govici.test"), "-test.v", "-test.timeout", "60s", "-integration", "-test.run", only).CombinedOutput()
		for _, m := range regexp.MustCompile(`(?m)^--- PASS: (\w+)`).FindAllStringSubmatch(string(out), -1) {
			passed[m[1]] = true
		}
		var failed []string
		for _, m := range regexp.MustCompile(`(?m)^--- FAIL: (\w+)`).FindAllStringSubmatch(string(out), -1) {
			failed = append(failed, m[1])
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Errorf("some tests were skipped:\n%s", out)
		}
		if err == nil {
			break
		}
		if tries == 1 || len(failed) == 0 || len(failed) > 2 {
			t.Fatalf("govici's tests: %v\n%s", err, out)
		}
		t.Logf("again, because of\n%s", out)
		only = "^(" + strings.Join(failed, "|") + ")$"
	}
	for _, need := range []string{"TestCommandRequest", "TestCallStreaming", "TestEventNameIsSet", "TestUnsubscribe", "TestCloseAfterEOF", "TestNotifyEventsNoBlock"} {
		if !passed[need] {
			t.Errorf("%s did not pass", need)
		}
	}
	if len(passed) < 60 {
		t.Errorf("only %d tests passed: %v", len(passed), passed)
	}
	g.facts["govici"] = fmt.Sprintf("%d tests", len(passed))
}

// systemctl is a program that has this test stop and start the gateway.
func (g *goviciLab) systemctl(t *testing.T) {
	t.Helper()
	ask, answer := filepath.Join(g.dir, "ask"), filepath.Join(g.dir, "answer")
	for _, fifo := range []string{ask, answer} {
		if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\necho \"$*\" > %s\nread -r word < %s\n[ \"$word\" = done ]\n", ask, answer)
	if err := os.WriteFile(filepath.Join(g.dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(ask, os.O_RDWR, 0) // for both, so that it never ends
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(answer, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			err := fmt.Errorf("what is %q?", lines.Text())
			switch lines.Text() {
			case "stop strongswan":
				err = g.left.Stop()
			case "start strongswan":
				err = g.left.Start()
			}
			word := "done"
			if err != nil {
				word = err.Error()
			}
			fmt.Fprintln(out, strings.ReplaceAll(word, "\n", " "))
		}
	}()
	t.Cleanup(func() {
		in.Close()
		out.Close()
		<-served
	})
}

// examples runs the programs of the manual. The last has no main: it gets one that loads a
// connection as the text says, and initiates one that is loaded.
func (g *goviciLab) examples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(g.dir, "docs", "getting_started.md"))
	if err != nil {
		t.Fatal(err)
	}
	left, right := g.ends(false)
	g.load(left, right)
	const main = `
func main() {
	s, err := vici.NewSession()
	if err == nil {
		err = loadConn(s, connection{Name: "rw", LocalAddrs: []string{"192.0.2.1"}, Local: &localOpts{Auth: "psk", ID: "moon.strongswan.org"}, Remote: &remoteOpts{Auth: "psk"},
			Children: map[string]*childSA{"home": {LocalTrafficSelectors: []string{"10.1.0.0/16"}, ESPProposals: []string{"aes128gcm128-x25519"}}},
			Version: 2, Proposals: []string{"aes128-sha256-x25519"}})
	}
	if err == nil {
		err = initiate(s, "gw", "net")
	}
	if err != nil {
		panic(err)
	}
}
`
	var programs []string
	for _, m := range regexp.MustCompile("(?s)```go\n(package main.*?)\n```").FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(m[1], "func main()") {
			m[1] += main
		}
		programs = append(programs, m[1])
	}
	if len(programs) != 5 {
		t.Fatalf("the manual has %d programs", len(programs))
	}
	for i, source := range programs {
		dir := filepath.Join(g.dir, "examples", fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g.build(t, "build", "-o", filepath.Join(g.dir, "bin")+"/", "./examples/...")
	program := func(i int, args ...string) *exec.Cmd {
		return g.command(filepath.Join(g.dir, "bin", fmt.Sprint(i)), args...)
	}
	run := func(i int, args []string, want ...string) {
		t.Helper()
		out, err := program(i, args...).CombinedOutput()
		if err != nil {
			t.Errorf("program %d: %v\n%s", i, err, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("program %d printed no %q:\n%s", i, w, out)
			}
		}
	}
	run(0, nil, "daemon = adit", "sysname = Linux")
	run(1, []string{"-ike", "gw"}, "gw {", "local_addrs", "class = pre-shared key", "net {", "10.2.0.0/24")

	// The third watches one IKE SA; it runs until it is ended.
	watch := program(2, "-ike", "gw")
	pipe, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			seen <- lines.Text()
		}
	}()
	// It says nothing when it has registered, so initiations are tried until it saw one.
	var got []string
	err = lab.Poll(10*time.Second, func() (bool, error) {
		if err := g.left.Initiate("net"); err != nil {
			return false, err
		}
		g.down(t, "gw")
		for len(seen) > 0 {
			got = append(got, <-seen)
		}
		all := strings.Join(got, "\n")
		return strings.Contains(all, "IKE-UPDOWN: gw state changed: ESTABLISHED") && strings.Contains(all, "IKE-UPDOWN: gw state changed: DELETING") &&
			strings.Contains(all, "LOG: "), nil
	})
	if err != nil {
		t.Errorf("%v: %q", err, got)
	}
	_ = watch.Process.Kill()
	_ = watch.Wait()

	file := filepath.Join(g.dir, "one.pem")
	one := pkitest.NewCA(t, pkitest.Spec{Name: "loaded by the example"})
	if err := os.WriteFile(file, one.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	run(3, []string{"-path", file})
	if out, err := g.left.Swanctl("--list-certs"); err != nil || !strings.Contains(out, "CN=loaded by the example") {
		t.Errorf("the certificate is not there: %v\n%s", err, out)
	}
	run(4, nil, "LOG: ")
	if out, err := g.left.Swanctl("--list-conns"); err != nil || !strings.Contains(out, "moon.strongswan.org") || len(peer.Installed(g.sas(g.left), "net")) != 1 {
		t.Errorf("the connection is not there, or not up: %v\n%s", err, out)
	}
}
