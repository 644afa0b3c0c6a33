package ikev1_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev1"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// TestRFC2409_5_5_Rekey replaces the IPsec SAs by either side and by both at once: the
// traffic always has where to go, and one pair is left.
func TestRFC2409_5_5_Rekey(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		for _, s := range []*side{a, b} {
			s.child.RekeyTime, s.child.LifeTime = time.Hour, 66*time.Minute
		}
	})
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	for _, h := range []*host{p.a, p.b} {
		h.do(ike.Rekey{Child: "net"})
		p.run(time.Second)
		p.flows()
		p.run(10 * time.Second)
		p.up()
	}
	p.a.do(ike.Rekey{Child: "net"})
	p.b.do(ike.Rekey{Child: "net"})
	p.run(20 * time.Second)
	p.flows()
	// Which of the two came last the sides may see differently; both stay.
	for _, h := range []*host{p.a, p.b} {
		installed := 0
		for _, c := range h.e.SAs()[0].Children {
			if c.State == "INSTALLED" {
				installed++
			}
		}
		if installed != 1 || len(eventsOf[ike.ChildDown](h)) != 0 {
			t.Errorf("%s: %v", h.name, brief(h.e.SAs()))
		}
	}
	p.run(3 * time.Hour)
	p.flows()
	for _, h := range []*host{p.a, p.b} {
		if n := len(h.e.SAs()[0].Children); n > 4 || len(eventsOf[ike.ChildDown](h)) != 0 {
			t.Errorf("%s after rekeys by time: %v", h.name, brief(h.e.SAs()))
		}
	}
}

// TestReauthentication makes phase 1 anew by either side: the IPsec SAs stay as they
// are and belong to the new ISAKMP SA on both sides.
func TestReauthentication(t *testing.T) {
	p := newPair(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	spi := p.a.e.SAs()[0].Children[0].SPIIn
	for _, h := range []*host{p.a, p.b} {
		old := p.a.e.SAs()[0].SPIi
		h.do(ike.Rekey{IKE: h.name, Reauth: true})
		p.run(10 * time.Second)
		p.up()
		if now := p.a.e.SAs()[0]; now.SPIi == old || now.Children[0].SPIIn != spi {
			t.Errorf("%s: %v", h.name, brief(p.a.e.SAs()))
		}
	}
	if n := len(eventsOf[ike.ChildDown](p.a)) + len(eventsOf[ike.ChildDown](p.b)); n != 0 {
		t.Errorf("%d ChildDown", n)
	}
	// Both at once: two new ones, of which one is left in the end.
	p.a.do(ike.Rekey{IKE: "a", Reauth: true})
	p.b.do(ike.Rekey{IKE: "b", Reauth: true})
	p.run(time.Minute)
	p.flows()
	for _, h := range []*host{p.a, p.b} {
		if len(eventsOf[ike.ChildDown](h)) != 0 || len(h.plane.sas) != 2 {
			t.Errorf("%s: %v", h.name, brief(h.e.SAs()))
		}
	}
}

// TestBothStart has both sides begin phase 1 at once: traffic flows and nobody loses
// what the other one uses.
func TestBothStart(t *testing.T) {
	p := newPair(t, nil)
	p.a.initiate("net")
	p.b.initiate("net")
	p.run(time.Minute)
	p.flows()
	p.run(10 * time.Minute)
	p.flows()
	if n := len(eventsOf[ike.ChildDown](p.a)) + len(eventsOf[ike.ChildDown](p.b)); n != 0 {
		t.Errorf("%d ChildDown\n%v\n%v", n, p.a.trace(), p.b.trace())
	}
}

// TestRFC3706_DeadPeer finds a silent peer dead in time, and one that answers not.
func TestRFC3706_DeadPeer(t *testing.T) {
	for _, timeout := range []time.Duration{0, 30 * time.Second} {
		p := newPair(t, func(a, b *side) { a.peer.DPDDelay, a.peer.DPDTimeout = 10*time.Second, timeout })
		p.a.initiate("net")
		p.run(5 * time.Minute)
		p.up()
		p.filter = func(*host, ike.Datagram) bool { return false }
		limit := timeout + 15*time.Second
		if timeout == 0 {
			limit = 3 * time.Minute
		}
		p.run(limit)
		if len(p.a.e.SAs()) != 0 || !slices.Contains(p.a.reasons(), ike.ReasonNoAnswer) {
			t.Errorf("timeout %v: %v", timeout, brief(p.a.e.SAs()))
		}
		if n := len(p.b.e.SAs()); n != 1 {
			t.Errorf("who does not check lost its SA: %d", n)
		}
	}
}

// TestLateKeepAlive: who slept asks whether the peer lives instead of sending a keepalive,
// once, though there is no dpd_delay.
func TestLateKeepAlive(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		b.peer.RemoteAddrs = nil
		a.config.KeepAlive, a.config.KeepAliveDPDMargin = 20*time.Second, 10*time.Second
	})
	outside := netip.MustParseAddr("198.51.100.1")
	p.nat = func(from *host, d *ike.Datagram) {
		if from == p.a {
			d.Local = netip.AddrPortFrom(outside, d.Local.Port())
		} else {
			d.Remote = netip.AddrPortFrom(addrA, d.Remote.Port())
		}
	}
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	count := func() (alive, other int) {
		for _, d := range p.a.sent {
			if len(d.Data) == 1 {
				alive++
			} else {
				other++
			}
		}
		return alive, other
	}
	p.run(50 * time.Second)
	alive, before := count()
	if alive == 0 {
		t.Fatal("no keepalive")
	}
	p.now = p.now.Add(time.Hour) // the host sleeps
	p.a.e.Wake(p.now)
	p.a.drain()
	p.run(time.Second)
	if now, after := count(); now != alive || after != before+1 {
		t.Errorf("after the sleep %d keepalives and %d messages", now-alive, after-before)
	}
	p.run(50 * time.Second)
	if now, after := count(); now <= alive || after != before+1 {
		t.Errorf("later %d keepalives and %d messages", now-alive, after-before)
	}
	p.up()
}

