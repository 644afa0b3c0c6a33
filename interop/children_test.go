package interop_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// Several Child SAs of one connection side by side, told apart by protocol, port, ICMP
// type and family, one with a fixed reqid. IPComp is not agreed on: the child comes up
// without it (RFC 7296 §2.22).
func TestChildrenBySelectors(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		icmp := "icmp/0-8" // echo reply to echo request
		for _, g := range []peer.Gateway{p.left, p.right} {
			if strings.HasPrefix(g.Name(), string(strongSwan)) {
				icmp = "icmp"
			}
		}
		l4, r4, l6, r6 := p.L.Inner4, p.R.Inner4, p.L.Inner6, p.R.Inner6
		child := func(name string, local, remote any, more string) string {
			return fmt.Sprintf("%s {\nlocal_ts = %v\nremote_ts = %v\nesp_proposals = aes256gcm16\n%s}\n", name, local, remote, more)
		}
		at := func(prefix any, ports string) string { return fmt.Sprintf("%v[%s]", prefix, ports) }
		left.children = child("net", at(l4, "tcp"), at(r4, "tcp/5201"), "reqid = 42\nipcomp = yes\n") +
			child("data", at(l4, "udp"), at(r4, "udp/7000-7999"), "") + child("echo", at(l4, icmp), at(r4, icmp), "") + child("six", l6, r6, "")
		right.children = child("net", at(r4, "tcp/5201"), at(l4, "tcp"), "reqid = 43\nipcomp = yes\n") +
			child("data", at(r4, "udp/7000-7999"), at(l4, "udp"), "") + child("echo", at(r4, icmp), at(l4, icmp), "") + child("six", r6, l6, "")
		p.load(left, right)
		p.up()
		for _, name := range []string{"data", "echo", "six"} {
			if err := p.left.Initiate(name); err != nil {
				t.Fatal(err)
			}
		}
		for g, id := range map[peer.Gateway]string{p.left: "42", p.right: "43"} {
			s := p.sas(g)
			if c := peer.Installed(s, "net"); len(s) != 1 || len(s[0].Children) != 4 || len(c) != 1 || c[0].Fields["reqid"] != id || c[0].Fields["cpi-in"] != "" {
				t.Fatalf("%s has %+v", g.Name(), s)
			}
		}

		// Each kind of traffic goes by its own child, and only there.
		used := func() map[string]uint64 {
			n := map[string]uint64{}
			for _, sa := range p.sas(p.left) {
				for _, c := range sa.Children {
					n[c.Name] = c.PacketsOut
				}
			}
			return n
		}
		only := func(name string, traffic func()) {
			t.Helper()
			before := used()
			traffic()
			for n, now := range used() {
				if grew := now > before[n]; grew != (n == name) {
					t.Errorf("traffic for %s: %s went from %d to %d packets", name, n, before[n], now)
				}
			}
		}
		only("echo", func() {
			if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
				t.Error(err)
			}
		})
		only("net", func() {
			if r, err := p.Iperf(lab.LeftHost, lab.RightHost, p.R.Host4, lab.IperfOptions{Bytes: 1 << 21}); err != nil || r.Bytes == 0 {
				t.Errorf("TCP: %+v %v", r, err)
			}
		})
		only("data", func() {
			f, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Port: 7777, Rate: 200})
			if err != nil {
				t.Fatal(err)
			}
			if err := lab.Poll(5*time.Second, func() (bool, error) { return f.Received() > 20, nil }); err != nil {
				t.Error(err)
			}
			if r := f.Stop(); r.Lost() != 0 {
				t.Errorf("UDP: %v", r)
			}
		})
		only("six", func() {
			if err := p.WaitPing(lab.LeftHost, p.R.Host6, 5*time.Second); err != nil {
				t.Error(err)
			}
		})
		// All of them survive a rekey of the IKE SA.
		old := p.sas(p.left)[0].InitiatorSPI
		if err := p.right.RekeyIKE("gw"); err != nil {
			t.Fatal(err)
		}
		p.wait("a rekeyed IKE SA with all children", p.left, func(s []peer.SA) bool {
			return len(s) == 1 && s[0].InitiatorSPI != old && len(s[0].Children) == 4
		})
	})
}

// Each value of `childless` (RFC 6023): with force and prefer the IKE SA can come up by
// itself and the child follows in an exchange of its own; a gateway that insists refuses
// a client that brings a child along.
func TestChildlessSettings(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		l, r := p.ends(false)
		secret := "secrets {\nike-1 {\nsecret = \"a secret for all of them\"\n}\n}\n"
		end := func(name, own, other, childless string) site {
			return site{name: name, local: "auth = psk\nid = " + own, remote: "auth = psk\nid = " + other, extra: "childless = " + childless + "\n"}
		}
		// Peer quirk: strongSwan 5.9.8 has no `prefer` yet.
		prefer, may := "prefer", "prefer"
		if _, ours := p.left.(*peer.AditGateway); !ours {
			prefer, may = "force", "allow"
		}
		give := func(cases ...[3]string) {
			var ls, rs []site
			for _, c := range cases {
				ls = append(ls, end(c[0], clientID(c[0]), rightID, c[1]))
				rs = append(rs, end(c[0], rightID, clientID(c[0]), c[2]))
			}
			p.give(setting{conf: l.with(secret, ls...)}, setting{conf: r.with(secret, rs...)})
		}
		give([3]string{"force", "force", "allow"}, [3]string{"prefer", prefer, "allow"}, [3]string{"both", "force", "force"}, [3]string{"insists", "never", "force"})
		for _, name := range []string{"force", "prefer", "both"} {
			if out, err := p.left.Swanctl("--initiate", "--ike", name, "--timeout", "10"); err != nil {
				t.Fatalf("%s: %v %s", name, err, out)
			}
			for _, g := range []peer.Gateway{p.left, p.right} {
				if s := p.sas(g); len(s) != 1 || s[0].State != "ESTABLISHED" || len(s[0].Children) != 0 {
					t.Errorf("%s without a child: %+v", name, s)
				}
			}
			p.reach(t, name)
			p.reach(t, name) // and with its child at once
		}
		if err := p.left.Initiate("insists"); err == nil {
			t.Error("a gateway with childless = force took a child in IKE_AUTH")
		}
		for _, g := range []peer.Gateway{p.left, p.right} {
			if c := peer.Installed(p.sas(g), "insists"); len(c) != 0 {
				t.Errorf("%s has %+v", g.Name(), c)
			}
		}
		p.gone(t)
		// The gateway tells with IKE_SA_INIT, before it knows who comes, that it can't.
		give([3]string{"unable", may, "never"}, [3]string{"insists", "force", "never"})
		p.reach(t, "unable")
		if err := p.left.Initiate("insists"); err == nil {
			t.Error("a client with childless = force came up with a gateway that can't")
		}
	})
}
