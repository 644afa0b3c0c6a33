package interop_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// The client follows the gateway's REDIRECT within an IKE SA (RFC 5685 §5): it sets up the
// tunnel with the other gateway, here another address of the same one, and deletes the first.
func TestRedirect(t *testing.T) {
	t.Parallel()
	among(t, []pair{{strongSwan, adit}, {adit, strongSwan}, {adit, adit}}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
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
		if g, ok := p.right.(*peer.AditGateway); ok {
			drains(t, p, g)
		}
	})
}

// drains empties a gateway without another one to send its client to.
func drains(t *testing.T, p *path, g *peer.AditGateway) {
	run := func(want string, args ...string) {
		t.Helper()
		out, err := g.Command(append(args, "--vici", g.URI())...)
		if t.Logf("$ adit %s\n%s", strings.Join(args, " "), out); err != nil || !strings.Contains(out, want) {
			t.Errorf("adit %s: %v, no %q", strings.Join(args, " "), err, want)
		}
	}
	run("draining: 0 peers are here; 0 of 1 redirected, 1 closed", "drain", "--close")
	p.wait("the client to lose its tunnel", p.left, func(s []peer.SA) bool { return len(peer.Installed(s, "net")) == 0 })
	run("draining: 0 peers are here", "drain", "--status")
	run("new peers are taken again", "undrain")
}

// The gateway redirects in its answer to IKE_SA_INIT (RFC 5685 §3), or once the client is
// authenticated in IKE_AUTH (§6). strongSwan 5.9.8 as client crashes by the latter
// ("double free detected"), whoever the gateway is.
func TestRedirectNewClients(t *testing.T) {
	t.Parallel()
	const other = "192.0.2.77"
	for name, c := range map[string]struct {
		daemon, conn string
		pairs        []pair
	}{"init": {daemon: "redirect = " + other + "\n", pairs: []pair{{strongSwan, adit}, {adit, adit}}},
		"auth": {conn: "redirect = " + other, pairs: []pair{{adit, adit}}}} {
		t.Run(name, func(t *testing.T) {
			among(t, c.pairs, settings{middle: lab.Bridge, charon: c.daemon}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				if out, err := p.Exec(5*time.Second, lab.Right, "ip", "addr", "add", other+"/24", "dev", lab.Wan); err != nil {
					t.Fatal(out, err)
				}
				right.local += "," + other
				right.extra = c.conn
				p.load(left, right)
				// charon ends the command as soon as its first attempt has an end.
				_, _ = p.left.Swanctl("--initiate", "--child", "net", "--timeout", "10")
				p.wait("the tunnel with the other gateway alone", p.right, func(s []peer.SA) bool {
					return len(s) == 1 && len(peer.Installed(s, "net")) == 1 && s[0].LocalHost == other
				})
				p.wait("the same at the client", p.left, func(s []peer.SA) bool {
					return len(s) == 1 && s[0].RemoteHost == other && len(peer.Installed(s, "net")) == 1
				})
				time.Sleep(100 * time.Millisecond)
				p.pings(false)
			})
		})
	}
}
