package interop_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/radius/radiustest"
)

// radclient sends one request to the gateway's DAE server from the RADIUS server's host.
func (p *path) radclient(command, attributes string) string {
	cmd := exec.Command("ip", "netns", "exec", p.NS(lab.RightHost), "radclient", "-r", "1", "-t", "1", "10.2.0.1:3799", command, radiusSecret)
	cmd.Stdin = strings.NewReader(attributes)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// record is the last record of a user and a kind in FreeRADIUS's detail file.
func record(s *radiustest.Server, user, status string) string {
	return recordWith(s, "User-Name = \""+user+"\"", "Acct-Status-Type = "+status)
}

// recordWith is the last record that has all of these lines.
func recordWith(s *radiustest.Server, lines ...string) string {
	records := strings.Split(s.AcctRecords(), "\n\n")
	for _, r := range slices.Backward(records) {
		if !slices.ContainsFunc(lines, func(l string) bool { return !strings.Contains(r, l) }) {
			return r
		}
	}
	return ""
}

func (p *path) recorded(t *testing.T, s *radiustest.Server, user, status string) string {
	t.Helper()
	return p.recordedWith(t, s, "User-Name = \""+user+"\"", "Acct-Status-Type = "+status)
}

func (p *path) recordedWith(t *testing.T, s *radiustest.Server, lines ...string) string {
	t.Helper()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if r := recordWith(s, lines...); r != "" {
			return r
		}
	}
	t.Fatalf("no %q in\n%s", lines, s.AcctRecords())
	return ""
}

// acctSession is the line of a record that names its session.
func acctSession(record string) string {
	return regexp.MustCompile(`Acct-Session-Id = "[^"]+"`).FindString(record)
}

func acctNumber(record, name string) int {
	m := regexp.MustCompile(name + ` = (\d+)`).FindStringSubmatch(record)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// accounted has dora come in with the address that the server gives her: Start, interim
// updates with what passed, Stop with the cause; a replayed, an old and a wrong request
// for her end do nothing, a right one ends her session and nobody else's.
func (p *path) accounted(t *testing.T, s *radiustest.Server) {
	left, right := p.established(t, "framed")
	if err := p.left.Initiate("mschapv2"); err != nil {
		t.Fatal(err)
	}
	if len(left.LocalVIPs) != 1 || left.LocalVIPs[0] != "10.3.7.77" || len(right.RemoteVIPs) != 1 || right.RemoteVIPs[0] != "10.3.7.77" {
		t.Errorf("addresses %v and %v, not what RADIUS gives", left.LocalVIPs, right.RemoteVIPs)
	}
	start := p.recorded(t, s, "dora", "Start")
	for _, w := range []string{"Framed-IP-Address = 10.3.7.77", "NAS-Port-Id = \"framed\"", "Class = 0x7374616666", "NAS-Identifier = \"adit\"", "Event-Timestamp", "Calling-Station-Id = \"192.0.2.1:"} {
		if !strings.Contains(start, w) {
			t.Errorf("the Start lacks %s:\n%s", w, start)
		}
	}
	session := regexp.MustCompile(`Acct-Session-Id = "([^"]+)"`).FindStringSubmatch(start)
	if session == nil {
		t.Fatalf("no session in\n%s", start)
	}
	if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(6 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if r := record(s, "dora", "Interim-Update"); acctNumber(r, "Acct-Session-Time") > 0 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("no interim update that counts:\n%s", s.AcctRecords())
		}
	}
	now := func() int64 { return time.Now().Unix() }
	for _, x := range []struct{ command, attributes, want string }{
		{"disconnect", fmt.Sprintf("User-Name = nobody\nEvent-Timestamp = %d\n", now()), "Disconnect-NAK"},
		{"disconnect", fmt.Sprintf("User-Name = dora\nNAS-Identifier = elsewhere\nEvent-Timestamp = %d\n", now()), "Disconnect-NAK"},
		{"disconnect", fmt.Sprintf("User-Name = dora\nEvent-Timestamp = %d\n", now()-3600), ""},
		{"disconnect", "User-Name = dora\n", ""},
		{"coa", fmt.Sprintf("User-Name = dora\nFilter-Id = x\nEvent-Timestamp = %d\n", now()), "CoA-NAK"},
		{"coa", fmt.Sprintf("User-Name = dora\nSession-Timeout = 3600\nEvent-Timestamp = %d\n", now()), "CoA-ACK"},
	} {
		if out := p.radclient(x.command, x.attributes); !strings.Contains(out, x.want) || x.want == "" && strings.Contains(out, "Received") {
			t.Errorf("%s %q: want %q, got\n%s", x.command, x.attributes, x.want, out)
		}
	}
	if n := len(p.sas(p.right)); n != 2 {
		t.Errorf("%d IKE SAs after requests that must do nothing", n)
	}
	if out := p.radclient("disconnect", fmt.Sprintf("Acct-Session-Id = %q\nEvent-Timestamp = %d\n", session[1], now())); !strings.Contains(out, "Disconnect-ACK") {
		t.Errorf("no Disconnect-ACK:\n%s", out)
	}
	stop := p.recorded(t, s, "dora", "Stop")
	if !strings.Contains(stop, "Acct-Terminate-Cause = Admin-Reset") || !strings.Contains(stop, session[1]) {
		t.Errorf("the Stop is\n%s", stop)
	}
	for _, a := range p.sas(p.right) {
		if a.Name != "mschapv2" {
			t.Errorf("%s is still there", a.Name)
		}
	}
	p.down(t, "mschapv2")
	if r := p.recorded(t, s, "alice", "Stop"); !strings.Contains(r, "Acct-Terminate-Cause = User-Request") {
		t.Errorf("alice's Stop is\n%s", r)
	}
}
