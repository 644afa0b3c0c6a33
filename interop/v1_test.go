package interop_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// v1 are both ends with IKEv1.
func (p *path) v1(v6 bool) (left, right conn) {
	left, right = p.ends(v6)
	for _, c := range []*conn{&left, &right} {
		c.version, c.ike, c.esp = "1", "aes256-sha256-modp2048", "aes256-sha256"
	}
	return left, right
}

// alive waits until each end has one ISAKMP SA that carries one child.
func (p *path) alive(what string, cond func(peer.SA, peer.Child) bool) {
	p.t.Helper()
	for _, g := range []peer.Gateway{p.left, p.right} {
		p.wait(what, g, func(s []peer.SA) bool {
			e, c := peer.Established(s, "gw"), peer.Installed(s, "net")
			return len(e) == 1 && len(c) == 1 && (cond == nil || cond(e[0], c[0]))
		})
	}
}

// Main mode with shared keys and quick mode, without and with PFS, then rekeys of
// phase 2 and a new phase 1 by either side, and an end.
func TestV1MainModePSK(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		p.load(left, right)
		p.up()
		p.pings(false)
		for i, g := range []peer.Gateway{p.left, p.right} {
			old := peer.Installed(p.sas(g), "net")[0].SPIIn
			if err := g.RekeyChild("net"); err != nil {
				t.Fatal(err)
			}
			p.wait(fmt.Sprintf("the rekey of the child by %d", i), g, func(s []peer.SA) bool {
				c := peer.Installed(s, "net")
				return len(c) == 1 && c[0].SPIIn != old
			})
			p.quickPing()
		}
		for i, g := range []peer.Gateway{p.left, p.right} {
			old := peer.Established(p.sas(g), "gw")[0].InitiatorSPI
			if err := g.RekeyIKE("gw"); err != nil {
				t.Fatal(err)
			}
			p.alive(fmt.Sprintf("a new phase 1 by %d", i), func(s peer.SA, _ peer.Child) bool { return s.InitiatorSPI != old })
			p.quickPing()
		}
		// With another suite, and the one of devices that have nothing better.
		for _, suite := range []struct{ ike, esp, encr string }{{left.ike, "aes128gcm16-ecp256", "AES_GCM_16"}, {"3des-md5-modp1024", "3des-md5-modp1024", "3DES_CBC"}} {
			left.ike, right.ike, left.esp, right.esp = suite.ike, suite.ike, suite.esp, suite.esp
			if err := p.left.Terminate("gw"); err != nil {
				t.Fatal(err)
			}
			p.wait("the end at the peer", p.right, func(s []peer.SA) bool { return len(s) == 0 })
			p.load(left, right)
			p.up()
			p.quickPing()
			if c := peer.Installed(p.sas(p.left), "net"); len(c) != 1 || c[0].Fields["encr-alg"] != suite.encr {
				t.Errorf("with %s: %+v", suite.esp, c)
			}
		}
	})
}

func (p *path) quickPing() {
	p.t.Helper()
	l, r := p.hosts(p.v6)
	for from, to := range map[string]any{lab.LeftHost: r, lab.RightHost: l} {
		_ = to
		dst := r
		if from == lab.RightHost {
			dst = l
		}
		if err := p.WaitPing(from, dst, 5*time.Second); err != nil {
			p.t.Errorf("ping from %s: %v", from, err)
		}
	}
}

// Signatures of RSA and ECDSA, with certificates that are sent.
func TestV1Signatures(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name string
		key  pkitest.KeyKind
	}{{"rsa", pkitest.RSA2048}, {"p256", pkitest.P256}, {"p384", pkitest.P384}, {"p521", pkitest.P521}}
	duos := make([]duo, len(kinds))
	for i, k := range kinds {
		duos[i] = issued(t, k.name, k.key, k.key)
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		lf, rf := files{}, files{}
		var ls, rs []site
		for i, k := range kinds {
			one := func(f files, e *pkitest.Entity, id, peerID string) site {
				f.and(owned(k.name, e))
				for n, b := range owned(k.name, e) {
					f[n] = b
				}
				f["x509ca/"+k.name+".pem"] = duos[i].ca.PEM()
				return site{name: k.name, local: fmt.Sprintf("auth = pubkey\ncerts = %s.pem\nid = %s.%s.example.org", k.name, id, k.name),
					remote: fmt.Sprintf("auth = pubkey\nid = %s.%s.example.org", peerID, k.name)}
			}
			ls, rs = append(ls, one(lf, duos[i].left, "l", "r")), append(rs, one(rf, duos[i].right, "r", "l"))
		}
		p.give(setting{lf, left.with("", ls...)}, setting{rf, right.with("", rs...)})
		for _, k := range kinds {
			l, r := p.reach(t, k.name)
			if l.Fields["version"] != "1" || l.RemoteID != "r."+k.name+".example.org" || r.RemoteID != "l."+k.name+".example.org" {
				t.Errorf("%s: version %s, left has %s, right %s with %s", k.name, l.Fields["version"], l.RemoteID, r.Name, r.RemoteID)
			}
		}
		// strongSwan tells which authorities were named to it: all of ours, by their names.
		for _, g := range []peer.Gateway{p.left, p.right} {
			if _, ours := g.(*peer.AditGateway); !ours && (!strings.Contains(g.Log(), "received cert request for '") || strings.Contains(g.Log(), "unknown ca")) {
				t.Errorf("CERTREQ as strongSwan has it: %s", g.Log())
			}
		}
		// Aggressive mode with signatures needs no switch.
		for _, list := range [][]site{ls, rs} {
			for i := range list {
				list[i].extra = "aggressive = yes\n"
			}
		}
		p.give(setting{lf, left.with("", ls...)}, setting{rf, right.with("", rs...)})
		for _, k := range kinds[:2] {
			p.reach(t, k.name)
		}
	})
}

