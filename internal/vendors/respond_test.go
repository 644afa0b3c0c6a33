package vendors_test

import (
	"encoding/binary"
	"slices"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// initRequest answers adit's IKE_SA_INIT.
func (p *peer) initRequest(d ike.Datagram, msg *wire.Message) {
	h := msg.Header
	for _, s := range p.sas { // repeated
		if s.spiI == h.SPIi && !s.initiator {
			p.send(d.Local, d.Remote, s.response)
			return
		}
	}
	saP, _ := wire.First[*wire.SA](msg.Payloads)
	ke, _ := wire.First[*wire.KE](msg.Payloads)
	ni, _ := wire.First[*wire.Nonce](msg.Payloads)
	head := wire.Header{SPIi: h.SPIi, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagResponse}
	refuse := func(n *wire.Notify) { p.send(d.Local, d.Remote, wire.AppendMessage(nil, head, []wire.Payload{n})) }
	// Its own order counts, not that of the request.
	sel, i, err := suite.Select(p.ike, offered(saP), suite.SelectOptions{})
	switch {
	case err != nil:
		refuse(notify(wire.NoProposalChosen, nil))
		return
	case sel.KE.ID != suite.TransformID(ke.Group):
		refuse(notify(wire.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, uint16(sel.KE.ID))))
		return
	}
	s := &ikeSA{p: p, at: d.Local, to: d.Remote, spiI: h.SPIi, spiR: random64(), ni: ni.Data, nr: random(32), request: msg.Raw, recvID: 1}
	public, shared, err := suite.RespondKeyExchange(sel.KE.ID, ke.Data)
	if err != nil {
		p.w.t.Fatal(err)
	}
	s.learn(msg.Payloads)
	s.derive(sel, func(f suite.PRF) suite.Key { return f.Sum(f.NonceKey(s.ni, s.nr), shared) })
	list := append([]wire.Payload{saPayload([]suite.Proposal{sel.Proposal()}, nil, saP.Proposals[i].Number), &wire.KE{Group: ke.Group, Data: public}, &wire.Nonce{Data: s.nr}}, s.initNotifies()...)
	head.SPIr = s.spiR
	s.response = wire.AppendMessage(nil, head, list)
	p.sas = append(p.sas, s)
	p.send(s.at, s.to, s.response)
	if p.initiatesBack {
		p.initiatesBack = false // once
		p.initiate()
	}
}

// take answers a protected request of adit.
func (s *ikeSA) take(h wire.Header, list []wire.Payload) {
	switch h.Exchange {
	case wire.ExchangeIKEAuth:
		s.authRequest(h, list)
	case wire.ExchangeCreateChildSA:
		s.createRequest(h, list)
	default:
		s.informational(h, list)
	}
}

func (s *ikeSA) authRequest(h wire.Header, list []wire.Payload) {
	if !s.believes(list, wire.PayloadIDi) {
		s.answer(h, notify(wire.AuthenticationFailed, nil))
		s.gone = true
		return
	}
	s.up = true
	id := s.p.identity()
	idr := &wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDType(id.Type), Data: []byte(id.Data)}
	out := []wire.Payload{idr, s.auth(idr, false)}
	if saP, ok := wire.First[*wire.SA](list); ok {
		child, _ := s.grant(list, saP, nil)
		out = append(out, child...)
	}
	s.answer(h, out...)
}

// narrow is what the peer grants of an offer, its side first.
func (p *peer) narrow(local, remote []ipsec.Selector) (l, r []ipsec.Selector) {
	for _, pair := range p.pairs {
		pl, pr := selectors(p.w.t, pair[0]), selectors(p.w.t, pair[1])
		if !ipsec.ContainsAll(local, pl) || !ipsec.ContainsAll(remote, pr) || p.onePairOnly && (len(local) > 1 || len(remote) > 1) {
			continue
		}
		taken := slices.ContainsFunc(p.children(), func(c *childSA) bool { return c.local[0] == pl[0] && c.remote[0] == pr[0] })
		if l == nil || !taken {
			l, r = pl, pr
		}
		if !taken {
			break
		}
	}
	if p.pairs != nil {
		return l, r
	}
	if p.whole && (!ipsec.ContainsAll(local, p.local) || !ipsec.ContainsAll(remote, p.remote)) {
		return nil, nil
	}
	return ipsec.Narrow(p.local, local), ipsec.Narrow(p.remote, remote)
}

