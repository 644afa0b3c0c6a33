package ikev2

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/suite"
)

// nonceLen is the length of our nonces: at least half of every PRF's key (RFC 7296 §2.10).
const nonceLen = 32

func newNonce() []byte {
	b := make([]byte, nonceLen)
	rand.Read(b)
	return b
}

// initiate begins an IKE SA: IKE_SA_INIT as initiator (RFC 7296 §1.2).
func initiate(env *ike.Env, now time.Time, r ike.InitiateRequest) ike.SA {
	s := &sa{env: env, peer: r.Peer, initiator: true, local: r.Local, remote: r.Remote}
	s.spiI = env.NewSPI()
	env.Register(s.spiI, 0)
	s.ids = [2]ike.Identity{localID(r.Peer, r.Local.Addr()), r.Peer.Remote[0].ID}
	st := &initSent{offered: r.Peer.Proposals, group: firstKE(r.Peer.Proposals), ni: newNonce(), child: r.Child, reauth: r.Reauth, from: r.RedirectedFrom, fakeHash: wantFake(env.Config(), r.Peer), transcript: env.Config().FullTranscript}
	s.state = st
	if st.ticket = r.Ticket; st.ticket != nil && (r.Ticket.Peer != s.peer || s.peer.PPKRequired && !r.Ticket.PPK) {
		st.forgetTicket()
	}
	s.sendInit(now, st)
	return s
}

// sendInit sends IKE_SA_INIT, with a new key pair if the group changed.
func (s *sa) sendInit(now time.Time, st *initSent) {
	if st.ticket != nil {
		s.sendResume(now, st)
		return
	}
	if wantsPPK(s.peer) && !st.sought {
		st.sought = true
		s.seekPPK(now, st)
		return
	}
	if st.ke != nil {
		s.sendInitWith(now, st)
		return
	}
	type made struct {
		ke  suite.KeyExchange
		err error
	}
	group := st.group
	compute(s, now, "key exchange "+suite.Transform{Type: suite.TypeKE, ID: group}.Name(), slowGroup(group), func() made {
		ke, err := suite.NewKeyExchange(group)
		return made{ke, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err != nil || m.ke == nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: fmt.Sprint("key exchange: ", err)})
			return
		}
		st.ke = m.ke
		s.sendInitWith(now, st)
	})
}

func (s *sa) sendInitWith(now time.Time, st *initSent) {
	var list []wire.Payload
	if st.cookie != nil {
		list = append(list, notify(wire.Cookie, st.cookie))
	}
	list = append(list, toWire(st.offered, nil), &wire.KE{Group: uint16(st.group), Data: st.ke.Public()}, &wire.Nonce{Data: st.ni})
	list = append(list, natPayloads(s.spiI, 0, s.local, s.remote, st.fakeHash)...)
	if announcesFragments(s.peer) {
		list = append(list, notify(wire.FragmentationSupported, nil))
	}
	ppks := st.ppks(s.peer)
	list = append(list, ppks...)
	if offersAdditional(st.offered) || wire.FindNotify(ppks, wire.UsePPKInt) != nil {
		list = append(list, notify(wire.IntermediateExchangeSupported, nil))
	}
	if !s.config().NoSignatureAuth {
		list = append(list, hashNotify())
	}
	if !s.config().NoRedirects {
		list = append(list, redirectNotify(st.from))
	}
	if st.transcript {
		list = append(list, notify(wire.IKESAInitFullTranscriptAuth, nil))
	}
	list = append(list, vendorIDs(s.config())...)
	s.win.sendID = 0
	s.request(now, wire.ExchangeIKESAInit, list)
}

// receiveInit takes what is in the clear: only IKE_SA_INIT, only in its states.
func (s *sa) receiveInit(now time.Time, d ike.Datagram, msg *wire.Message) {
	h := &msg.Header
	r := findRule(s.state.phase(), h.Exchange, h.Response())
	if r == nil || h.MessageID != 0 || msg.Encrypted != nil {
		s.env.Drop(now, ike.DropUnexpected, d.Remote)
		return
	}
	r.take(s, now, &inbound{header: *h, datagram: d, payloads: msg.Payloads})
}

