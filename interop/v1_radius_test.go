package interop_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/radius/radiustest"
)

// Names and passwords of XAUTH that FreeRADIUS knows: as User-Password and by EAP, with
// the Class as group; a wrong password and a user of another group are refused.
func TestV1RADIUS(t *testing.T) {
	t.Parallel()
	knob := "i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n"
	among(t, []pair{{strongSwan, adit}, {adit, adit}}, settings{middle: lab.Bridge, charon: knob, right: radiusServers}, func(t *testing.T, p *path) {
		aaa := radiustest.Start(t, radiustest.Config{Accounting: true, Namespace: p.NS(lab.RightHost), Listen: netip.MustParseAddrPort(radiusServer + ":1812"), Secret: radiusSecret,
			DefaultEAP: "mschapv2", Users: []radiustest.User{
				{Name: "alice", Password: "Tweedle dee", Reply: []string{`Class = "staff"`, "Session-Timeout = 600", "Acct-Interim-Interval = 1"}},
				{Name: "bob", Password: "Tweedle dum", Reply: []string{`Class = "guests"`}},
			}})
		for _, c := range []struct{ backend, user, password, want string }{
			{"xauth-radius", "alice", "Tweedle dee", ""},
			{"xauth-eap", "alice", "Tweedle dee", ""},
			{"xauth-radius", "alice", "Tweedle dum", "RADIUS server live"},
			{"xauth-eap", "alice", "Tweedle dum", "RADIUS server live"},
			{"xauth-radius", "bob", "Tweedle dum", "in none of its groups"},
		} {
			text := func(local, remote, extra, auth, localTS, remoteTS, top string) string {
				return fmt.Sprintf("connections {\n gw {\n version = 1\n local_addrs = %s\n remote_addrs = %s\n proposals = aes256-sha256-modp2048\n %s\n%s\n children {\n net {\n local_ts = %s\n remote_ts = %s\n esp_proposals = aes256-sha256\n }\n }\n }\n}\nsecrets {\n ike-1 {\n secret = \"what all share\"\n }\n xauth-1 {\n id = %s\n secret = %q\n }\n}\n%s",
					local, remote, extra, auth, localTS, remoteTS, c.user, c.password, top)
			}
			server := strings.ReplaceAll(text(p.R.Wan4.String(), p.L.Wan4.String(), "pools = v4\n", "local { auth = psk\n id = right.example.org\n }\n remote { auth = psk\n }\n remote-x { auth = "+c.backend+"\n groups = staff\n }", "10.2.0.0/24", "dynamic", v1Pool), c.password, "what nobody types")
			p.give(setting{files{}, text(p.L.Wan4.String(), p.R.Wan4.String(), "vips = 0.0.0.0\n", "local { auth = psk\n id = left.example.org\n }\n local-x { auth = xauth\n xauth_id = "+c.user+"\n }\n remote { auth = psk\n id = right.example.org\n }", "dynamic", "10.2.0.0/24", "")}, setting{files{}, server})
			m := p.mark()
			err := p.left.Initiate("net")
			_, r := m.since()
			if c.want != "" {
				if err == nil {
					t.Errorf("%s %s: is let in", c.backend, c.user)
				}
				p.says(t, p.right, r, c.want)
				p.left.Terminate("gw")
				p.gone(t)
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", c.backend, err, r)
			}
			s := peer.Established(p.sas(p.right), "gw")
			if len(s) != 1 || s[0].Fields["remote-xauth-id"] != c.user || len(s[0].RemoteVIPs) != 1 {
				t.Errorf("%s: the gateway has %+v", c.backend, s)
			}
			if c.backend == "xauth-radius" {
				p.v1Accounted(t, aaa)
			} else {
				p.down(t, "gw")
			}
		}
		// The server hears of the gateway's own start and end, too.
		if err := errors.Join(p.right.Stop(), p.right.Start()); err != nil {
			t.Fatal(err)
		}
		for _, status := range []string{"Accounting-On", "Accounting-Off"} {
			if r := p.recordedWith(t, aaa, "Acct-Status-Type = "+status); !strings.Contains(r, "NAS-Identifier = \"adit\"") {
				t.Errorf("%s is\n%s", status, r)
			}
		}
	})
}

// v1Accounted follows the session of alice, who came in by XAUTH, until the server ends it.
func (p *path) v1Accounted(t *testing.T, s *radiustest.Server) {
	t.Helper()
	start := p.recorded(t, s, "alice", "Start")
	vip := p.sas(p.right)[0].RemoteVIPs[0]
	for _, w := range []string{"Framed-IP-Address = " + vip, "NAS-Port-Id = \"gw\"", "Class = 0x7374616666"} {
		if !strings.Contains(start, w) {
			t.Errorf("the Start lacks %s:\n%s", w, start)
		}
	}
	if err := lab.Poll(5*time.Second, func() (bool, error) {
		got, err := p.Ping(lab.Left, p.R.Host4, lab.PingOptions{Source: netip.MustParseAddr(vip), Timeout: 200 * time.Millisecond})
		return got.Received > 0, err
	}); err != nil {
		t.Error(err)
	}
	if err := lab.Poll(6*time.Second, func() (bool, error) {
		return acctNumber(record(s, "alice", "Interim-Update"), "Acct-Input-Octets") >= 84, nil
	}); err != nil {
		t.Errorf("no interim update with the ping: %v\n%s", err, s.AcctRecords())
	}
	if out := p.radclient("disconnect", fmt.Sprintf("User-Name = alice\nEvent-Timestamp = %d\n", time.Now().Unix())); !strings.Contains(out, "Disconnect-ACK") {
		t.Errorf("no Disconnect-ACK:\n%s", out)
	}
	if r := p.recorded(t, s, "alice", "Stop"); !strings.Contains(r, "Acct-Terminate-Cause = Admin-Reset") || acctNumber(r, "Acct-Output-Octets") < 84 || !strings.Contains(r, acctSession(start)) {
		t.Errorf("the Stop is\n%s", r)
	}
	p.gone(t)
}