// TestRefusals names what differs on the side that is refused.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		tweak  func(a, b *side)
		reason ike.Reason
	}{
		{"phase 1", func(a, b *side) { a.peer.Proposals = mustProposals(t, suite.IKE, "aes256-sha512-modp2048") }, ike.ReasonProposal},
		{"phase 2", func(a, b *side) { a.child.Proposals = mustProposals(t, suite.ESP, "aes256-sha512") }, ike.ReasonProposal},
		{"group", func(a, b *side) { a.child.Proposals = mustProposals(t, suite.ESP, "aes128gcm16-ecp256") }, ike.ReasonProposal},
		{"selectors", func(a, b *side) { a.child.Local = []ipsec.Selector{sel("10.9.0.0/16")} }, ike.ReasonSelectors},
		{"port range", func(a, b *side) { a.child.Local = []ipsec.Selector{sel("10.1.0.0/16[tcp/80-90]")} }, ike.ReasonSelectors},
		{"mode", func(a, b *side) { a.child.Mode = ipsec.ModeTransport }, ike.ReasonProposal},
		{"identity", func(a, b *side) { a.peer.Remote[0].ID = id("c.example.org") }, ike.ReasonIdentity},
		{"combined cipher alone", func(a, b *side) { a.peer.Proposals = mustProposals(t, suite.IKE, "aes128gcm16-prfsha256-x25519") }, ike.ReasonProposal},
		{"post-quantum", func(a, b *side) {
			for _, s := range []*side{a, b} {
				s.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-x25519-ke1_mlkem768")
			}
		}, ike.ReasonProposal},
		{"post-quantum phase 2", func(a, b *side) { a.child.Proposals = mustProposals(t, suite.ESP, "aes128gcm16-x25519-ke1_mlkem768") }, ike.ReasonProposal},
		{"eap", func(a, b *side) { a.peer.Local[0].Method = ike.AuthEAP }, ike.ReasonAuthentication},
		{"signature", func(a, b *side) { a.peer.Local[0].Method, a.peer.Remote[0].Method = ike.AuthPubkey, ike.AuthPubkey }, ike.ReasonAuthentication},
	} {
		p := newPair(t, c.tweak)
		p.a.initiate("net")
		p.run(2 * time.Minute)
		if !slices.Contains(p.a.reasons(), c.reason) {
			t.Errorf("%s: %v", c.name, p.a.trace())
		}
		p.a.do(ike.Terminate{IKE: "a"})
		p.run(time.Minute)
		p.down()
	}
}