// initRepeated answers a repetition of the first message by the stored bytes.
func (s *sa) initRepeated(now time.Time, in *inbound) {
	st := s.state.(*initReceived)
	if !bytes.Equal(st.request, in.datagram.Data) {
		s.env.Drop(now, ike.DropRepeated, in.datagram.Remote)
		return
	}
	if st.response == nil {
		s.env.Drop(now, ike.DropBusy, in.datagram.Remote)
		return
	}
	s.env.CountRetransmit()
	s.send(now, ike.Datagram{Local: in.datagram.Local, Remote: in.datagram.Remote, Data: st.response}, "repeated response", 1)
}

// initAnswer is a response that is sent without keeping any state.
func initAnswer(env *ike.Env, d ike.Datagram, h *wire.Header, t wire.NotifyType, data []byte) {
	answer := wire.Header{SPIi: h.SPIi, Version: wire.IKEv2, Exchange: h.Exchange, Flags: wire.FlagResponse}
	b := wire.AppendMessage(nil, answer, []wire.Payload{notify(t, data)})
	env.Effect(ike.Send{Datagram: ike.Datagram{Local: d.Local, Remote: d.Remote, Data: b}})
}

// accept begins an IKE SA as responder, or refuses the first message without
// keeping anything.
func accept(env *ike.Env, now time.Time, d ike.Datagram, h wire.Header) ike.SA {
	msg, err := wire.ParseMessage(d.Data)
	if err != nil || msg.Encrypted != nil {
		env.Drop(now, ike.DropMalformed, d.Remote)
		return nil
	}
	var refused *ike.Peer // the connection that is the nearest
	refuse := func(t wire.NotifyType, data []byte, r *ike.Rejection) ike.SA {
		initAnswer(env, d, &h, t, data)
		if r != nil && env.MayReject(now) {
			r.Notify, r.Local, r.Remote = t.String(), d.Local, d.Remote
			r.PointTo(refused)
			env.Emit(r)
		}
		return nil
	}
	if t, ok := wire.UnknownCritical(msg.Payloads); ok {
		return refuse(wire.UnsupportedCriticalPayload, []byte{byte(t)}, &ike.Rejection{Reason: ike.ReasonCritical, Difference: "payload type " + t.String()})
	}
	saP, ok1 := wire.First[*wire.SA](msg.Payloads)
	ke, ok2 := wire.First[*wire.KE](msg.Payloads)
	ni, ok3 := wire.First[*wire.Nonce](msg.Payloads)
	if !ok1 || !ok2 || !ok3 || len(saP.Proposals) == 0 {
		return refuse(wire.InvalidSyntax, nil, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "SA, KE or Ni is missing"})
	}
	peers, passed := ike.MatchPeers(env.Peers(), 2, d.Local.Addr(), d.Remote.Addr())
	if len(peers) == 0 {
		env.Drop(now, ike.DropNoConnection, d.Remote)
		return refuse(wire.NoProposalChosen, nil, &ike.Rejection{Reason: ike.ReasonAddress, Theirs: d.Remote.Addr().String(), Ours: d.Local.Addr().String(),
			Difference: "no connection for these addresses", Candidates: passed})
	}
	if sentAway(env, now, d, &h, msg.Payloads, ni.Data) {
		return nil
	}
	theirs := fromWire(saP)
	intermediates := wire.FindNotify(msg.Payloads, wire.IntermediateExchangeSupported) != nil
	var sel suite.Selected
	index := -1
	var first error
	var chosen *ike.Peer
	for _, p := range peers {
		s, i, err := suite.Select(p.Proposals, theirs, suite.SelectOptions{PreferPeer: p.PreferPeer, KE: suite.TransformID(ke.Group), NoAdditional: !intermediates})
		if err == nil {
			sel, index, chosen = s, i, p
			break
		}
		if first == nil {
			first = err
		}
	}
	switch {
	case index < 0:
		refused = peers[0]
		r := noProposal(first, refused.Proposals, theirs)
		r.Name = refused.Name
		for _, p := range peers[1:min(len(peers), limitPassed)] {
			r.Candidates = append(r.Candidates, ike.Candidate{Name: p.Name, Why: "its proposals do not contain any of the peer's", Detail: ike.DetailTransform})
		}
		return refuse(wire.NoProposalChosen, nil, r)
	case wire.FindNotify(msg.Payloads, wire.UsePPKInt) == nil && !slices.ContainsFunc(peers, func(p *ike.Peer) bool { return !insistsOnPPKInt(p) }):
		refused = peers[0] // RFC 9867 §3.1
		return refuse(wire.NoProposalChosen, nil, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailPPK,
			Difference: "the peer does not offer a PPK before IKE_AUTH (RFC 9867), which ppk_required and ppk_intermediate = require demand"})
	case sel.KE.ID != suite.TransformID(ke.Group):
		return refuse(wire.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, uint16(sel.KE.ID)), nil)
	}
	s := &sa{env: env, local: d.Local, remote: d.Remote, spiI: h.SPIi, selected: sel, vendor: vendor(msg.Payloads)}
	s.life.setupEnd = now.Add(env.Config().HalfOpenTimeout)
	if simbug.Chosen == simbug.HalfOpenForever {
		s.life.setupEnd = time.Time{}
	}
	s.spiR = env.NewSPI()
	env.Register(s.spiR, s.spiI)
	st := &initReceived{request: slices.Clone(d.Data), ni: slices.Clone(ni.Data), nr: newNonce(), candidates: peers, passed: passed}
	s.state = st
	st.transcript = env.Config().FullTranscript && wire.FindNotify(msg.Payloads, wire.IKESAInitFullTranscriptAuth) != nil
	st.left, st.supported = sel.AdditionalKE(), intermediates
	st.announced.read(msg.Payloads, !env.Config().NoSignatureAuth)
	s.tieBreak = slices.Clone(lowerNonce(st.ni, st.nr))
	s.nat = detectNAT(msg.Payloads, s.spiI, 0, d.Local, d.Remote)
	s.nat.fake = s.nat.supported && wantFake(env.Config(), chosen)
	s.peerCaps.fragments = announcesFragments(peers...) && wire.FindNotify(msg.Payloads, wire.FragmentationSupported) != nil
	s.peerCaps.redirect = takesRedirect(msg.Payloads)
	s.peerCaps.ppkInt = intermediates && offersPPKInt(chosen) && wire.FindNotify(msg.Payloads, wire.UsePPKInt) != nil
	s.peerCaps.ppk = !s.peerCaps.ppkInt && wire.FindNotify(msg.Payloads, wire.UsePPK) != nil
	s.received(d, summary(h, msg.Payloads))
	s.respondInit(now, st, sel, saP.Proposals[index].Number, suite.TransformID(ke.Group), slices.Clone(ke.Data))
	return s
}

