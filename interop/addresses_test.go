package interop_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// Certificates with an intermediate authority over a path of 576 octets (IPv4) and
// 1280 (IPv6): IKE_AUTH goes in fragments of its own, never of IP's (RFC 7383).
func TestFragmentation(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		size, mtu := "576", 576
		if v6 {
			size, mtu = "1280", 1280
		}
		t.Run(map[bool]string{false: "v4", true: "v6"}[v6], func(t *testing.T) {
			across(t, settings{middle: lab.Bridge, charon: "fragment_size = " + size + "\n"}, func(t *testing.T, p *path) {
				root := pkitest.NewCA(t, pkitest.Spec{Name: "Root", Key: pkitest.RSA2048})
				l, r := p.ends(v6)
				end := func(c conn, name, own, other string) setting {
					sub := root.IssueCA(pkitest.Spec{Name: "Intermediate of " + name, Key: pkitest.RSA2048})
					f := trusted(root, sub).and(owned(name, sub.Issue(pkitest.Spec{Name: own, DNS: []string{own}, Key: pkitest.RSA2048})))
					return setting{f, c.with("", site{name: "net", local: "auth = pubkey\ncerts = " + name + ".pem\nid = " + own, remote: "auth = pubkey\nid = " + other,
						extra: "send_cert = always\n"})}
				}
				p.give(end(l, "left", leftID, rightID), end(r, "right", rightID, leftID))
				p.freshCapture()
				p.established(t, "net")
				_, far := p.hosts(v6)
				if err := p.WaitPing(lab.LeftHost, far, 5*time.Second); err != nil {
					t.Fatal(err)
				}
				longest, ike := 0, 0
				p.outside.Count(func(k *lab.Packet) bool {
					longest = max(longest, k.Len)
					if k.Class == lab.ClassIKE {
						ike++
					}
					return false
				})
				if c := p.outside.Counts(); longest > mtu || c.By[lab.ClassFragment] != 0 || ike < 6 {
					t.Errorf("the longest packet has %d octets, %d of IKE: %+v", longest, ike, c)
				}
			})
		})
	}
}

// A client asks for a virtual address, of either family, and gets one out of the
// gateway's pool with its name servers (RFC 7296 §2.19).
func TestVirtualAddresses(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.NAT}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.localTS, right.remoteTS, right.remote = "dynamic", "dynamic", "%any"
		left.extra, right.extra = "vips = 0.0.0.0\n", "pools = pool\n"
		pools := "pools {\npool {\naddrs = 10.3.0.0/28\ndns = 10.2.0.53\n}\n}\n"
		if err := p.left.Load(left.text(leftID, rightID)); err != nil {
			t.Fatal(err)
		}
		if err := p.right.Load(right.text(rightID, leftID) + pools); err != nil {
			t.Fatal(err)
		}
		p.up()
		const vip = "10.3.0.1"
		check := func(when string) {
			t.Helper()
			l, r := p.sas(p.left), p.sas(p.right)
			if len(l) != 1 || len(r) != 1 || !slices.Equal(l[0].LocalVIPs, []string{vip}) || !slices.Equal(r[0].RemoteVIPs, []string{vip}) {
				t.Errorf("%s: left %+v, right %+v", when, l, r)
			}
			cl, cr := peer.Installed(l, "net"), peer.Installed(r, "net")
			if len(cl) != 1 || len(cr) != 1 || !slices.Equal(cl[0].LocalTS, []string{vip + "/32"}) || !slices.Equal(cr[0].RemoteTS, []string{vip + "/32"}) {
				t.Errorf("%s: left %+v, right %+v", when, cl, cr)
			}
		}
		check("at first")
		ping := func() {
			t.Helper()
			if err := p.WaitPing(lab.Left, p.R.Host4, 5*time.Second); err != nil {
				t.Error(err)
			}
		}
		ping()
		spi := p.sas(p.left)[0].InitiatorSPI
		if err := p.left.RekeyIKE("gw"); err != nil {
			t.Fatal(err)
		}
		p.wait("the rekeyed IKE SA", p.left, func(s []peer.SA) bool { return len(s) == 1 && s[0].InitiatorSPI != spi })
		p.wait("the rekeyed IKE SA", p.right, func(s []peer.SA) bool { return len(s) == 1 && s[0].InitiatorSPI != spi })
		check("after a rekey")
		ping()
		p.down(t, "gw")
		out, err := p.Exec(5*time.Second, lab.Left, "ip", "-4", "addr")
		if err != nil || strings.Contains(out, vip+"/") {
			t.Errorf("the address is still there: %s %v", out, err)
		}
	})
}

// A gateway whose pool is empty has no address to give: the IKE SA comes up, the
// Child SA does not.
func TestNoVirtualAddress(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.localTS, right.remoteTS = "dynamic", "dynamic"
		left.extra = "vips = 0.0.0.0\n"
		p.load(left, right)
		if err := p.left.Initiate("net"); err == nil {
			t.Error("it came up")
		}
		for _, g := range []peer.Gateway{p.left, p.right} {
			if s := p.sas(g); len(s) != 1 || len(peer.Installed(s, "net")) != 0 {
				t.Errorf("%s: %+v", g.Name(), s)
			}
		}
	})
}

// Childless set-ups in either role (RFC 6023).
func TestChildless(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.extra, right.extra = "childless = force\n", "childless = force\n"
		p.load(left, right)
		p.up()
		p.pings(false)
	})
}

// Transport mode behind a NAT (RFC 7296 §2.23.1), with TCP, whose checksums cover
// addresses that the other side never sees.
func TestTransportModeThroughNAT(t *testing.T) {
	t.Parallel()
	alone(t, settings{middle: lab.NAT}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.localTS, left.remoteTS, right.localTS, right.remoteTS, right.remote = "dynamic", "dynamic", "dynamic", "dynamic", "%any"
		left.child, right.child = "mode = transport\n", "mode = transport\n"
		p.load(left, right)
		p.up()
		if err := p.WaitPing(lab.Left, p.R.Wan4, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if r, err := p.Iperf(lab.Left, lab.Right, p.R.Wan4, lab.IperfOptions{Bytes: 1 << 20}); err != nil || r.Bytes == 0 {
			t.Errorf("TCP: %+v %v", r, err)
		}
		if c := p.outside.Counts(); c.By[lab.ClassUDPESP] < 20 {
			t.Errorf("outside: %+v", c)
		}
	})
}
