package ikev2_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// A peer's IPCOMP_SUPPORTED is passed over, which refuses it: the answer has none,
// and the Child SA is as it would be without.
func TestRFC7296_2_22_IPCompIsRefused(t *testing.T) {
	for _, x := range []wire.ExchangeType{wire.ExchangeIKEAuth, wire.ExchangeCreateChildSA} {
		m := newMITM(t, nil)
		answered := false
		m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
			switch {
			case h.Exchange != x:
			case from == m.a && !h.Response():
				return append(slices.Clone(p), &wire.Notify{NotifyType: wire.IPCompSupported, Data: []byte{0x12, 0x34, 2}})
			case from == m.b && h.Response():
				answered = true
				if wire.FindNotify(p, wire.IPCompSupported) != nil {
					t.Errorf("%v: IPComp was accepted", x)
				}
			}
			return p
		}
		m.a.initiate("net")
		m.run(time.Second)
		m.a.do(ike.Rekey{Child: "net"})
		m.run(10 * time.Second)
		m.up()
		if !answered {
			t.Errorf("%v: no answer was seen", x)
		}
	}
}

// Who announces it in an answer though we did not ask breaks nothing either.
func TestRFC7296_2_22_IPCompUnasked(t *testing.T) {
	m := newMITM(t, nil)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from == m.b && h.Exchange == wire.ExchangeIKEAuth {
			return append(slices.Clone(p), &wire.Notify{NotifyType: wire.IPCompSupported, Data: []byte{0x12, 0x34, 3}})
		}
		return p
	}
	m.a.initiate("net")
	m.run(time.Second)
	m.up()
}

// Protocols, ports, ICMP types and codes and OPAQUE are negotiated and narrowed.
func TestRFC7296_3_13_1_ProtocolSelectors(t *testing.T) {
	one := func(text string, proto uint8, from, to uint16) ipsec.Selector {
		s := sel(text)
		s.Proto, s.PortFrom, s.PortTo = proto, from, to
		return s
	}
	const echo, echoReply = 8 << 8, 0
	for _, c := range []struct {
		name                   string
		al, ar, bl, br, wl, wr []ipsec.Selector
	}{
		{"one port of a range", []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoTCP, 0, 65535)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoTCP, 80, 80)},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoTCP, 1, 1023)}, []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoTCP, 0, 65535)},
			[]ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoTCP, 0, 65535)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoTCP, 80, 80)}},
		{"TCP out of everything", []ipsec.Selector{sel("10.1.0.0/16")}, []ipsec.Selector{sel("10.2.0.0/16")},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoTCP, 0, 65535)}, []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoTCP, 0, 65535)},
			[]ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoTCP, 0, 65535)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoTCP, 0, 65535)}},
		{"echo request and reply", []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoICMP, echo, echo|255), one("10.1.0.0/16", ipsec.ProtoICMP, echoReply, echoReply|255)},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoICMP, echo, echo|255), one("10.2.0.0/16", ipsec.ProtoICMP, echoReply, echoReply|255)},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoICMP, 0, 65535)}, []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoICMP, 0, 65535)},
			[]ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoICMP, echo, echo|255), one("10.1.0.0/16", ipsec.ProtoICMP, echoReply, echoReply|255)},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoICMP, echo, echo|255), one("10.2.0.0/16", ipsec.ProtoICMP, echoReply, echoReply|255)}},
		{"one type and code", []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoICMP, 0, 65535)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoICMP, 0, 65535)},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoICMP, 3<<8|4, 3<<8|4)}, []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoICMP, 3<<8|4, 3<<8|4)},
			[]ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoICMP, 3<<8|4, 3<<8|4)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoICMP, 3<<8|4, 3<<8|4)}},
		{"OPAQUE ports", []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoUDP, 65535, 0)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoUDP, 65535, 0)},
			[]ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoUDP, 65535, 0)}, []ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoUDP, 65535, 0)},
			[]ipsec.Selector{one("10.1.0.0/16", ipsec.ProtoUDP, 65535, 0)}, []ipsec.Selector{one("10.2.0.0/16", ipsec.ProtoUDP, 65535, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustUp(t, func(a, b *side) {
				a.child.Local, a.child.Remote, b.child.Local, b.child.Remote = c.al, c.ar, c.bl, c.br
			})
			p.b.do(ike.Rekey{Child: "net"})
			p.run(10 * time.Second)
			p.up()
			got := p.a.e.SAs()[0].Children[0]
			if !slices.Equal(got.LocalTS, c.wl) || !slices.Equal(got.RemoteTS, c.wr) {
				t.Errorf("%v === %v, want %v === %v", got.LocalTS, got.RemoteTS, c.wl, c.wr)
			}
		})
	}
}

