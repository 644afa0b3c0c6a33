package control_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/conf"
	"adit/internal/conn"
	"adit/vici"
)

// One wrong value among several connections of a message, and nothing is loaded of it,
// nor replaced.
func TestLoadConnAllOrNothing(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	named := func(name, remote string) string {
		return strings.Replace(connBody("192.0.2.1", remote, "10.1.0.0/24", "10.2.0.0/24"), "gw {", name+" {", 1)
	}
	s.ok("load-conn", named("a", "192.0.2.2"))
	for _, wrong := range []string{"10.2.0.0/24", "dpd_delay = 30s", "mode = pass", "auth = psk"} {
		third := strings.Replace(named("c", "192.0.2.4"), wrong, wrong[:len(wrong)-1]+"?", 1)
		res, _ := s.call("load-conn", named("a", "192.0.2.9")+named("b", "192.0.2.3")+third, "")
		if got := res.Text("errmsg"); res.Text("success") != "no" || !strings.Contains(got, "c.") {
			t.Errorf("%s: %s", wrong, text(res))
		}
		got, _ := s.call("get-conns", "", "")
		contains(t, text(got), "conns = [a]\n")
		_, after := s.call("list-conns", "", "list-conn")
		if !strings.Contains(text(after[0]), "remote_addrs = [192.0.2.2]") {
			t.Errorf("%s: something was changed:\n%s", wrong, text(after[0]))
		}
	}
	s.ok("load-conn", named("a", "192.0.2.9")+named("b", "192.0.2.3"))
	got, _ := s.call("get-conns", "", "")
	contains(t, text(got), "conns = [a b]\n")
}

// swanctl takes what has a byte that isn't printable ASCII for binary data and shows nothing:
// several mistakes, quotations and the names of people stay readable.
func TestErrorsAreOneLine(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	res, _ := s.call("load-conn", "c {\nversion = 2\nlocal_addrs = -ä\ndpd_delay = soon\nchildren {\nnet {\nmode = strange\n}\n}\n}\n", "")
	got := res.Text("errmsg")
	contains(t, got, "c.local_addrs: ", "; c.dpd_delay: ", "; c.children.net.mode: ")
	if strings.ContainsFunc(got, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("%q", got)
	}
}

// swanctl over TCP, and many clients at once among others that send garbage.
func TestClientsOverTCP(t *testing.T) {
	s, _, _ := sides(t)
	l, err := vici.Listen("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.srv.Serve(l) }()
	uri := "tcp://" + l.Addr().String()
	s.ok("initiate", "child = net\ntimeout = 10000\n")
	if path, err := exec.LookPath("swanctl"); err != nil {
		t.Log("no swanctl here")
	} else {
		for _, c := range [][2]string{{"--list-sas", "net: #1, reqid 1, INSTALLED"}, {"--list-sas --raw", "list-sa event {gw {uniqueid=1"}, {"--list-pols", "gw/lan, PASS"},
			{"--list-conns", "gw: IKEv2"}, {"--list-algs", "AES_GCM_16[adit]"}, {"--counters", "ike-auth-out-req"}, {"--counters --all", "gw"},
			{"--install --child net", "install completed successfully"}, {"--list-pols --trap", "gw/net, TUNNEL"}, {"--uninstall --child net", "uninstall completed successfully"},
			{"--uninstall --child net", "uninstall failed: policy 'net' not found"}, {"--redirect --ike gw", "missing target gateway"},
			{"--counters --reset --all", "reset-counters completed successfully"}, {"--stats", "uptime"}, {"--version", "strongSwan"}} {
			args := strings.Fields(c[0])
			out, _ := exec.Command(path, append([]string{args[0], "--uri", uri}, args[1:]...)...).CombinedOutput()
			if !strings.Contains(string(out), c[1]) {
				t.Errorf("swanctl %s, want %q:\n%s", c[0], c[1], out)
			}
		}
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if i%2 == 0 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_, _ = fmt.Fprintf(c, "\x00\x00\x00\x05\x00\x03xyz garbage of client %d \xff\xff\xff\xff", i)
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				for b := make([]byte, 100); err == nil; {
					_, err = c.Read(b) // until it is hung up on
				}
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Errorf("client %d is not hung up on", i)
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			c, err := vici.Dial(ctx, uri)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range 20 {
				if _, err := c.Call(ctx, "unheard-of", nil); err == nil {
					t.Error("an unknown command is answered")
				}
				n := 0
				if _, err := c.Stream(ctx, "list-sas", "list-sa", nil, func(m *conf.Section) error { n++; return nil }); err != nil || n != 1 {
					t.Errorf("client %d: %d IKE SAs, %v", i, n, err)
				}
			}
		})
	}
	wg.Wait()
	s.ok("terminate", "ike = gw\n")
	_ = l.Close()
	<-served
}

// A client that registered for everything and never reads delays nothing.
func TestEventsThatNobodyReads(t *testing.T) {
	left, _, _ := sides(t)
	c, err := net.Dial("unix", strings.TrimPrefix(left.uri, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, e := range append([]string{"log"}, saEvents...) {
		frame, err := vici.Packet{Type: vici.EventRegister, Name: e}.AppendFrame(nil)
		if err == nil {
			_, err = c.Write(frame)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	for range 60 {
		left.ok("initiate", "child = net\ntimeout = 10000\n")
		left.ok("terminate", "ike = gw\n")
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("60 tunnels took %v", d)
	}
}

// A peer that does not answer: with force the timeout is waited for, and then the SA goes.
func TestTerminateForceAfterTimeout(t *testing.T) {
	left, _, wire := sides(t)
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	wire.SetFilter(func(*conn.Datagram) bool { return false })
	left.refused("terminate", "child = net\nforce = yes\ntimeout = 60\n", "terminating SA failed")
	start := time.Now()
	res := left.ok("terminate", "ike = gw\nforce = yes\ntimeout = 150\n")
	if d := time.Since(start); d < 150*time.Millisecond || d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	if res.Text("terminated") != "1" {
		t.Error(text(res))
	}
	if _, sas := left.call("list-sas", "", "list-sa"); len(sas) != 0 {
		t.Error(text(sas[0]))
	}
}

// The control-log has what its level asks for, and ends before the answer.
func TestControlLogLevels(t *testing.T) {
	left, _, _ := sides(t)
	count := map[string]int{}
	for _, level := range []string{"-1", "0", "1", "4", "nonsense"} {
		_, lines := left.call("initiate", "child = net\ninit-limits = yes\nloglevel = "+level+"\n", "control-log")
		for _, l := range lines {
			if l.Text("level") > level && level != "nonsense" {
				t.Errorf("loglevel %s has a line of level %s", level, l.Text("level"))
			}
		}
		count[level] = len(lines)
		left.ok("terminate", "ike = gw\nloglevel = -1\n")
	}
	if count["-1"] != 0 || count["0"] == 0 || count["1"] <= count["0"] || count["4"] < count["1"] || count["nonsense"] != count["1"] {
		t.Errorf("lines: %v", count)
	}
}

func TestLoadToken(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	s.refused("load-token", "", "keyid missing")
	s.refused("load-token", "handle = 0102\n", "loading private key from token failed: adit does not support tokens yet")
}