// respondInit computes the shared secret and answers IKE_SA_INIT.
func (s *sa) respondInit(now time.Time, st *initReceived, sel suite.Selected, number uint8, group suite.TransformID, public []byte) {
	type made struct {
		public []byte
		shared suite.Key
		err    error
	}
	compute(s, now, "key exchange "+sel.KE.Name(), slowGroup(group), func() made {
		p, k, err := suite.RespondKeyExchange(group, public)
		return made{p, k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err == nil {
			err = s.deriveKeys(sel, m.shared, st.ni, st.nr)
		}
		if err != nil {
			h := wire.Header{SPIi: s.spiI, Exchange: wire.ExchangeIKESAInit}
			initAnswer(s.env, ike.Datagram{Local: s.local, Remote: s.remote}, &h, wire.InvalidSyntax, nil)
			s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: "key exchange: " + err.Error()})
			return
		}
		answer := toWire([]suite.Proposal{sel.Proposal()}, nil)
		answer.Proposals[0].Number = number
		list := []wire.Payload{answer, &wire.KE{Group: uint16(group), Data: m.public}, &wire.Nonce{Data: st.nr}}
		if s.nat.supported {
			list = append(list, natPayloads(s.spiI, s.spiR, s.local, s.remote, s.nat.fake)...)
		}
		if s.peerCaps.fragments {
			list = append(list, notify(wire.FragmentationSupported, nil))
		}
		if s.peerCaps.ppk {
			// Deviates: RFC 8784 §3 has it sent only by who has a PPK; which of them the peer
			// means is seen in IKE_AUTH.
			list = append(list, notify(wire.UsePPK, nil))
		}
		if s.peerCaps.ppkInt { // as above
			list = append(list, notify(wire.UsePPKInt, nil))
		}
		if st.supported {
			list = append(list, notify(wire.IntermediateExchangeSupported, nil))
		}
		if st.announced.hashes != nil {
			list = append(list, hashNotify())
		}
		if announcesChildless(st.candidates) {
			list = append(list, notify(wire.ChildlessIKEv2Supported, nil))
		}
		if !s.config().NoMultipleAuth {
			list = append(list, notify(wire.MultipleAuthSupported, nil))
		}
		list = append(list, methodsNotify(st.candidates, st.announced.hashes != nil)...)
		list = append(list, certRequests(s.env, st.candidates)...)
		if s.config().FullTranscript { // whether or not the initiator's has come: it may have been taken out
			list = append(list, notify(wire.IKESAInitFullTranscriptAuth, nil))
		}
		list = append(list, vendorIDs(s.config())...)
		h := s.header(wire.ExchangeIKESAInit, 0, true)
		st.response = wire.AppendMessage(nil, h, list)
		s.win.recvID, s.win.sendID = 1, 0
		s.send(now, s.local2remote(st.response), summary(h, list), 0)
	})
}

