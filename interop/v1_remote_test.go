package interop_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// v1Pool is what a gateway gives its clients by Mode Config.
const v1Pool = `pools {
	v4 {
		addrs = 10.3.0.16/30
		dns = 10.2.0.53
		split_include = 10.2.0.0/24
		28672 = "welcome to the gateway"
	}
}
`

const v1Users = `xauth-alice {
		id = alice
		secret = "wonder land"
	}
`

// XAUTH by a shared key, RSA and hybrid, in main and aggressive mode, with addresses
// that are pulled or pushed; then a wrong password.
func TestV1RemoteAccess(t *testing.T) {
	t.Parallel()
	d := issued(t, "x", pkitest.RSA2048, pkitest.RSA2048)
	_ = d
	knob := "i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n"
	across(t, settings{middle: lab.Bridge, charon: knob}, func(t *testing.T, p *path) {
		for _, c := range []struct{ name, extra, left, right, rleft, rright string }{
			{"psk", "", "local { auth = psk\n id = left.example.org\n }\n local-x { auth = xauth\n xauth_id = alice\n }\n remote { auth = psk\n id = right.example.org\n }",
				"local { auth = psk\n id = right.example.org\n }\n remote { auth = psk\n }\n remote-x { auth = xauth\n }", "", ""},
			{"push", "pull = no\n", "local { auth = psk\n id = left.example.org\n }\n local-x { auth = xauth\n xauth_id = alice\n }\n remote { auth = psk\n id = right.example.org\n }",
				"local { auth = psk\n id = right.example.org\n }\n remote { auth = psk\n }\n remote-x { auth = xauth\n }", "", ""},
			{"aggressive", "aggressive = yes\n", "local { auth = psk\n id = left.example.org\n }\n local-x { auth = xauth\n xauth_id = alice\n }\n remote { auth = psk\n id = right.example.org\n }",
				"local { auth = psk\n id = right.example.org\n }\n remote { auth = psk\n }\n remote-x { auth = xauth\n }", "", ""},
			{"rsa", "", "local { auth = pubkey\n certs = x.pem\n id = l.x.example.org\n }\n local-x { auth = xauth\n xauth_id = alice\n }\n remote { auth = pubkey\n id = r.x.example.org\n }",
				"local { auth = pubkey\n certs = x.pem\n id = r.x.example.org\n }\n remote { auth = pubkey\n }\n remote-x { auth = xauth\n }", "", ""},
			{"hybrid", "", "local { auth = xauth\n id = l.x.example.org\n xauth_id = alice\n }\n remote { auth = pubkey\n id = r.x.example.org\n }",
				"local { auth = pubkey\n certs = x.pem\n id = r.x.example.org\n }\n remote { auth = xauth\n }", "", ""},
		} {
			text := func(local, remote, extra, auth, localTS, remoteTS, top string) string {
				return fmt.Sprintf("connections {\n gw {\n version = 1\n local_addrs = %s\n remote_addrs = %s\n proposals = aes256-sha256-modp2048\n %s %s\n%s\n children {\n net {\n local_ts = %s\n remote_ts = %s\n esp_proposals = aes256-sha256\n }\n }\n }\n}\nsecrets {\n ike-1 {\n secret = \"what all share\"\n }\n %s}\n%s",
					local, remote, c.extra, extra, auth, localTS, remoteTS, v1Users, top)
			}
			lf, rf := owned("x", d.left), owned("x", d.right)
			lf["x509ca/x.pem"], rf["x509ca/x.pem"] = d.ca.PEM(), d.ca.PEM()
			p.give(setting{lf, text(p.L.Wan4.String(), p.R.Wan4.String(), "vips = 0.0.0.0\n", c.left, "dynamic", "10.2.0.0/24", "")},
				setting{rf, text(p.R.Wan4.String(), p.L.Wan4.String(), "pools = v4\n", c.right, "10.2.0.0/24", "dynamic", v1Pool)})
			m := p.mark()
			if err := p.left.Initiate("net"); err != nil {
				l, r := m.since()
				t.Errorf("%s: %v\nleft:\n%s\nright:\n%s", c.name, err, l, r)
				p.left.Terminate("gw")
				continue
			}
			s := peer.Established(p.sas(p.left), "gw")
			if len(s) != 1 || len(s[0].LocalVIPs) != 1 || !strings.HasPrefix(s[0].LocalVIPs[0], "10.3.0.1") {
				t.Errorf("%s: the client has %+v", c.name, s)
				continue
			}
			src := netip.MustParseAddr(s[0].LocalVIPs[0])
			if err := lab.Poll(5*time.Second, func() (bool, error) {
				got, err := p.Ping(lab.Left, p.R.Host4, lab.PingOptions{Source: src, Pattern: marker, Timeout: 200 * time.Millisecond})
				return got.Received > 0, err
			}); err != nil {
				t.Errorf("%s: ping: %v", c.name, err)
			}
			if err := p.left.Terminate("gw"); err != nil {
				t.Error(err)
			}
			p.wait("the end at the gateway", p.right, func(s []peer.SA) bool { return len(s) == 0 })
		}
	})
}

