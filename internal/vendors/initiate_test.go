package vendors_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// initiate begins an IKE SA at adit.
func (p *peer) initiate() *ikeSA {
	s := &ikeSA{p: p, at: netip.AddrPortFrom(p.address(), 500), to: netip.AddrPortFrom(aditAddr, 500), initiator: true, spiI: random64(), ni: random(32)}
	p.sas = append(p.sas, s)
	s.sendInit(firstGroup(p.ike))
	return s
}

func (s *ikeSA) sendInit(group suite.TransformID) {
	var err error
	if s.kx, err = suite.NewKeyExchange(group); err != nil {
		s.p.w.t.Fatal(err)
	}
	list := append([]wire.Payload{saPayload(s.p.ike, nil, 1), &wire.KE{Group: uint16(group), Data: s.kx.Public()}, &wire.Nonce{Data: s.ni}}, s.initNotifies()...)
	s.request = wire.AppendMessage(nil, wire.Header{SPIi: s.spiI, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator}, list)
	s.p.send(s.at, s.to, s.request)
}

func (p *peer) initAnswered(d ike.Datagram, msg *wire.Message) {
	i := slices.IndexFunc(p.sas, func(s *ikeSA) bool { return s.spiI == msg.Header.SPIi && s.initiator && s.spiR == 0 })
	if i < 0 {
		return
	}
	s := p.sas[i]
	if n := wire.FindNotify(msg.Payloads, wire.InvalidKEPayload); n != nil {
		s.sendInit(suite.TransformID(binary.BigEndian.Uint16(n.Data)))
		return
	}
	if n := errorIn(msg.Payloads); n != 0 {
		p.refused, s.gone = append(p.refused, n), true
		return
	}
	saP, _ := wire.First[*wire.SA](msg.Payloads)
	ke, _ := wire.First[*wire.KE](msg.Payloads)
	nr, _ := wire.First[*wire.Nonce](msg.Payloads)
	sel, err := suite.Accept(p.ike, offered(saP)[0], suite.SelectOptions{})
	if err != nil {
		p.w.t.Fatal(err)
	}
	shared, err := s.kx.Shared(ke.Data)
	if err != nil {
		p.w.t.Fatal(err)
	}
	s.response, s.nr, s.spiR, s.sendID = msg.Raw, nr.Data, msg.Header.SPIr, 1
	s.learn(msg.Payloads)
	s.derive(sel, func(f suite.PRF) suite.Key { return f.Sum(f.NonceKey(s.ni, s.nr), shared) })
	if p.native != nil {
		s.logIn()
		return
	}
	s.ask(&exchange{wire.ExchangeIKEAuth, s.authPayloads, s.authAnswered})
}

func (s *ikeSA) authPayloads() []wire.Payload {
	p := s.p
	id := p.identity()
	idi := &wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDType(id.Type), Data: []byte(id.Data)}
	list := []wire.Payload{idi}
	if p.certRequest {
		list = append(list, &wire.CertReq{Encoding: wire.CertX509Signature, Authorities: random(20)})
	}
	if !p.noIDr {
		want := p.wantID
		if want == (ike.Identity{}) {
			want = ike.Identity{Type: uint8(wire.IDFQDN), Data: aditID}
		}
		list = append(list, &wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDType(want.Type), Data: []byte(want.Data)})
	}
	c := s.newKid()
	return append(append(list, s.auth(idi, true)), s.childPayloads(c, withoutKE(p.esp))...)
}

// newKid is a Child SA that the peer asks for; it is in nobody's list yet.
func (s *ikeSA) newKid() *childSA {
	c := &childSA{spiIn: newSPI(), local: s.p.local, remote: s.p.remote}
	if s.p.pairs != nil {
		c.local, c.remote = selectors(s.p.w.t, s.p.pairs[0][0]), selectors(s.p.w.t, s.p.pairs[0][1])
	}
	s.p.asked = c
	return c
}

func (s *ikeSA) childPayloads(c *childSA, list []suite.Proposal, front ...wire.Payload) []wire.Payload {
	out := append([]wire.Payload{saPayload(list, spi4(c.spiIn), 1)}, front...)
	return append(out, tsPayload(wire.PayloadTSi, c.local), tsPayload(wire.PayloadTSr, c.remote))
}

func (s *ikeSA) authAnswered(list []wire.Payload) {
	if n := wire.FindNotify(list, wire.AuthenticationFailed); n != nil {
		if s.p.deletesRefused {
			s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload { return []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}} }, func([]wire.Payload) {}})
		}
		s.gone = true
		return
	}
	if !s.believes(list, wire.PayloadIDr) {
		s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload {
			return []wire.Payload{notify(wire.AuthenticationFailed, nil), &wire.Delete{Protocol: wire.ProtocolIKE}}
		}, func([]wire.Payload) { s.gone = true }})
		return
	}
	s.up = true
	s.made(s.p.asked, withoutKE(s.p.esp), nil, s.ni, list)
}

