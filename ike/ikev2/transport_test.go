package ikev2_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// endpoints sets transport mode between the endpoints themselves.
func endpoints(a, b *side) {
	for _, s := range []*side{a, b} {
		s.child.Mode = ipsec.ModeTransport
		s.child.Local, s.child.Remote = []ipsec.Selector{ipsec.Dynamic()}, []ipsec.Selector{ipsec.Dynamic()}
		s.config.UnsafeExportKeys = true
	}
}

// natBeforeB lets a reach b only by another address.
func natBeforeB(t *testing.T, tweak func(a, b *side)) *pair {
	outside := netip.MustParseAddr("203.0.113.9")
	p := newPair(t, func(a, b *side) {
		a.peer.RemoteAddrs = []ike.AddrSpec{{From: outside, To: outside}}
		tweak(a, b)
	})
	p.filter = func(from *host, d ike.Datagram) bool {
		out := ike.Datagram{Local: d.Remote, Remote: d.Local, Data: slices.Clone(d.Data)}
		if from == p.a {
			out.Local = netip.AddrPortFrom(addrB, d.Remote.Port())
		} else {
			out.Remote = netip.AddrPortFrom(outside, d.Local.Port())
		}
		p.seq++
		p.queue = append(p.queue, packet{p.now.Add(10 * time.Millisecond), p.seq, p.other(from), out})
		return false
	}
	return p
}

// told are the selectors of all messages that a host sent, as TSi and TSr.
func told(m *mitm, h *host) (out []string) {
	for _, d := range h.sent {
		msg, err := wire.ParseMessage(d.Data)
		if err != nil || msg.Encrypted == nil {
			continue
		}
		list, ok := m.open(msg)
		if tsi, tsr := wire.FindTS(list, wire.PayloadTSi), wire.FindTS(list, wire.PayloadTSr); ok && tsi != nil && tsr != nil {
			out = append(out, tsi.Selectors[0].Start.String()+" "+tsr.Selectors[0].Start.String())
		}
	}
	return out
}

// The addresses in selectors are replaced by those that are seen, and put back in
// the answer; both sides install their own endpoints, also at rekeys of either side.
func TestRFC7296_2_23_1_TransportModeThroughNAT(t *testing.T) {
	for _, c := range []struct {
		name         string
		make         func(t *testing.T) *pair
		seenA, seenB string // local and remote, as installed
		wrote        string // by the initiator: TSi and TSr
	}{
		{"before the initiator", func(t *testing.T) *pair { return newNATted(t, endpoints).pair }, "192.0.2.1/32 192.0.2.2/32", "192.0.2.2/32 203.0.113.5/32", "192.0.2.1 192.0.2.2"},
		{"before the responder", func(t *testing.T) *pair { return natBeforeB(t, endpoints) }, "192.0.2.1/32 203.0.113.9/32", "192.0.2.2/32 192.0.2.1/32", "192.0.2.1 203.0.113.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.make(t)
			dump(t, p)
			m := &mitm{pair: p}
			check := func(when string) {
				t.Helper()
				for _, x := range []struct {
					h    *host
					want string
				}{{p.a, c.seenA}, {p.b, c.seenB}} {
					list := x.h.e.SAs()
					if len(list) != 1 || len(list[0].Children) != 1 {
						t.Fatalf("%s, %s: %v", when, x.h.name, brief(list))
					}
					ch := list[0].Children[0]
					if got := ch.LocalTS[0].String() + " " + ch.RemoteTS[0].String(); got != x.want || ch.Mode != ipsec.ModeTransport || !ch.Encap {
						t.Errorf("%s, %s: %s %v, want %s", when, x.h.name, got, ch.Mode, x.want)
					}
					for _, sa := range x.h.plane.sas {
						if sa.LocalTS[0].From != sa.Local.Addr() || sa.RemoteTS[0].From != sa.Remote.Addr() {
							t.Errorf("%s, %s: %v %v between %v and %v", when, x.h.name, sa.LocalTS, sa.RemoteTS, sa.Local, sa.Remote)
						}
					}
				}
			}
			p.a.initiate("net")
			p.run(2 * time.Second)
			check("at first")
			if got := append(told(m, p.a), told(m, p.b)...); len(got) != 2 || got[0] != c.wrote || got[1] != c.wrote {
				t.Errorf("selectors on the wire %q, want %q in both", got, c.wrote)
			}
			p.a.do(ike.Rekey{Child: "net"})
			p.run(10 * time.Second)
			check("after a's rekey")
			p.b.do(ike.Rekey{Child: "net"})
			p.run(10 * time.Second)
			check("after b's rekey")
			p.b.do(ike.Rekey{IKE: "b"})
			p.run(10 * time.Second)
			p.a.do(ike.Rekey{Child: "net"})
			p.run(10 * time.Second)
			check("after rekeys of all")
		})
	}
}

// A responder that grants a network in transport mode through a NAT is not believed.
func TestRFC7296_2_23_1_AnswerWithANetwork(t *testing.T) {
	m := newMITM(t, func(a, b *side) {
		endpoints(a, b)
		a.config.ForceEncap = true
		a.child.Local = []ipsec.Selector{sel("192.0.2.0/24")}
		a.child.Remote = []ipsec.Selector{sel("192.0.2.2/32")}
	})
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if h.Exchange != wire.ExchangeIKEAuth {
			return p
		}
		ts := wire.FindTS(p, wire.PayloadTSi)
		if from == m.a {
			ts.Selectors[0].Start, ts.Selectors[0].End = addrA, addrA
		} else {
			ts.Selectors[0].Start, ts.Selectors[0].End = netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.255")
		}
		return p
	}
	m.a.initiate("net")
	m.run(5 * time.Second)
	if len(m.a.plane.sas)+len(m.b.plane.sas) != 0 || !slices.Contains(m.a.reasons(), ike.ReasonProposal) {
		t.Errorf("%v, %v, %v", brief(m.a.e.SAs()), brief(m.b.e.SAs()), m.a.reasons())
	}
}

// Networks in transport mode through a NAT are refused by name, on both sides.
func TestRFC7296_2_23_1_OnlyEndpoints(t *testing.T) {
	for _, responder := range []bool{false, true} {
		p := newNATted(t, func(a, b *side) {
			endpoints(a, b)
			b.child.Remote = []ipsec.Selector{sel("0.0.0.0/0")}
			if responder {
				a.child.Local = []ipsec.Selector{sel("192.0.2.0/24")}
			} else {
				b.child.Remote = []ipsec.Selector{sel("192.0.2.0/24")} // not what it sees
			}
		})
		p.a.initiate("net")
		p.run(5 * time.Second)
		if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 {
			t.Error("it came up")
		}
		if d := eventsOf[ike.CommandDone](p.a); len(d) != 1 || d[0].Err == nil {
			t.Errorf("%+v", d)
		}
	}
}