// aditV1Gateway is adit as a gateway for vpnc: aggressive mode with a group's key, XAUTH,
// Mode Config with Unity attributes.
func aditV1Gateway(p *path) string {
	return fmt.Sprintf(`connections {
	vpn {
		version = 1
		aggressive = yes
		local_addrs = %s
		proposals = aes256-sha1-modp1024, aes128-sha1-modp1024
		pools = v4
		local {
			auth = psk
			id = right.example.org
		}
		remote {
			auth = psk
		}
		remote-x {
			auth = xauth
		}
		children {
			net {
				local_ts = 0.0.0.0/0
				remote_ts = dynamic
				esp_proposals = aes256-sha1, aes128-sha1
			}
		}
	}
}
secrets {
	ike-group {
		secret = "the key of the group"
	}
	%s}
%s`, p.R.Wan4, v1Users, v1Pool)
}

// Debian's vpnc connects, pings, and disconnects; with a wrong password it does not.
func TestV1Vpnc(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("vpnc"); err != nil {
		t.Fatal("vpnc is not installed (run scripts/setup.sh)")
	}
	runOne(t, pair{adit, adit}, settings{middle: lab.NAT, charon: "i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n"}, func(t *testing.T, p *path) {
		if err := p.right.Load(aditV1Gateway(p)); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		script := filepath.Join(dir, "script")
		os.WriteFile(script, []byte("#!/bin/sh\nif [ \"$reason\" = connect ]; then\nip addr add $INTERNAL_IP4_ADDRESS/32 dev $TUNDEV\nip link set $TUNDEV up mtu 1300\nip route add 10.2.0.0/24 dev $TUNDEV\necho \"dns $INTERNAL_IP4_DNS split $CISCO_SPLIT_INC $CISCO_SPLIT_INC_0_ADDR/$CISCO_SPLIT_INC_0_MASKLEN\" > "+dir+"/told\nfi\n"), 0o700)
		start := func(password string) *lab.Proc {
			conf := filepath.Join(dir, "vpnc.conf")
			os.WriteFile(conf, []byte(fmt.Sprintf("IPSec gateway %s\nIPSec ID group\nIPSec secret the key of the group\nXauth username alice\nXauth password %s\nScript %s\nPidfile %s/pid\nNo Detach\nLocal Port 0\n", p.R.Wan4, password, script, dir)), 0o600)
			v, err := p.Start(lab.Left, nil, "vpnc", conf)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		v := start("guessed")
		select {
		case <-v.Done():
		case <-time.After(20 * time.Second):
			t.Error("vpnc goes on with a wrong password")
			v.Kill()
		}
		if s := p.sas(p.right); len(peer.Established(s, "vpn")) != 0 {
			t.Errorf("a wrong password leaves %+v", s)
		}
		v = start("wonder land")
		if err := lab.Poll(15*time.Second, func() (bool, error) {
			return len(peer.Installed(p.sas(p.right), "net")) == 1, nil
		}); err != nil {
			t.Fatalf("vpnc doesn't come up: %v\n%s", err, v.Log())
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) {
			got, err := p.Ping(lab.Left, p.R.Host4, lab.PingOptions{Source: netip.MustParseAddr("10.3.0.17"), Pattern: marker, Timeout: 200 * time.Millisecond})
			return got.Received > 0, err
		}); err != nil {
			t.Errorf("ping: %v\n%s", err, v.Log())
		}
		if told, _ := os.ReadFile(filepath.Join(dir, "told")); !strings.Contains(string(told), "dns 10.2.0.53 split 1 10.2.0.0/24") {
			t.Errorf("vpnc was told %q", told)
		}
		old := peer.Installed(p.sas(p.right), "net")[0].SPIIn
		if err := p.right.RekeyChild("net"); err != nil {
			t.Error(err)
		}
		p.wait("the rekey with vpnc", p.right, func(s []peer.SA) bool {
			c := peer.Installed(s, "net")
			return len(c) == 1 && c[0].SPIIn != old
		})
		if err := lab.Poll(5*time.Second, func() (bool, error) {
			got, err := p.Ping(lab.Left, p.R.Host4, lab.PingOptions{Source: netip.MustParseAddr("10.3.0.17"), Pattern: marker, Timeout: 200 * time.Millisecond})
			return got.Received > 0, err
		}); err != nil {
			t.Errorf("ping after the rekey: %v\n%s", err, v.Log())
		}
		v.Signal(syscall.SIGTERM)
		p.wait("the end of vpnc's SA", p.right, func(s []peer.SA) bool { return len(s) == 0 })
	})
}

// ike-scan gets an answer in main mode and none that helps it in aggressive mode.
func TestV1Scan(t *testing.T) {
	t.Parallel()
	runOne(t, pair{adit, adit}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		right.ike = "aes128-sha1-modp1024"
		_ = left
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
		main, err := p.Exec(20*time.Second, lab.Left, "ike-scan", "--sport=0", "--retry=1", "--trans=7/128,2,1,2", p.R.Wan4.String())
		if err != nil || !strings.Contains(main, "Main Mode Handshake returned") || !strings.Contains(main, "KeyLength=128") {
			t.Errorf("main mode: %s %v", main, err)
		}
		other, err := p.Exec(20*time.Second, lab.Left, "ike-scan", "--sport=0", "--retry=1", "--trans=5,1,1,2", p.R.Wan4.String())
		if err != nil || !strings.Contains(other, "NO-PROPOSAL-CHOSEN") {
			t.Errorf("main mode with 3DES and MD5: %s %v", other, err)
		}
		aggressive, err := p.Exec(20*time.Second, lab.Left, "ike-scan", "--sport=0", "--retry=1", "--aggressive", "--id=left.example.org", "--trans=7/128,2,1,2", p.R.Wan4.String())
		if err != nil || strings.Contains(aggressive, "Aggressive Mode Handshake returned") {
			t.Errorf("aggressive mode: %s %v", aggressive, err)
		}
	})
}
