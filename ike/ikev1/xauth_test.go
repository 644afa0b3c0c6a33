package ikev1_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// clients makes a the client and b the gateway of remote access: XAUTH by PSK, RSA or
// hybrid, addresses by Mode Config.
func clients(t *testing.T, how string, push bool) *pair {
	p := newPair(t, func(a, b *side) {
		x := ike.AuthRound{Method: ike.AuthXAuth, EAPID: id("alice")}
		switch how {
		case "rsa", "hybrid":
			for _, r := range []*ike.AuthRound{&a.peer.Local[0], &a.peer.Remote[0], &b.peer.Local[0], &b.peer.Remote[0]} {
				r.Method = ike.AuthPubkey
			}
		case "aggressive":
			a.peer.Aggressive, b.peer.Aggressive, b.config.AggressivePSK = true, true, true
		}
		if how == "hybrid" {
			x.ID = id("a.example.org")
			a.peer.Local, b.peer.Remote = []ike.AuthRound{x}, []ike.AuthRound{{Method: ike.AuthXAuth}}
		} else {
			a.peer.Local, b.peer.Remote = append(a.peer.Local, x), append(b.peer.Remote, ike.AuthRound{Method: ike.AuthXAuth})
		}
		a.peer.VIPs, b.peer.Pools = []netip.Addr{netip.IPv4Unspecified()}, []string{"pool"}
		a.peer.Push, b.peer.Push = push, push
		a.child.Local, b.child.Remote = []ipsec.Selector{ipsec.Dynamic()}, []ipsec.Selector{ipsec.Dynamic()}
	})
	key := newKey(t, "rsa")
	introduce(p.a, p.b, "a.example.org", key)
	introduce(p.b, p.a, "b.example.org", key)
	p.a.creds.users["alice"], p.b.creds.users["alice"] = "wonderland", "wonderland"
	p.b.lease = func(q ike.LeaseAddresses) (*ike.Lease, error) {
		return &ike.Lease{Addrs: []netip.Addr{netip.MustParseAddr("10.3.0.7")}, Attributes: []wire.Attribute{
			{Type: wire.InternalIP4DNS, Value: []byte{10, 2, 0, 53}}, {Type: 28676, Value: []byte{10, 2, 0, 0, 255, 255, 0, 0}}, {Type: 28672, Value: []byte("welcome")}}}, nil
	}
	return p
}

// TestXAuthAndModeConfig: name and password in each way, addresses pulled and pushed,
// kept by a new phase 1, and given back.
func TestXAuthAndModeConfig(t *testing.T) {
	for _, how := range []string{"psk", "rsa", "hybrid", "aggressive"} {
		for _, push := range []bool{false, true} {
			p := clients(t, how, push)
			p.a.initiate("net")
			p.run(2 * time.Second)
			if len(p.a.e.SAs()) != 1 || len(p.b.e.SAs()) != 1 || len(p.a.plane.sas) != 2 {
				t.Fatalf("%s push=%v:\n%v\n%v", how, push, p.a.trace(), p.b.trace())
			}
			p.up()
			vip := netip.MustParseAddr("10.3.0.7")
			a, b := p.a.e.SAs()[0], p.b.e.SAs()[0]
			if !slices.Equal(a.LocalVIPs, []netip.Addr{vip}) || !slices.Equal(b.RemoteVIPs, a.LocalVIPs) || b.RemoteEAPID != "alice" ||
				!slices.Equal(a.Children[0].LocalTS, []ipsec.Selector{sel("10.3.0.7")}) || p.b.leaseQuestions[0].ID != "alice" {
				t.Errorf("%s push=%v: %+v", how, push, a)
			}
			if q := p.a.assumeQuestions; len(q) != 1 || len(q[0].Attributes) != 1 || q[0].Attributes[0].Type != wire.InternalIP4DNS {
				t.Errorf("%s push=%v: %+v", how, push, q)
			}
			p.a.do(ike.Rekey{IKE: "a", Reauth: true})
			p.run(10 * time.Second)
			p.up()
			p.a.do(ike.Terminate{IKE: "a"})
			p.run(time.Second)
			p.down()
		}
	}
}

// TestXAuthRefused: a wrong password, no password, and a peer that goes on without.
func TestXAuthRefused(t *testing.T) {
	for _, password := range []string{"wrong", ""} {
		p := clients(t, "psk", false)
		p.a.creds.users["alice"] = password
		p.a.initiate("net")
		p.run(5 * time.Second)
		if !slices.Contains(p.a.reasons(), ike.ReasonAuthentication) || len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 {
			t.Errorf("%q: %v\n%v", password, p.a.trace(), p.b.trace())
		}
		p.run(2 * time.Minute)
		p.down()
	}
	// A client without XAUTH isn't taken for one with it, whatever its key.
	p := clients(t, "psk", false)
	p.a.peer.Local = p.a.peer.Local[:1]
	p.a.initiate("net")
	p.run(5 * time.Second)
	if len(p.b.e.SAs()) != 0 || len(eventsOf[ike.IKEUp](p.b)) != 0 {
		t.Errorf("%v", p.b.trace())
	}
}

// TestXAuthGroup has two users of one group, whose identity in phase 1 is the same: they
// are two, whatever INITIAL-CONTACT and `unique` say.
func TestXAuthGroup(t *testing.T) {
	for _, unique := range []ike.UniquePolicy{ike.UniqueNo, ike.UniqueReplace, ike.UniqueKeep} {
		p := clients(t, "aggressive", false)
		p.b.peer.Unique = unique
		p.a.creds.users["bob"], p.b.creds.users["bob"] = "builder", "builder"
		n := byte(6)
		p.b.lease = func(ike.LeaseAddresses) (*ike.Lease, error) {
			n++
			return &ike.Lease{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 3, 0, n})}}, nil
		}
		bob := *p.a.peer
		bob.Name, bob.Local = "bob", slices.Clone(bob.Local)
		bob.Local[1].EAPID = id("bob")
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.a.do(ike.Initiate{ID: 2, Peer: &bob, Child: "net"})
		p.run(10 * time.Second)
		list := p.b.e.SAs()
		if len(list) != 2 || len(list[0].Children) != 1 || len(list[1].Children) != 1 || len(eventsOf[ike.ChildDown](p.b)) != 0 {
			t.Errorf("unique %d: %v\n%v", unique, brief(list), p.b.trace())
		}
	}
}