// deriveKeys computes SKEYSEED and the keys of a new IKE SA (RFC 7296 §2.14).
func (s *sa) deriveKeys(sel suite.Selected, shared suite.Key, ni, nr []byte) error {
	defer shared.Zero()
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return err
	}
	nonces := prf.NonceKey(ni, nr)
	return s.armKeys(sel, prf.Sum(nonces, shared), ni, nr)
}

func (s *sa) armKeys(sel suite.Selected, skeyseed suite.Key, ni, nr []byte) error {
	k, err := deriveIKE(sel, skeyseed, ni, nr, s.spiI, s.spiR)
	if err != nil {
		return err
	}
	if s.config().UnsafeExportKeys {
		s.env.Effect(ike.ExportKeys{IKE: k.export(sel, s.spiI, s.spiR)})
	}
	if err := k.arm(sel, s.initiator); err != nil {
		k.wipe()
		return err
	}
	s.keys, s.selected = k, sel
	return nil
}

// initResponse takes the answer to our IKE_SA_INIT. It is not authenticated yet:
// what is wrong in it, or refuses, does not end the attempt at once.
func (s *sa) initResponse(now time.Time, in *inbound) {
	st := s.state.(*initSent)
	if s.win.out == nil {
		s.env.Drop(now, ike.DropMessageID, in.datagram.Remote)
		return
	}
	if _, ok := wire.UnknownCritical(in.payloads); ok {
		s.env.Drop(now, ike.DropUnexpected, in.datagram.Remote)
		return
	}
	s.received(in.datagram, summary(in.header, in.payloads))
	if n := wire.FindNotify(in.payloads, wire.Cookie); n != nil && len(n.Data) > 0 && len(n.Data) <= 64 {
		// The same request again with the cookie in front (RFC 7296 §2.6).
		if bytes.Equal(st.cookie, n.Data) {
			s.env.Drop(now, ike.DropRepeated, in.datagram.Remote) // late or doubled
			return
		}
		if s.retryInit(now, st) {
			st.cookie = slices.Clone(n.Data)
			s.sendInit(now, st)
		}
		return
	}
	if n := wire.FindNotify(in.payloads, wire.Redirect); n != nil {
		s.redirectedInit(now, st, in, n)
		return
	}
	if n := wire.FindNotify(in.payloads, wire.InvalidKEPayload); n != nil {
		s.otherGroup(now, st, in, n)
		return
	}
	if n := errorNotify(in.payloads); n != nil {
		s.doubt(now, st, peerRefused(n, proposalText(st.offered), "or the peer has no connection for our address"))
		return
	}
	saP, ok1 := wire.First[*wire.SA](in.payloads)
	ke, ok2 := wire.First[*wire.KE](in.payloads)
	nr, ok3 := wire.First[*wire.Nonce](in.payloads)
	if !ok1 || !ok2 || !ok3 || len(saP.Proposals) != 1 || in.header.SPIr == 0 {
		s.doubt(now, st, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "the answer to IKE_SA_INIT lacks SA, KE, Nr or an SPI"})
		return
	}
	answer := fromWire(saP)[0]
	sel, err := suite.Accept(st.offered, answer, suite.SelectOptions{KE: st.group, NoAdditional: wire.FindNotify(in.payloads, wire.IntermediateExchangeSupported) == nil})
	if err != nil {
		s.doubt(now, st, noProposal(err, st.offered, []suite.Proposal{answer}))
		return
	}
	if sel.KE.ID != st.group || suite.TransformID(ke.Group) != st.group {
		s.doubt(now, st, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "the answer's key exchange is of another group than ours"})
		return
	}
	out := s.win.out
	s.win.out, s.life.setupEnd = nil, time.Time{}
	response, nonce, public := slices.Clone(in.datagram.Data), slices.Clone(nr.Data), slices.Clone(ke.Data)
	payloads, spiR := in.payloads, in.header.SPIr
	type made struct {
		shared suite.Key
		err    error
	}
	kx := st.ke
	compute(s, now, "shared secret "+sel.KE.Name(), slowGroup(st.group), func() made {
		k, err := kx.Shared(public)
		return made{k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err != nil {
			s.win.out = out // what was wrong with it may be that it was forged
			s.doubt(now, st, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "key exchange: " + err.Error()})
			return
		}
		s.spiR = spiR
		s.env.Register(s.spiI, s.spiR)
		if err := s.deriveKeys(sel, m.shared, st.ni, nonce); err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
			return
		}
		s.tieBreak = slices.Clone(lowerNonce(st.ni, nonce))
		s.vendor = vendor(payloads)
		s.peerCaps.fragments = announcesFragments(s.peer) && wire.FindNotify(payloads, wire.FragmentationSupported) != nil
		announced := st.ppks(s.peer)
		both := func(t wire.NotifyType) bool {
			return wire.FindNotify(announced, t) != nil && wire.FindNotify(payloads, t) != nil
		}
		s.peerCaps.ppkInt = both(wire.UsePPKInt) && wire.FindNotify(payloads, wire.IntermediateExchangeSupported) != nil
		s.peerCaps.ppk = both(wire.UsePPK) && !s.peerCaps.ppkInt
		s.peerCaps.childless = wire.FindNotify(payloads, wire.ChildlessIKEv2Supported) != nil
		if s.peer.Childless == ike.ChildlessForce && !s.peerCaps.childless {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonPeer, Difference: "the peer does not know childless IKE SAs (RFC 6023)", Options: []string{s.peer.Option("childless")}})
			return
		}
		s.nat = detectNAT(payloads, s.spiI, s.spiR, s.local, s.remote)
		s.nat.fake = s.nat.supported && st.fakeHash
		s.floatPorts()
		next := &authSent{child: st.child, reauth: st.reauth, havePPK: st.havePPK}
		next.authentication = authentication{request: out.packets[0], response: response, ni: st.ni, nr: nonce, candidates: []*ike.Peer{s.peer}, expects: true,
			first: []*ike.Peer{s.peer}, multiple: s.multipleAuth(payloads)}
		next.transcript = st.transcript && wire.FindNotify(payloads, wire.IKESAInitFullTranscriptAuth) != nil
		next.announced.read(payloads, !s.config().NoSignatureAuth)
		s.beginIntermediate(now, next)
	})
}