// TestWrongKey: the initiator learns soon that the shared keys differ, and nothing is left.
func TestWrongKey(t *testing.T) {
	p := newPair(t, nil)
	p.b.psk = suite.Key("another one")
	p.a.initiate("net")
	p.run(3 * time.Second)
	if r := p.a.reasons(); len(r) != 1 || r[0] != ike.ReasonAuthentication {
		t.Errorf("%v", p.a.trace())
	}
	p.run(time.Minute)
	p.down()
}

// TestNarrowing grants a part where the responder's child is narrower.
func TestNarrowing(t *testing.T) {
	p := newPair(t, func(a, b *side) { a.child.Remote = []ipsec.Selector{sel("0.0.0.0/0")} })
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	if got := p.a.e.SAs()[0].Children[0].RemoteTS; !slices.Equal(got, []ipsec.Selector{sel("10.2.0.0/16")}) {
		t.Errorf("%v", got)
	}
}

// TestRFC2407_4_6_3_1_ResponderLifetime: the shorter lifetime counts for both.
func TestRFC2407_4_6_3_1_ResponderLifetime(t *testing.T) {
	for _, shorter := range []string{"a", "b"} {
		p := newPair(t, func(a, b *side) {
			for _, s := range []*side{a, b} {
				if s.child.LifeTime = 10 * time.Hour; s.peer.Name == shorter {
					s.child.LifeTime = time.Hour
				}
			}
		})
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		for _, h := range []*host{p.a, p.b} {
			if c := h.e.SAs()[0].Children[0]; c.ExpireAt.Sub(p.now) > time.Hour || c.RekeyAt.After(c.ExpireAt) && !c.RekeyAt.IsZero() {
				t.Errorf("%s with a shorter %s: ends in %v", h.name, shorter, c.ExpireAt.Sub(p.now))
			}
		}
	}
}

// TestHostile has a stranger, who sees everything, send what it can without keys:
// nothing changes.
func TestHostile(t *testing.T) {
	p := newPair(t, nil)
	var seen []ike.Datagram
	p.filter = func(from *host, d ike.Datagram) bool { seen = append(seen, d); return true }
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	info := p.b.e.SAs()[0]
	from := ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addrA, 500)}
	cookies := wire.Header{SPIi: info.SPIi, SPIr: info.SPIr}.Append(nil)[:16]
	before := brief(p.b.e.SAs())
	h := wire.Header{SPIi: info.SPIi, SPIr: info.SPIr, Version: wire.IKEv1, Exchange: wire.ExchangeV1Informational, MessageID: 7}
	for _, list := range [][]wire.V1Payload{
		{wire.V1Delete{Protocol: wire.ProtocolIKE, SPIs: [][]byte{cookies}}.Payload()},
		{wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: cookies, Type: wire.V1InitialContact}.Payload()},
		{{Type: wire.PayloadV1Hash, Body: make([]byte, 32)}, wire.V1Delete{Protocol: wire.ProtocolIKE, SPIs: [][]byte{cookies}}.Payload()},
	} {
		from.Data = wire.AppendV1Message(nil, h, list)
		p.b.e.Datagram(p.now, from)
		p.b.drain()
		from.Data = bytes.Clone(from.Data)
		from.Data[19] |= 1 // as if it was encrypted
		p.b.e.Datagram(p.now, from)
		p.b.drain()
	}
	// Everything that was said, again and with each octet damaged in turn.
	for _, d := range seen {
		for at := range d.Data {
			x := bytes.Clone(d.Data)
			x[at] ^= 0x55
			for _, h := range []*host{p.a, p.b} {
				h.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(h.addr, 500), Remote: netip.AddrPortFrom(p.other(h).addr, 500), Data: x})
				h.drain()
			}
		}
	}
	p.queue = nil
	if after := p.b.e.SAs()[0]; brief([]ike.SAInfo{after})[0] != before[0] {
		t.Errorf("%v becomes %v", before, brief(p.b.e.SAs()))
	}
	p.flows()
	p.run(10 * time.Minute)
	if n := p.b.e.Stats().HalfOpen; n != 0 {
		t.Errorf("%d half-open SAs are left", n)
	}
	p.flows()
}

