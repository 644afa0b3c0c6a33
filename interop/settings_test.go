package interop_test

import (
	"os"
	"path/filepath"
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
	t.Parallel()
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

// resolve.file: the name servers that a gateway gives stand in the client's resolv.conf
// as long as the tunnel does. install_virtual_ip_on: the address lies on the interface named.
func TestResolverAndAddressAsConfigured(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	own := "nameserver 192.0.2.53\n"
	if err := os.WriteFile(file, []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	set := "install_virtual_ip_on = lo\nplugins {\nresolve {\nfile = " + file + "\n}\n}\n"
	runOne(t, pair{adit, strongSwan}, settings{middle: lab.Bridge, charon: set}, func(t *testing.T, p *path) {
		p.giveClients("alice")
		p.client(t, "alice", 0)
		p.reaches(t, 0)
		if b, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(b), own) || !strings.Contains(string(b), "nameserver 10.2.0.53   # by adit\n") || !strings.Contains(string(b), "nameserver fd02::53   # by adit\n") {
			t.Errorf("while it is up: %q %v", b, err)
		}
		if out, err := p.Exec(5*time.Second, lab.Left, "ip", "-o", "addr", "show", "dev", "lo"); err != nil || !strings.Contains(out, vip4[0].String()+"/32") {
			t.Errorf("the address is not on lo: %s %v", out, err)
		}
		p.leave(t, "alice")
		if err := lab.Poll(p.patience, func() (bool, error) {
			b, err := os.ReadFile(file)
			return string(b) == own, err
		}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