// Transport mode between the gateways, in UDP and raw, IPv4 and IPv6.
func TestV1TransportMode(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		for _, encap := range []string{"yes", "no"} {
			t.Run(map[bool]string{false: "v4", true: "v6"}[v6]+"_encap_"+encap, func(t *testing.T) {
				alone(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.transport(p.v1, v6, encap) })
			})
		}
	}
}

// The initiator behind a NAT: UDP on port 4500 (RFC 3947).
func TestV1NAT(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.NAT}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		p.load(left, right)
		p.up()
		p.pings(false)
		if c := p.outside.Counts(); c.By[lab.ClassESP] != 0 {
			t.Errorf("ESP outside of UDP: %+v", c)
		}
	})
}

// A peer that was killed is found dead by adit; one that lives answers as often as it is
// asked, and is not given up.
func TestV1DeadPeer(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		g, dead := p.left, p.right
		if _, ours := g.(*peer.AditGateway); !ours {
			g, dead = p.right, p.left
		}
		for _, c := range []*conn{&left, &right} {
			c.extra, c.child = "dpd_delay = 1s\ndpd_timeout = 3s\n", "dpd_action = clear\n"
		}
		p.load(left, right)
		p.up()
		p.quickPing()
		time.Sleep(2500 * time.Millisecond)
		for _, g := range []peer.Gateway{p.left, p.right} {
			if s := p.sas(g); len(s) != 1 {
				t.Fatalf("the peer answers and is given up: %+v", s)
			}
		}
		dead.Kill9()
		p.patience = 15 * time.Second
		p.wait("the end of the SA with a dead peer", g, func(s []peer.SA) bool { return len(s) == 0 })
	})
}

// A gateway that was killed says INITIAL-CONTACT; a wrong key is refused and said.
func TestV1ContactAndWrongKey(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		left.extra, right.extra = "unique = replace\n", "unique = replace\n"
		p.load(left, right)
		p.up()
		p.left.Kill9()
		if err := p.left.Start(); err != nil {
			t.Fatal(err)
		}
		if err := p.left.Load(left.text(leftID, rightID)); err != nil {
			t.Fatal(err)
		}
		p.up()
		p.alive("one SA after INITIAL-CONTACT", nil)
		p.quickPing()
		if err := p.left.Terminate("gw"); err != nil {
			t.Fatal(err)
		}
		if _, ours := p.left.(*peer.AditGateway); !ours {
			return // strongSwan takes its time
		}
		left.key = "a wrong key"
		p.load(left, right)
		begin := time.Now()
		if err := p.left.Initiate("net"); err == nil {
			t.Error("a wrong key is taken")
		}
		if time.Since(begin) > 10*time.Second {
			t.Errorf("a wrong key is noticed after %v", time.Since(begin))
		}
	})
}

// Several children under one phase 1, with selectors of their own, over IPv6.
func TestV1SeveralChildren(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		p.v6 = true
		left, right := p.v1(true)
		child := func(c conn, name, l, r string) string {
			return fmt.Sprintf("%s {\nlocal_ts = %s\nremote_ts = %s\nesp_proposals = %s\n}\n", name, l, r, c.esp)
		}
		left.children = child(left, "net", left.localTS, left.remoteTS) + child(left, "web", left.localTS+"[tcp]", left.remoteTS+"[tcp/80]")
		right.children = child(right, "net", right.localTS, right.remoteTS) + child(right, "web", right.localTS+"[tcp/80]", right.remoteTS+"[tcp]")
		p.load(left, right)
		p.up()
		if err := p.left.Initiate("web"); err != nil {
			t.Fatal(err)
		}
		for _, g := range []peer.Gateway{p.left, p.right} {
			p.wait("two children", g, func(s []peer.SA) bool {
				return len(s) == 1 && len(peer.Installed(s, "net"))+len(peer.Installed(s, "web")) == 2
			})
		}
		p.quickPing()
		if err := p.left.TerminateChild("web"); err != nil {
			t.Fatal(err)
		}
		for _, g := range []peer.Gateway{p.left, p.right} {
			p.wait("one child", g, func(s []peer.SA) bool { return len(s) == 1 && len(s[0].Children) == 1 })
		}
		p.quickPing()
	})
}

// What the peer refuses is named: proposals of phase 2, selectors, proposals of phase 1.
func TestV1Refusals(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		for _, c := range []struct {
			name, want string
			change     func(l *conn)
		}{
			{"esp", "proposal", func(l *conn) { l.esp = "aes128-sha512" }},
			{"selectors", "", func(l *conn) { l.localTS = "10.99.0.0/24" }},
			{"ike", "proposal", func(l *conn) { l.ike = "aes128-sha512-modp3072" }},
		} {
			left, right := p.v1(false)
			c.change(&left)
			p.load(left, right)
			err := p.left.Initiate("net")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			p.left.Terminate("gw")
		}
	})
}

// Aggressive mode, with a shared key where strongSwan's switch is set.
func TestV1Aggressive(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.NAT, charon: "i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n"}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		left.extra, right.extra = "aggressive = yes\n", "aggressive = yes\n"
		p.load(left, right)
		p.up()
		p.quickPing()
		if err := p.left.RekeyIKE("gw"); err != nil {
			t.Fatal(err)
		}
		p.alive("a new phase 1", nil)
		p.quickPing()
	})
}