// doubt takes note of an answer that refuses or makes no sense. Nobody vouches for
// it: the request stays in flight for a while, and the first such answer is what
// the attempt failed of if nothing better comes (RFC 7296 §2.21.1).
func (s *sa) doubt(now time.Time, st *initSent, r *ike.Rejection) {
	if st.refused == nil {
		st.refused = r
	}
	if s.life.setupEnd.IsZero() {
		s.life.setupEnd = now.Add(refusalGrace)
	}
}

// retryInit counts repetitions that the peer asks for; false: too many.
func (s *sa) retryInit(now time.Time, st *initSent) bool {
	s.win.out, st.refused, s.life.setupEnd = nil, nil, time.Time{}
	if st.retries++; st.retries > limitInitRetries {
		s.fail(now, &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Difference: "the peer asks for IKE_SA_INIT again and again"})
		return false
	}
	return true
}

// otherGroup repeats IKE_SA_INIT with the group that the peer wants, if we offered it.
func (s *sa) otherGroup(now time.Time, st *initSent, in *inbound, n *wire.Notify) {
	var g suite.TransformID
	if len(n.Data) == 2 {
		g = suite.TransformID(binary.BigEndian.Uint16(n.Data))
	}
	if g == st.group && st.retries > 0 {
		s.env.Drop(now, ike.DropRepeated, in.datagram.Remote) // late or doubled
		return
	}
	if g == st.group || !offersKE(st.offered, g) {
		s.doubt(now, st, &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailGroup, ByPeer: true, Notify: n.NotifyType.String(), Ours: proposalText(st.offered),
			Difference: "the peer wants key exchange group " + fmt.Sprint(g)})
		return
	}
	if !s.retryInit(now, st) {
		return
	}
	s.note(2, "the peer wants "+suite.Transform{Type: suite.TypeKE, ID: g}.Name())
	st.group, st.ke = g, nil
	// What we list first is what we send, so that the peer finds no contradiction.
	offered := make([]suite.Proposal, len(st.offered))
	for i, p := range st.offered {
		offered[i], _ = p.WithKEFirst(g)
	}
	st.offered = offered
	s.sendInit(now, st)
}