// TestFlood: a stranger's first messages make no more than bounded state, and never
// get more octets than they bring.
func TestFlood(t *testing.T) {
	p := newPair(t, func(a, b *side) { b.peer.RemoteAddrs = nil })
	var first []byte
	p.filter = func(from *host, d ike.Datagram) bool {
		if first == nil {
			first = bytes.Clone(d.Data)
		}
		return false
	}
	p.a.initiate("net")
	p.run(time.Millisecond)
	for i := range 3000 {
		x := bytes.Clone(first)
		x[0], x[1], x[2] = byte(i), byte(i>>8), 0x99
		n := len(p.b.sent)
		p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 500), Data: x})
		p.b.drain()
		for _, d := range p.b.sent[n:] {
			if len(d.Data) > len(x) {
				t.Fatalf("%d octets are answered by %d", len(x), len(d.Data))
			}
		}
	}
	if st := p.b.e.Stats(); st.HalfOpen != 1000 || st.Dropped[ike.DropHalfOpen] != 2000 {
		t.Errorf("%d half-open, %d refused", st.HalfOpen, st.Dropped[ike.DropHalfOpen])
	}
	sent := len(p.b.sent)
	p.a.do(ike.Terminate{IKE: "a", Force: true})
	p.run(10 * time.Minute)
	if st := p.b.e.Stats(); st.HalfOpen != 0 || len(p.b.sent) != sent {
		t.Errorf("%d half-open are left, %d messages were sent unasked", st.HalfOpen, len(p.b.sent)-sent)
	}
}

// TestNATDrafts: with a peer that knows only draft 03 its numbers are spoken.
func TestNATDrafts(t *testing.T) {
	p := newPair(t, func(a, b *side) { a.peer.Encap = ike.EncapYes })
	rfc := []byte("\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f")
	seen := false
	p.filter = func(from *host, d ike.Datagram) bool {
		if i := bytes.Index(d.Data, rfc); i >= 0 {
			d.Data[i] ^= 0xff
		}
		seen = seen || len(d.Data) > 28 && bytes.Contains(d.Data[28:], []byte{130, 0, 0, 36})
		return true
	}
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	if c := p.a.e.SAs()[0]; !c.Encap || c.Remote.Port() != 4500 || !seen {
		t.Errorf("encap %v, port %d, NAT-D of the drafts seen: %v", c.Encap, c.Remote.Port(), seen)
	}
}

// fuzzed brings a pair to a stage.
func fuzzed(t testing.TB, stage uint8) *pair {
	p := newPair(t, nil)
	p.a.initiate("net")
	p.run([]time.Duration{0, 15 * time.Millisecond, 25 * time.Millisecond, 35 * time.Millisecond, 55 * time.Millisecond, 75 * time.Millisecond, time.Second}[stage%7])
	return p
}

func settleFuzz(t testing.TB, p *pair) {
	p.run(time.Second)
	for _, h := range []*host{p.a, p.b} {
		if h.e.Stats().Bugs != 0 {
			t.Fatalf("%s: an invariant failed", h.name)
		}
		h.do(ike.Shutdown{Grace: time.Second})
	}
	p.run(400 * time.Second)
	p.down()
}