// Two protocols that share nothing are TS_UNACCEPTABLE.
func TestRFC7296_3_13_1_ProtocolsThatShareNothing(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		a.child.Remote[0].Proto, b.child.Local[0].Proto = ipsec.ProtoTCP, ipsec.ProtoUDP
	})
	p.a.initiate("net")
	p.run(5 * time.Second)
	if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 || !slices.Contains(p.b.reasons(), ike.ReasonSelectors) {
		t.Errorf("%v %v", brief(p.a.e.SAs()), p.b.reasons())
	}
}

// A fixed reqid is the Child SA's and its policies', through rekeys; policies = no
// installs none.
func TestReqIDAndPolicies(t *testing.T) {
	for _, policies := range []bool{true, false} {
		p := newPair(t, func(a, b *side) { a.child.ReqID, a.child.Policies = 4711, policies })
		p.a.initiate("net")
		p.run(time.Second)
		p.a.do(ike.Rekey{Child: "net"})
		p.run(10 * time.Second)
		if list := p.a.e.SAs(); len(list) != 1 || len(list[0].Children) != 1 || list[0].Children[0].ReqID != 4711 {
			t.Fatalf("%+v", list)
		}
		for _, sa := range p.a.plane.sas {
			if sa.ReqID != 4711 {
				t.Errorf("an SA has reqid %d", sa.ReqID)
			}
		}
		if n := len(p.a.plane.pol); (n == 1) != policies || n > 1 {
			t.Errorf("%d policies, wanted: %v", n, policies)
		}
		for _, pol := range p.a.plane.pol {
			if pol.ReqID != 4711 {
				t.Errorf("the policy has reqid %d", pol.ReqID)
			}
		}
	}
}

// Many Child SAs of one connection: each by its configuration, in one IKE SA.
func TestRFC7296_1_3_1_ManyChildren(t *testing.T) {
	const n = 20
	p := newPair(t, func(a, b *side) {
		for i := range n {
			ca, cb := *a.child, *b.child
			ca.Name, cb.Name = fmt.Sprint("net", i), fmt.Sprint("net", i)
			ca.Local, ca.Remote = []ipsec.Selector{sel(fmt.Sprintf("10.3.%d.0/24", i))}, []ipsec.Selector{sel(fmt.Sprintf("10.4.%d.0/24", i))}
			cb.Local, cb.Remote = ca.Remote, ca.Local
			a.peer.Children, b.peer.Children = append(a.peer.Children, &ca), append(b.peer.Children, &cb)
		}
	})
	p.a.initiate("net")
	for i := range n {
		h := []*host{p.a, p.b}[i%2]
		h.do(ike.Initiate{ID: ike.CommandID(10 + i), Peer: h.peer, Child: fmt.Sprint("net", i)})
	}
	p.run(10 * time.Second)
	p.upN(n + 1)
	for _, c := range p.b.e.SAs()[0].Children {
		if c.Name != "net" && (c.LocalTS[0].String()[5:] != c.RemoteTS[0].String()[5:] || c.Name[3:] != c.LocalTS[0].From.String()[5:len(c.LocalTS[0].From.String())-2]) {
			t.Errorf("%s: %v === %v", c.Name, c.LocalTS, c.RemoteTS)
		}
	}
}