// grant makes a Child SA that adit asks for, or names the error. old is the one that
// it replaces.
func (s *ikeSA) grant(list []wire.Payload, saP *wire.SA, old *childSA) ([]wire.Payload, *childSA) {
	p := s.p
	p.proposalSent = append(p.proposalSent, saP)
	nonce, exchange := wire.First[*wire.Nonce](list)
	ke, withKE := wire.First[*wire.KE](list)
	if withKE {
		p.kes++
	}
	var l, r []ipsec.Selector
	if old != nil && p.pairs != nil {
		l, r = old.local, old.remote
	} else {
		l, r = p.narrow(fromTS(wire.FindTS(list, wire.PayloadTSr)), fromTS(wire.FindTS(list, wire.PayloadTSi)))
	}
	if len(l) == 0 || len(r) == 0 {
		return []wire.Payload{notify(wire.TSUnacceptable, nil)}, nil
	}
	own, theirs, opt := p.esp, offered(saP), suite.SelectOptions{IgnoreKE: !exchange}
	if withKE {
		opt.KE = suite.TransformID(ke.Group)
	}
	if !exchange {
		own = withoutKE(own)
	}
	sel, i, err := suite.Select(own, theirs, opt)
	if err != nil {
		return []wire.Payload{notify(wire.NoProposalChosen, nil)}, nil
	}
	if sel.KEPresent && (!withKE || sel.KE.ID != suite.TransformID(ke.Group)) {
		return []wire.Payload{notify(wire.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, uint16(sel.KE.ID)))}, nil
	}
	c := &childSA{spiIn: newSPI(), spiOut: binary.BigEndian.Uint32(saP.Proposals[i].SPI), local: l, remote: r, sel: sel}
	out := []wire.Payload{saPayload([]suite.Proposal{sel.Proposal()}, spi4(c.spiIn), saP.Proposals[i].Number)}
	ni, nr, shared := s.ni, s.nr, suite.Key(nil)
	if exchange {
		ni, nr = nonce.Data, random(32)
		out = append(out, &wire.Nonce{Data: nr})
	}
	if sel.KEPresent {
		var public []byte
		if public, shared, err = suite.RespondKeyExchange(sel.KE.ID, ke.Data); err != nil {
			p.w.t.Fatal(err)
		}
		out = append(out, &wire.KE{Group: ke.Group, Data: public})
	}
	others := slices.Clone(s.kids)
	s.keys(c, false, shared, ni, nr)
	if p.oneChild && old == nil {
		p.w.after(0, func() { // behind its answer
			for _, x := range others {
				s.deleteChild(x)
			}
		})
	}
	return append(out, tsPayload(wire.PayloadTSi, r), tsPayload(wire.PayloadTSr, l)), c
}

func (s *ikeSA) createRequest(h wire.Header, list []wire.Payload) {
	p := s.p
	saP, _ := wire.First[*wire.SA](list)
	if saP.Proposals[0].Protocol == wire.ProtocolIKE {
		s.rekeyIKERequest(h, list, saP)
		return
	}
	var old *childSA
	if n := wire.FindNotify(list, wire.RekeySA); n != nil {
		i := slices.IndexFunc(s.kids, func(c *childSA) bool { return c.spiOut == binary.BigEndian.Uint32(n.SPI) })
		if i < 0 {
			s.answer(h, &wire.Notify{Protocol: n.Protocol, SPI: n.SPI, NotifyType: wire.ChildSANotFound})
			return
		}
		old = s.kids[i]
		if p.refuseRekey != nil {
			if no := p.refuseRekey(list); no != nil {
				s.answer(h, no)
				return
			}
		}
	}
	out, c := s.grant(list, saP, old)
	s.answer(h, out...)
	if old == nil || c == nil {
		return
	}
	p.rekeys++
	if p.deleteAfter > 0 {
		p.w.after(p.deleteAfter, func() { s.deleteChild(old) })
	}
}

func (s *ikeSA) rekeyIKERequest(h wire.Header, list []wire.Payload, saP *wire.SA) {
	if s.p.refuseIKERekey != nil {
		if no := s.p.refuseIKERekey(list); no != nil {
			s.answer(h, no)
			return
		}
	}
	ke, _ := wire.First[*wire.KE](list)
	ni, _ := wire.First[*wire.Nonce](list)
	sel, i, err := suite.Select(s.p.ike, offered(saP), suite.SelectOptions{KE: suite.TransformID(ke.Group)})
	if err != nil || sel.KE.ID != suite.TransformID(ke.Group) {
		s.answer(h, notify(wire.NoProposalChosen, nil))
		return
	}
	public, shared, err := suite.RespondKeyExchange(sel.KE.ID, ke.Data)
	if err != nil {
		s.p.w.t.Fatal(err)
	}
	n := &ikeSA{p: s.p, at: s.at, to: s.to, spiI: binary.BigEndian.Uint64(saP.Proposals[i].SPI), spiR: random64(), ni: ni.Data, nr: random(32), fragments: s.fragments}
	s.successor(n, sel, shared)
	s.answer(h, saPayload([]suite.Proposal{sel.Proposal()}, spi8(n.spiR), saP.Proposals[i].Number), &wire.Nonce{Data: n.nr}, &wire.KE{Group: ke.Group, Data: public})
}

// successor takes the place of an IKE SA; adit, or the peer, deletes that one then.
func (s *ikeSA) successor(n *ikeSA, sel suite.Selected, shared suite.Key) {
	n.derive(sel, func(suite.PRF) suite.Key { return s.prf.Sum(s.d, shared, n.ni, n.nr) })
	n.kids, s.kids = s.kids, nil
	n.up = true
	s.p.sas = append(s.p.sas, n)
	s.p.rekeys++
}

func (s *ikeSA) informational(h wire.Header, list []wire.Payload) {
	var gone []uint32
	if c := wire.FindNotify(list, wire.Cookie2); c != nil { // RFC 4555 §3.7
		s.answer(h, notify(wire.Cookie2, c.Data))
		return
	}
	for _, x := range list {
		d, ok := x.(*wire.Delete)
		switch {
		case ok && d.Protocol == wire.ProtocolIKE:
			s.answer(h)
			s.gone = true
			return
		case ok:
			for _, spi := range d.SPIs {
				if i := slices.IndexFunc(s.kids, func(c *childSA) bool { return c.spiOut == spi }); i >= 0 {
					gone = append(gone, s.kids[i].spiIn)
					s.kids = slices.Delete(s.kids, i, i+1)
				}
			}
		}
		if n, ok := x.(*wire.Notify); ok && n.NotifyType == wire.AuthenticationFailed {
			s.answer(h)
			s.gone = true
			return
		}
	}
	if len(gone) > 0 {
		s.answer(h, &wire.Delete{Protocol: wire.ProtocolESP, SPIs: gone})
		return
	}
	s.answer(h)
}