func FuzzDatagram(f *testing.F) {
	p := newPair(f, nil)
	p.filter = func(from *host, d ike.Datagram) bool {
		for stage := range uint8(7) {
			f.Add(stage, from == p.a, bytes.Clone(d.Data))
		}
		return true
	}
	p.a.initiate("net")
	p.run(time.Second)
	f.Fuzz(func(t *testing.T, stage uint8, fromA bool, data []byte) {
		p := fuzzed(t, stage)
		from, to := p.b, p.a
		if fromA {
			from, to = p.a, p.b
		}
		if list := to.e.SAs(); len(list) > 0 && len(data) >= wire.HeaderLen && data[0]&1 == 0 {
			copy(data[:16], wire.Header{SPIi: list[0].SPIi, SPIr: list[0].SPIr}.Append(nil)[:16])
		}
		to.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(to.addr, 500), Remote: netip.AddrPortFrom(from.addr, 500), Data: data})
		to.drain()
		settleFuzz(t, p)
	})
}

// FuzzProtected puts any payloads behind a right hash: what only a peer with the keys
// can send.
func FuzzProtected(f *testing.F) {
	add := func(x wire.ExchangeType, list ...wire.V1Payload) {
		first, rest := wire.AppendV1Chain(nil, list)
		for _, fromA := range []bool{true, false} {
			f.Add(fromA, uint8(x), uint8(first), rest)
		}
	}
	add(wire.ExchangeV1Informational, wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: make([]byte, 16), Type: wire.V1RUThere, Data: make([]byte, 4)}.Payload())
	add(wire.ExchangeV1Informational, wire.V1Delete{Protocol: wire.ProtocolESP, SPIs: [][]byte{{1, 2, 3, 4}}}.Payload())
	for _, t := range []wire.CFGType{wire.CFGRequest, wire.CFGReply, wire.CFGSet, wire.CFGAck} {
		add(wire.ExchangeV1Transaction, (&wire.V1Attributes{CFGType: t, Attributes: []wire.V1Attribute{{Type: 1, Value: []byte{10, 3, 0, 7}}, {Type: 28676}, wire.Basic16(16527, 1)}}).Payload())
	}
	sa := wire.V1SA{Situation: 1, Proposals: []wire.V1Proposal{{Number: 1, Protocol: wire.ProtocolESP, SPI: []byte{1, 2, 3, 4}, Transforms: []wire.V1Transform{
		{Number: 1, ID: 20, Attributes: []wire.V1Attribute{wire.Basic16(4, 1), wire.Basic16(6, 128), wire.Basic16(3, 31)}}}}}}
	ids := []wire.V1Payload{wire.V1ID{Type: 4, Data: []byte{10, 1, 0, 0, 255, 255, 0, 0}}.Payload(), wire.V1ID{Type: 4, Data: []byte{10, 2, 0, 0, 255, 255, 0, 0}}.Payload()}
	add(wire.ExchangeV1QuickMode, append([]wire.V1Payload{sa.Payload(), {Type: wire.PayloadV1Nonce, Body: make([]byte, 16)}, {Type: wire.PayloadV1KE, Body: bytes.Repeat([]byte{9}, 32)}}, ids...)...)
	f.Fuzz(func(t *testing.T, fromA bool, exchange, first uint8, rest []byte) {
		if len(rest) > 4096 {
			return
		}
		p := fuzzed(t, 6)
		from, to := p.b, p.a
		if fromA {
			from, to = p.a, p.b
		}
		if v := to.made[len(to.made)-1]; ikev1.Usable(v) {
			to.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(to.addr, 500), Remote: netip.AddrPortFrom(from.addr, 500), Data: ikev1.Inner(v, exchange, 99, first, rest)})
			to.drain()
		}
		if len(to.plane.sas) > 4 {
			t.Fatalf("%d SAs after one message", len(to.plane.sas))
		}
		settleFuzz(t, p)
	})
}