func TestRFC6023_Policies(t *testing.T) {
	for _, c := range []struct {
		a, b  ike.ChildlessPolicy
		first bool // the Child SA comes with IKE_AUTH
		up    bool
	}{
		{ike.ChildlessAllow, ike.ChildlessAllow, true, true},
		{ike.ChildlessPrefer, ike.ChildlessAllow, false, true},
		{ike.ChildlessForce, ike.ChildlessAllow, false, true},
		{ike.ChildlessNever, ike.ChildlessAllow, true, true},
		{ike.ChildlessPrefer, ike.ChildlessNever, true, true},
		{ike.ChildlessForce, ike.ChildlessNever, false, false},
		{ike.ChildlessAllow, ike.ChildlessForce, true, false},
		{ike.ChildlessPrefer, ike.ChildlessForce, false, true},
		{ike.ChildlessAllow, ike.ChildlessNever, true, true},
	} {
		t.Run(fmt.Sprint(c.a, c.b), func(t *testing.T) {
			m := newMITM(t, func(a, b *side) { a.peer.Childless, b.peer.Childless = c.a, c.b })
			dump(t, m.pair)
			first, sent := false, false
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from == m.a && h.Exchange == wire.ExchangeIKEAuth {
					sent = true
					_, first = wire.First[*wire.SA](p)
				}
				return p
			}
			m.a.initiate("net")
			m.run(5 * time.Second)
			if first != c.first && sent {
				t.Errorf("IKE_AUTH asks for a Child SA: %v", first)
			}
			d := eventsOf[ike.CommandDone](m.a)
			if len(d) != 1 || (d[0].Err == nil) != c.up {
				t.Errorf("%+v", d)
			}
			if !c.up {
				m.run(40 * time.Second) // half-open at most until then
				if len(m.a.e.SAs())+len(m.b.e.SAs()) != 0 {
					t.Errorf("%v %v", brief(m.a.e.SAs()), brief(m.b.e.SAs()))
				}
				return
			}
			m.up()
		})
	}
}

// Nobody wants a Child SA: with a peer that says never one is made nevertheless,
// and a responder that says never refuses to do without.
func TestRFC6023_NoneWanted(t *testing.T) {
	for _, c := range []struct {
		a, b ike.ChildlessPolicy
		lie  bool // the initiator leaves the Child SA out whatever was announced
		sas  int
	}{
		{ike.ChildlessAllow, ike.ChildlessAllow, false, 0},
		{ike.ChildlessAllow, ike.ChildlessNever, false, 2},
		{ike.ChildlessNever, ike.ChildlessAllow, false, 2},
		{ike.ChildlessAllow, ike.ChildlessNever, true, -1},
	} {
		m := newMITM(t, func(a, b *side) { a.peer.Childless, b.peer.Childless = c.a, c.b })
		if c.lie {
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from != m.a || h.Exchange != wire.ExchangeIKEAuth {
					return p
				}
				return slices.DeleteFunc(slices.Clone(p), func(x wire.Payload) bool {
					return x.Type() == wire.PayloadSA || x.Type() == wire.PayloadTSi || x.Type() == wire.PayloadTSr
				})
			}
		}
		m.a.initiate("")
		m.run(5 * time.Second)
		if c.sas < 0 {
			if len(m.b.e.SAs()) != 0 || !slices.Contains(m.b.reasons(), ike.ReasonSyntax) {
				t.Errorf("%v %v", brief(m.b.e.SAs()), m.b.reasons())
			}
			continue
		}
		if len(m.a.e.SAs()) != 1 || len(m.b.e.SAs()) != 1 || len(m.a.plane.sas) != c.sas || len(m.b.plane.sas) != c.sas {
			t.Errorf("%v %v: %v, %v", c.a, c.b, brief(m.a.e.SAs()), brief(m.b.e.SAs()))
		}
	}
}