// peerRefused is the record of an error notify of the peer.
func peerRefused(n *wire.Notify, ours, hint string) *ike.Rejection {
	r := &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Notify: n.NotifyType.String(), Ours: ours, Hint: hint}
	switch n.NotifyType {
	case wire.NoProposalChosen:
		r.Reason = ike.ReasonProposal
	case wire.AuthenticationFailed:
		r.Reason = ike.ReasonAuthentication
	case wire.TSUnacceptable:
		r.Reason = ike.ReasonSelectors
	case wire.InternalAddressFailure, wire.FailedCPRequired:
		r.Reason = ike.ReasonAddresses
	case wire.InvalidSyntax:
		r.Reason = ike.ReasonSyntax
	case wire.UnsupportedCriticalPayload:
		r.Reason = ike.ReasonCritical
	case wire.InvalidMajorVersion:
		r.Reason = ike.ReasonVersion
	}
	describeMicrosoft(r, n)
	return r
}

// multipleAuth reports whether both sides take several rounds of authentication.
func (s *sa) multipleAuth(payloads []wire.Payload) bool {
	return !s.config().NoMultipleAuth && wire.FindNotify(payloads, wire.MultipleAuthSupported) != nil
}

// strongSwanID is strongSwan's vendor ID, the MD5 of its name; flexVPNID has Cisco's
// gateways take selectors beyond the address that they give.
const (
	strongSwanID = "\x88\x2f\xe5\x6d\x6f\xd2\x0d\xbc\x22\x51\x61\x3b\x2e\xbe\x5b\xeb"
	flexVPNID    = "FLEXVPN-SUPPORTED"
)

// vendorIDs are those that strongswan.conf has us send.
func vendorIDs(c *ike.Config) (list []wire.Payload) {
	if c.SendVendorID {
		list = append(list, &wire.VendorID{Data: []byte(strongSwanID)})
	}
	if c.FlexVPN {
		list = append(list, &wire.VendorID{Data: []byte(flexVPNID)})
	}
	return list
}

// vendor tells from vendor IDs in clear text what the peer is.
func vendor(payloads []wire.Payload) string {
	for _, p := range payloads {
		v, ok := p.(*wire.VendorID)
		if !ok {
			continue
		}
		for _, known := range []string{"strongSwan", "OpenIKED", "Libreswan"} {
			if strings.HasPrefix(string(v.Data), known) {
				return known
			}
		}
		if string(v.Data) == strongSwanID {
			return "strongSwan"
		}
		if strings.HasPrefix(string(v.Data), "OE-Libreswan") {
			return "Libreswan"
		}
	}
	return ""
}

// setupTimeout closes an IKE SA that was not established in time, or was refused.
func (s *sa) setupTimeout(now time.Time) {
	if st, ok := s.state.(*initSent); ok && st.refused != nil {
		s.fail(now, st.refused)
		return
	}
	r := s.eapAborted(&ike.Rejection{Reason: ike.ReasonNoAnswer})
	if r.Detail == ike.DetailEAP { // it went without a word when EAP failed
		r.Reason = ike.ReasonAuthentication
		s.fail(now, r)
		return
	}
	r.Detail, r.Difference = ike.DetailHalfOpen, "not established in time (half-open)"
	s.fail(now, r)
}
