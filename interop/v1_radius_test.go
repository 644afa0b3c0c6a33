package interop_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/radius/radiustest"
)

// Names and passwords of XAUTH that FreeRADIUS knows: as User-Password and by EAP, with
// the Class as group; a wrong password and a user of another group are refused.
func TestV1RADIUS(t *testing.T) {
	knob := "i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n"
	among(t, []pair{{strongSwan, adit}, {adit, adit}}, settings{middle: lab.Bridge, charon: knob + radiusServers}, func(t *testing.T, p *path) {
		radiustest.Start(t, radiustest.Config{Namespace: p.NS(lab.RightHost), Listen: netip.MustParseAddrPort(radiusServer + ":1812"), Secret: radiusSecret,
			DefaultEAP: "mschapv2", Users: []radiustest.User{
				{Name: "alice", Password: "Tweedle dee", Reply: []string{`Class = "staff"`, "Session-Timeout = 600"}},
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
			p.down(t, "gw")
		}
	})
}