// made takes the answer to a request for a Child SA; nil: it was refused.
func (s *ikeSA) made(c *childSA, list []suite.Proposal, kx suite.KeyExchange, ni []byte, answer []wire.Payload) bool {
	saP, ok := wire.First[*wire.SA](answer)
	if !ok {
		return false
	}
	sel, err := suite.Accept(list, offered(saP)[0], suite.SelectOptions{})
	if err != nil {
		s.p.w.t.Fatal("adit answered with what was not offered: ", err)
	}
	c.sel, c.spiOut = sel, binary.BigEndian.Uint32(saP.Proposals[0].SPI)
	l, r := fromTS(wire.FindTS(answer, wire.PayloadTSi)), fromTS(wire.FindTS(answer, wire.PayloadTSr))
	if !ipsec.ContainsAll(c.local, l) || !ipsec.ContainsAll(c.remote, r) {
		s.p.w.t.Errorf("adit answered %v === %v to %v === %v", l, r, c.local, c.remote)
	}
	c.local, c.remote = l, r
	var shared suite.Key
	nr := s.nr
	if n, ok := wire.First[*wire.Nonce](answer); ok {
		nr = n.Data
	}
	if ke, ok := wire.First[*wire.KE](answer); ok && kx != nil {
		if shared, err = kx.Shared(ke.Data); err != nil {
			s.p.w.t.Fatal(err)
		}
	}
	s.keys(c, true, shared, ni, nr)
	return true
}

// rekeyChild replaces a Child SA by the peer's request and deletes the old one.
// list are the proposals; they may have key exchanges or not.
func (s *ikeSA) rekeyChild(old *childSA, list []suite.Proposal) {
	s.create(old, old.local, old.remote, list)
}

// create asks for a Child SA, in place of old unless that is nil.
func (s *ikeSA) create(old *childSA, local, remote []ipsec.Selector, list []suite.Proposal) {
	c := &childSA{spiIn: newSPI(), local: local, remote: remote}
	ni := random(32)
	var kx suite.KeyExchange
	s.ask(&exchange{wire.ExchangeCreateChildSA, func() []wire.Payload {
		if old != nil && !slices.Contains(s.kids, old) {
			return nil
		}
		front := []wire.Payload{&wire.Nonce{Data: ni}}
		if g := firstGroup(list); g != suite.KENone {
			var err error
			if kx, err = suite.NewKeyExchange(g); err != nil {
				s.p.w.t.Fatal(err)
			}
			front = append(front, &wire.KE{Group: uint16(g), Data: kx.Public()})
		}
		out := s.childPayloads(c, list, front...)
		if old != nil {
			out = append([]wire.Payload{&wire.Notify{Protocol: wire.ProtocolESP, SPI: spi4(old.spiIn), NotifyType: wire.RekeySA}}, out...)
		}
		return out
	}, func(answer []wire.Payload) {
		if s.made(c, list, kx, ni, answer) && old != nil {
			s.p.rekeys++
			s.deleteChild(old)
		}
	}})
}

// deleteChild deletes a Child SA of the peer.
func (s *ikeSA) deleteChild(c *childSA) {
	s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload {
		if !slices.Contains(s.kids, c) {
			return nil
		}
		return []wire.Payload{&wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{c.spiIn}}}
	}, func([]wire.Payload) {
		s.kids = slices.DeleteFunc(s.kids, func(x *childSA) bool { return x == c })
	}})
}

// rekeyIKE replaces the IKE SA by the peer's request and deletes the old one.
func (s *ikeSA) rekeyIKE(list []suite.Proposal) {
	n := &ikeSA{p: s.p, at: s.at, to: s.to, initiator: true, spiI: random64(), ni: random(32), fragments: s.fragments}
	g := firstGroup(list)
	kx, err := suite.NewKeyExchange(g)
	if err != nil {
		s.p.w.t.Fatal(err)
	}
	s.ask(&exchange{wire.ExchangeCreateChildSA, func() []wire.Payload {
		return []wire.Payload{saPayload(list, spi8(n.spiI), max(s.p.firstNumber, 1)), &wire.Nonce{Data: n.ni}, &wire.KE{Group: uint16(g), Data: kx.Public()}}
	}, func(answer []wire.Payload) {
		saP, ok := wire.First[*wire.SA](answer)
		if !ok {
			return
		}
		if saP.Proposals[0].Number != max(s.p.firstNumber, 1) {
			s.p.w.t.Errorf("adit answers proposal %d with number %d", max(s.p.firstNumber, 1), saP.Proposals[0].Number)
		}
		ke, _ := wire.First[*wire.KE](answer)
		nr, _ := wire.First[*wire.Nonce](answer)
		sel, err := suite.Accept(list, offered(saP)[0], suite.SelectOptions{})
		if err != nil {
			s.p.w.t.Fatal(err)
		}
		shared, err := kx.Shared(ke.Data)
		if err != nil {
			s.p.w.t.Fatal(err)
		}
		n.spiR, n.nr = binary.BigEndian.Uint64(saP.Proposals[0].SPI), nr.Data
		s.successor(n, sel, shared)
		s.deleteIKE()
	}})
}

func (s *ikeSA) deleteIKE() {
	s.ask(&exchange{wire.ExchangeInformational, func() []wire.Payload { return []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}} },
		func([]wire.Payload) { s.gone = true }})
}
