package interop_test

import (
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// Settings of strongswan.conf and options of a child that a peer sees, against
// strongSwan: its vendor ID is known there, several rounds of authentication are not
// announced, SPIs lie in the range. HMAC-SHA-256 cut to 96 bits carries packets between
// two of ours: the lab's strongSwan has its ESP in user space, which cannot do that.
func TestSettingsThatAPeerSees(t *testing.T) {
	across(t, settings{middle: lab.Bridge, charon: "send_vendor_id = yes\nmultiple_authentication = no\nspi_min = 0xc1000000\nspi_max = 0xc10fffff\n"}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		cut := "yes"
		for _, g := range []peer.Gateway{p.left, p.right} {
			if _, ours := g.(*peer.AditGateway); !ours {
				cut = "no"
			}
		}
		for _, c := range []*conn{&left, &right} {
			c.children = "net {\nlocal_ts = " + c.localTS + "\nremote_ts = " + c.remoteTS + "\nesp_proposals = aes128-sha256\nsha256_96 = " + cut + "\npolicies_fwd_out = yes\n}\n"
		}
		p.load(left, right)
		p.up()
		if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
			t.Error(err)
		}
		for _, g := range []peer.Gateway{p.left, p.right} {
			c := peer.Installed(p.sas(g), "net")
			if len(c) != 1 || !strings.HasPrefix(c[0].Fields["spi-in"], "c10") {
				t.Errorf("%s has %+v", g.Name(), c)
			}
			if _, ours := g.(*peer.AditGateway); ours {
				continue
			}
			log := g.Log()
			if !strings.Contains(log, "received strongSwan vendor ID") || strings.Contains(log, "MULT_AUTH") {
				t.Errorf("%s:\n%s", g.Name(), log)
			}
		}
	})
}
