package interop_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// strongSwan as client follows adit's REDIRECT (RFC 5685): it sets up the tunnel with the
// other gateway, here another address of the same one, and deletes the first.
func TestRedirect(t *testing.T) {
	among(t, []pair{{strongSwan, adit}}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		other := netip.MustParseAddr("192.0.2.77")
		if out, err := p.Exec(5*time.Second, lab.Right, "ip", "addr", "add", other.String()+"/24", "dev", lab.Wan); err != nil {
			t.Fatal(out, err)
		}
		right.local += "," + other.String()
		p.load(left, right)
		p.up()
		first := p.sas(p.right)[0].InitiatorSPI
		if out, err := p.right.Swanctl("--redirect", "--ike", "gw", "--gateway", "198.18.0.1", "--peer-ip", "203.0.113.0/24"); err == nil || !strings.Contains(out+err.Error(), "no matching SAs to redirect found") {
			t.Errorf("redirecting nobody: %s %v", out, err)
		}
		out, err := p.right.Swanctl("--redirect", "--peer-id", "*.example.org", "--gateway", other.String())
		if err != nil || !strings.Contains(out, "redirect completed successfully") {
			t.Fatal(out, err)
		}
		p.wait("the tunnel with the other gateway alone", p.right, func(s []peer.SA) bool {
			return len(s) == 1 && len(peer.Installed(s, "net")) == 1 && s[0].InitiatorSPI != first && s[0].LocalHost == other.String()
		})
		p.wait("the same at the client", p.left, func(s []peer.SA) bool { return len(s) == 1 && s[0].RemoteHost == other.String() })
		time.Sleep(100 * time.Millisecond) // the last Delete's wake
		p.pings(false)
	})
}
