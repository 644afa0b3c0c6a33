package ikev1

import (
	"crypto/rand"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

func newNonce() []byte {
	b := make([]byte, nonceLen)
	rand.Read(b)
	return b
}

// initiate begins phase 1 as initiator (RFC 2409 §5).
func initiate(env *ike.Env, now time.Time, r ike.InitiateRequest) ike.SA {
	s := &sa{env: env, peer: r.Peer, initiator: true, local: r.Local, remote: r.Remote, phase: phaseSASent}
	s.spiI = env.NewSPI()
	env.Register(s.spiI, 0)
	s.ids = [2]ike.Identity{ourID(r.Peer, r.Local.Addr()), r.Peer.Remote[0].ID}
	s.setup = &setup{child: r.Child, reauth: r.Reauth, fakeHash: wantFake(env.Config(), r.Peer), candidates: []*ike.Peer{r.Peer}, aggressive: r.Peer.Aggressive}
	s.setup.nonceI = newNonce()
	s.first = &exchange{kind: wire.ExchangeV1IdentityProtection, began: now}
	if r.Reauth {
		s.setup.child = nil // the IPsec SAs pass to the new ISAKMP SA as they are
	}
	s.withMethods(now, r.Peer, func(now time.Time, auths []wire.V1Auth) { s.begin(now, auths) })
	return s
}

// withMethods finds out by which methods a connection authenticates, as initiator.
func (s *sa) withMethods(now time.Time, p *ike.Peer, then func(time.Time, []wire.V1Auth)) {
	if !signs(p) {
		then(now, methodsOf(p, nil, true))
		return
	}
	s.ask(now, timeoutAsk, ike.SignerKinds{Peer: p, ID: ourID(p, s.local.Addr())}, func(now time.Time, r ike.Result) {
		kinds, _ := r.Value.([]wire.V1Auth)
		then(now, methodsOf(p, kinds, true))
	})
}

// begin sends message 1.
func (s *sa) begin(now time.Time, auths []wire.V1Auth) {
	st := s.setup
	st.offers, st.offered = phase1Offers(s.peer.Proposals, auths, s.phase1Life(s.peer))
	switch {
	case len(auths) == 0 && signs(s.peer):
		s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailNoSignature, Ours: s.ids[0].String(),
			Difference: "no private key with a certificate that IKEv1 can sign with (RSA or ECDSA)"})
		return
	case len(auths) == 0:
		s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailMethod, Difference: "IKEv1 has no such combination of local.auth and remote.auth",
			Options: []string{s.peer.Option("local.auth"), s.peer.Option("remote.auth")}})
		return
	case len(st.offers) == 0:
		s.fail(now, &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailTransform, Ours: proposalText(s.peer.Proposals),
			Difference: "none of the proposals can be said in IKEv1, which wants AES-CBC with SHA-1 or SHA-2", Options: []string{s.peer.Option("proposals")}})
		return
	}
	if st.aggressive {
		s.beginAggressive(now, auths)
		return
	}
	p := s.offerPayload()
	st.saBody = p.Body
	list := append([]wire.V1Payload{p}, s.vendorIDs()...)
	packets, summary := s.clear(s.first, list)
	s.request(now, s.first, packets, summary)
}

// offerPayload is the SA payload of what we offer.
func (s *sa) offerPayload() wire.V1Payload {
	p := wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{{Number: 1, Protocol: wire.ProtocolIKE, Transforms: s.setup.offers}}}
	return p.Payload()
}

// phase1Life is the lifetime that phase 1 offers: until the SA is closed hard.
func (s *sa) phase1Life(p *ike.Peer) time.Duration {
	if t := reauthTime(p); t > 0 {
		return t + p.OverTime
	}
	return 0
}

// accept begins phase 1 as responder, or refuses the first message without keeping
// anything.
func accept(env *ike.Env, now time.Time, d ike.Datagram, h wire.Header) ike.SA {
	s := &sa{env: env, local: d.Local, remote: d.Remote, spiI: h.SPIi}
	take := s.takeFirst
	if h.NextPayload == wire.PayloadV1Fragment {
		take = s.takePieces
	}
	if !take(now, d, h) {
		return nil
	}
	return s
}

// takeFirst takes the first message; false: it is refused.
func (s *sa) takeFirst(now time.Time, d ike.Datagram, h wire.Header) bool {
	env := s.env
	list, _, err := wire.ParseV1Chain(h.NextPayload, d.Data[wire.HeaderLen:])
	in := &inbound{header: h, datagram: d, payloads: list}
	r := rule{need: []wire.PayloadType{wire.PayloadV1SA}}
	if err != nil || r.misses(list) != "" {
		env.Drop(now, ike.DropMalformed, d.Remote)
		return false
	}
	body := slices.Clone(in.get(wire.PayloadV1SA))
	proposals, err := wire.ParseV1SA(body)
	if err != nil || len(proposals.Proposals) == 0 {
		env.Drop(now, ike.DropMalformed, d.Remote)
		return false
	}
	s.phase, s.setup = phaseSAReceived, &setup{saBody: body}
	s.first = &exchange{kind: h.Exchange, began: now}
	peers, passed := ike.MatchPeers(env.Peers(), 1, d.Local.Addr(), d.Remote.Addr())
	aggressive := h.Exchange == wire.ExchangeV1Aggressive
	peers = slices.DeleteFunc(peers, func(p *ike.Peer) bool {
		if p.Aggressive == aggressive || !aggressive {
			return false
		}
		passed = append(passed, ike.Candidate{Name: p.Name, Why: "its aggressive is not yes, and the peer begins aggressive mode"})
		return true
	})
	if len(peers) == 0 {
		env.Drop(now, ike.DropNoConnection, d.Remote)
		s.refuseFirst(now, nil, &ike.Rejection{Reason: ike.ReasonAddress, Theirs: d.Remote.Addr().String(), Ours: d.Local.Addr().String(),
			Difference: "no connection for these addresses", Candidates: passed[:min(len(passed), 16)]})
		return false
	}
	s.setup.candidates, s.setup.passed = peers, passed
	s.readVendorIDs(in)
	s.spiR = env.NewSPI()
	env.Register(s.spiR, s.spiI)
	s.life.setupEnd = now.Add(env.Config().HalfOpenTimeout)
	s.taken(now, d)
	s.received(d, wire.V1Summary(h, list))
	var signing []*ike.Peer
	for _, p := range peers {
		if signs(p) && len(signing) < limitLookups {
			signing = append(signing, p)
		}
	}
	s.kindsOf(now, signing, nil, func(now time.Time, kinds map[*ike.Peer][]wire.V1Auth) {
		s.choosePhase1(now, in, proposals, kinds)
	})
	return s.phase != phaseDead
}

// kindsOf asks for each connection that signs with what it can.
func (s *sa) kindsOf(now time.Time, left []*ike.Peer, kinds map[*ike.Peer][]wire.V1Auth, then func(time.Time, map[*ike.Peer][]wire.V1Auth)) {
	if len(left) == 0 {
		then(now, kinds)
		return
	}
	s.ask(now, timeoutAsk, ike.SignerKinds{Peer: left[0], ID: ourID(left[0], s.local.Addr())}, func(now time.Time, r ike.Result) {
		list, _ := r.Value.([]wire.V1Auth)
		if kinds == nil {
			kinds = map[*ike.Peer][]wire.V1Auth{}
		}
		kinds[left[0]] = list
		s.kindsOf(now, left[1:], kinds, then)
	})
}

// refuseFirst answers a first message by an error that nobody vouches for; nothing is
// kept of it.
func (s *sa) refuseFirst(now time.Time, p *ike.Peer, r *ike.Rejection) {
	r.Notify = wire.V1NoProposalChosen.String()
	h := wire.Header{SPIi: s.spiI, SPIr: s.spiR, Version: wire.IKEv1, Exchange: wire.ExchangeV1Informational, MessageID: 1 + uint32(ike.RandomUint64()>>33)}
	n := wire.V1Notify{Protocol: wire.ProtocolIKE, Type: wire.V1NoProposalChosen}
	s.env.Effect(ike.Send{Datagram: ike.Datagram{Local: s.local, Remote: s.remote, Data: wire.AppendV1Message(nil, h, []wire.V1Payload{n.Payload()})}})
	if s.env.MayReject(now) {
		r.Local, r.Remote = s.local, s.remote
		r.PointTo(p)
		s.env.Emit(r)
	}
}

// choosePhase1 picks a transform and, in main mode, answers by message 2.
func (s *sa) choosePhase1(now time.Time, in *inbound, proposals *wire.V1SA, kinds map[*ike.Peer][]wire.V1Auth) {
	st := s.setup
	var chosen *wire.V1Transform
	var number uint8
	var first error
	var refused *ike.Peer
	var theirs []suite.Proposal
	for _, p := range st.candidates {
		auths := methodsOf(p, kinds[p], false)
		var list []suite.Proposal
		var from []*wire.V1Transform
		var numbers []uint8
		for i := range proposals.Proposals {
			x := &proposals.Proposals[i]
			for j := range x.Transforms {
				if t := &x.Transforms[j]; x.Protocol == wire.ProtocolIKE && len(list) < limitLooked && slices.Contains(auths, authOf(t)) {
					list, from, numbers = append(list, phase1Suite(t)), append(from, t), append(numbers, x.Number)
				}
			}
		}
		sel, i, err := suite.Select(p.Proposals, list, suite.SelectOptions{PreferPeer: p.PreferPeer})
		if err == nil {
			chosen, number, s.selected = from[i], numbers[i], sel
			st.auth = authOf(chosen)
			break
		}
		if first == nil {
			first, refused, theirs = err, p, list
		}
	}
	if chosen == nil {
		r := noProposal(first, refused.Proposals, theirs)
		r.Name = refused.Name
		if len(theirs) == 0 {
			r = &ike.Rejection{SAKey: ike.SAKey{Name: refused.Name}, Reason: ike.ReasonAuthentication, Detail: ike.DetailMethod, Theirs: offeredMethods(proposals),
				Difference: "no connection takes an authentication method that the peer offers"}
		}
		s.refuseFirst(now, refused, r)
		s.phase = phaseDead
		s.env.Closed(now, ike.Closed{Cause: ike.CauseFailed, Rejection: r})
		return
	}
	// Only who takes that transform and method stays.
	one := []suite.Proposal{phase1Suite(chosen)}
	s.keep(func(p *ike.Peer) (ike.Detail, string) {
		if _, _, err := suite.Select(p.Proposals, one, suite.SelectOptions{}); err != nil || !slices.Contains(methodsOf(p, kinds[p], false), st.auth) {
			return ike.DetailTransform, "its proposals or authentication do not contain what was chosen"
		}
		return "", ""
	})
	st.group = s.selected.KE.ID
	st.fakeHash = wantFake(s.config(), st.candidates[0])
	st.life, _ = lifeOf(chosen, wire.V1AttrLifeType, wire.V1AttrLife)
	st.cookies = cookiePair(s.spiI, s.spiR)
	answer := wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{{Number: number, Protocol: wire.ProtocolIKE, Transforms: []wire.V1Transform{*chosen}}}}
	list := append([]wire.V1Payload{answer.Payload()}, s.chosenVendorIDs()...)
	if in.header.Exchange == wire.ExchangeV1Aggressive {
		s.aggressiveRequest(now, in, list)
		return
	}
	packets, summary := s.clear(s.first, list)
	if len(packets[0]) > len(in.datagram.Data) {
		// Nobody has shown that it receives what is sent there: no more than came.
		packets, summary = s.clear(s.first, list[:1])
	}
	s.respond(now, in, packets, summary)
}

// mainChosen takes message 2 and sends message 3.
func (s *sa) mainChosen(now time.Time, in *inbound) {
	st := s.setup
	if in.header.SPIr == 0 {
		s.env.Drop(now, ike.DropMalformed, in.datagram.Remote)
		return
	}
	t, r := s.phase1Answer(in.get(wire.PayloadV1SA))
	if r != nil {
		s.doubt(now, r)
		return
	}
	s.taken(now, in.datagram)
	s.readVendorIDs(in)
	s.readCertReqs(in)
	s.first.out = nil
	s.life.setupEnd, st.refused = time.Time{}, nil
	s.spiR = in.header.SPIr
	s.env.Register(s.spiI, s.spiR)
	st.cookies = cookiePair(s.spiI, s.spiR)
	st.auth = authOf(t)
	st.group = s.selected.KE.ID
	prf, err := suite.NewPRF(s.selected.PRF)
	if err != nil {
		s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: err.Error()})
		return
	}
	compute(s, now, "key exchange "+groupName(st.group), slowGroup(st.group), func() (suite.KeyExchange, error) { return suite.NewKeyExchange(st.group) },
		func(now time.Time, ke suite.KeyExchange, err error) {
			if err != nil {
				s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
				return
			}
			st.ke, st.publicI = ke, ke.Public()
			list := []wire.V1Payload{{Type: wire.PayloadV1KE, Body: st.publicI}, {Type: wire.PayloadV1Nonce, Body: st.nonceI}}
			list = append(list, s.certRequests(false)...)
			list = append(list, s.natPayloads(prf)...)
			s.phase = phaseKESent
			packets, summary := s.clear(s.first, list)
			s.request(now, s.first, packets, summary)
		})
}

// phase1Answer checks the responder's choice against what we offered.
func (s *sa) phase1Answer(body []byte) (*wire.V1Transform, *ike.Rejection) {
	answer, err := wire.ParseV1SA(body)
	if err != nil || len(answer.Proposals) != 1 || len(answer.Proposals[0].Transforms) != 1 || answer.Proposals[0].Protocol != wire.ProtocolIKE {
		return nil, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "the answer does not hold exactly one transform"}
	}
	t := &answer.Proposals[0].Transforms[0]
	chosen := phase1Suite(t)
	sel, err := suite.Accept(s.setup.offered, chosen, suite.SelectOptions{})
	if err != nil {
		return nil, noProposal(err, s.setup.offered, []suite.Proposal{chosen})
	}
	if !slices.ContainsFunc(s.setup.offers, func(o wire.V1Transform) bool { return authOf(&o) == authOf(t) }) {
		return nil, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailMethod, Difference: "the answer's authentication method was not offered", Theirs: authOf(t).String()}
	}
	s.selected = sel
	s.setup.life, _ = lifeOf(t, wire.V1AttrLifeType, wire.V1AttrLife)
	return t, nil
}

// takeKE checks KE and nonce of the peer.
func (s *sa) takeKE(in *inbound) (public, nonce []byte, ok bool) {
	public, nonce = slices.Clone(in.get(wire.PayloadV1KE)), slices.Clone(in.get(wire.PayloadV1Nonce))
	n := suite.PublicLen(s.setup.group)
	return public, nonce, len(nonce) >= minNonce && len(nonce) <= maxNonce && (n == 0 || len(public) == n)
}

// mainKE takes message 3 and answers by message 4.
func (s *sa) mainKE(now time.Time, in *inbound) {
	st := s.setup
	public, nonce, ok := s.takeKE(in)
	prf, err := suite.NewPRF(s.selected.PRF)
	if !ok || err != nil {
		s.env.Drop(now, ike.DropMalformed, in.datagram.Remote)
		return
	}
	s.taken(now, in.datagram)
	st.publicI, st.nonceI, st.nonceR = public, nonce, newNonce()
	s.readVendorIDs(in) // Cisco has some of them here
	s.detectNAT(prf, in)
	s.readCertReqs(in)
	s.respondKE(now, func(now time.Time) {
		list := []wire.V1Payload{{Type: wire.PayloadV1KE, Body: st.publicR}, {Type: wire.PayloadV1Nonce, Body: st.nonceR}}
		list = append(list, s.certRequests(false)...)
		list = append(list, s.natPayloads(prf)...)
		s.phase = phaseKEReceived
		packets, summary := s.clear(s.first, list)
		s.respond(now, in, packets, summary)
	})
}

// respondKE computes g^xr and g^xy and the keys of each shared key that it may be.
func (s *sa) respondKE(now time.Time, then func(time.Time)) {
	st := s.setup
	type made struct {
		public []byte
		shared suite.Key
	}
	compute(s, now, "key exchange "+groupName(st.group), slowGroup(st.group), func() (made, error) {
		p, k, err := suite.RespondKeyExchange(st.group, st.publicI)
		return made{p, k}, err
	}, func(now time.Time, m made, err error) {
		if err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "key exchange: " + err.Error()})
			return
		}
		st.publicR, st.shared = m.public, m.shared
		s.tieBreak = lower(st.nonceI, st.nonceR)
		s.makeKeyring(now, func(now time.Time, r *ike.Rejection) {
			if r != nil {
				s.fail(now, r)
				return
			}
			then(now)
		})
	})
}

func lower(a, b []byte) []byte {
	if slices.Compare(a, b) < 0 {
		return slices.Clone(a)
	}
	return slices.Clone(b)
}

// mainKEAnswer takes message 4 and sends message 5.
func (s *sa) mainKEAnswer(now time.Time, in *inbound) {
	st := s.setup
	public, nonce, ok := s.takeKE(in)
	prf, err := suite.NewPRF(s.selected.PRF)
	if !ok || err != nil {
		s.doubt(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "KE or nonce of the answer has a wrong length"})
		return
	}
	s.taken(now, in.datagram)
	s.readVendorIDs(in)
	out := s.first.out
	s.first.out = nil
	compute(s, now, "shared secret "+groupName(st.group), slowGroup(st.group), func() (suite.Key, error) { return st.ke.Shared(public) },
		func(now time.Time, shared suite.Key, err error) {
			if err != nil {
				s.first.out = out // what was wrong with it may be that it was forged
				s.doubt(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "key exchange: " + err.Error()})
				return
			}
			st.publicR, st.nonceR, st.shared = public, nonce, shared
			s.tieBreak = lower(st.nonceI, st.nonceR)
			s.life.setupEnd, st.refused = time.Time{}, nil
			s.detectNAT(prf, in)
			s.readCertReqs(in)
			s.makeKeyring(now, func(now time.Time, r *ike.Rejection) {
				if r != nil {
					s.fail(now, r)
					return
				}
				s.keys = st.keyring[0]
				s.floatPorts()
				s.sendAuth(now)
			})
		})
}

// sendAuth sends message 5: our identity and proof.
func (s *sa) sendAuth(now time.Time) {
	s.prove(now, s.peer, func(now time.Time, list []wire.V1Payload, r *ike.Rejection) {
		if r != nil {
			s.fail(now, r)
			return
		}
		if s.announcesContact() {
			c := s.setup.cookies
			list = append(list, wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: c[:], Type: wire.V1InitialContact}.Payload())
		}
		s.phase = phaseAuthSent
		s.first.iv = s.keys.iv
		packets, summary := s.sealed(s.first, list)
		s.keys.iv = s.first.iv
		s.request(now, s.first, packets, summary)
	})
}

// announcesContact reports whether INITIAL-CONTACT is said (RFC 2407 §4.6.3.3).
func (s *sa) announcesContact() bool {
	return !s.setup.reauth && s.peer.Unique != ike.UniqueNever && !s.env.HasContact(s.ids[0], s.ids[1], s.remote.Addr())
}

// mainAuth takes message 5 and answers by message 6.
func (s *sa) mainAuth(now time.Time, in *inbound) {
	st := s.setup
	for _, k := range st.keyring {
		if !s.readEncrypted(k, in, wire.PayloadV1ID) {
			continue
		}
		if shared(st.auth) {
			id := in.get(wire.PayloadV1ID)
			if !equal(in.get(wire.PayloadV1Hash), phase1Hash(k.prf, k.skeyid, &st.exchanged, st.saBody, id, true)) {
				continue
			}
		}
		s.keys = k
		k.iv = in.iv
		s.taken(now, in.datagram)
		s.received(in.datagram, wire.V1Summary(in.header, in.payloads))
		s.mainProved(now, in)
		return
	}
	s.unreadable(now, in)
}

// unreadable tells the peer, once, that its proof can't be read: of shared keys that
// means that they differ. The half-open SA stays: what came may have been forged.
func (s *sa) unreadable(now time.Time, in *inbound) {
	s.env.Drop(now, ike.DropIntegrity, in.datagram.Remote)
	if s.setup.told {
		return
	}
	s.setup.told = true
	h := wire.Header{SPIi: s.spiI, SPIr: s.spiR, Version: wire.IKEv1, Exchange: wire.ExchangeV1Informational, MessageID: 1 + uint32(ike.RandomUint64()>>33)}
	c := s.setup.cookies
	list := []wire.V1Payload{wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: c[:], Type: wire.V1AuthenticationFailed}.Payload()}
	s.sendAll(now, ike.Datagram{Local: in.datagram.Local, Remote: in.datagram.Remote}, [][]byte{wire.AppendV1Message(nil, h, list)}, wire.V1Summary(h, list), 0)
	if s.env.MayReject(now) {
		if len(s.setup.candidates) == 1 {
			s.peer = s.setup.candidates[0]
		}
		s.reject(&ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailPSK, Notify: wire.V1AuthenticationFailed.String(),
			Difference: "the peer's proof can't be decrypted: the shared keys differ, or the peer looked up another one"})
	}
}

// mainProved checks message 5 and answers.
func (s *sa) mainProved(now time.Time, in *inbound) {
	s.readCertReqs(in) // strongSwan has them here
	s.verify(now, in, func(now time.Time, r *ike.Rejection) {
		if r != nil {
			s.refuseProof(now, r)
			return
		}
		s.local, s.remote = in.datagram.Local, in.datagram.Remote // the float to port 4500
		contact := in.notify(wire.V1InitialContact) != nil
		if r := s.checkUnique(); r != nil {
			s.refuseProof(now, r)
			return
		}
		s.prove(now, s.peer, func(now time.Time, list []wire.V1Payload, r *ike.Rejection) {
			if r != nil {
				s.refuseProof(now, r)
				return
			}
			s.first.iv = s.keys.iv
			packets, summary := s.sealed(s.first, list)
			s.keys.iv = s.first.iv
			s.respond(now, in, packets, summary)
			s.proved(now, contact)
		})
	})
}

// refuseProof tells the peer that it is not believed, and ends the SA.
func (s *sa) refuseProof(now time.Time, r *ike.Rejection) {
	r.Notify = wire.V1AuthenticationFailed.String()
	if s.keys != nil {
		c := s.setup.cookies
		s.inform(now, wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: c[:], Type: wire.V1AuthenticationFailed}.Payload())
		if s.initiator { // the responder is done and holds it for established
			s.inform(now, wire.V1Delete{Protocol: wire.ProtocolIKE, SPIs: [][]byte{c[:]}}.Payload())
		}
	}
	s.fail(now, r)
}

// mainAuthAnswer takes message 6: phase 1 is done.
func (s *sa) mainAuthAnswer(now time.Time, in *inbound) {
	if !s.readEncrypted(s.keys, in, wire.PayloadV1ID) {
		s.env.Drop(now, ike.DropIntegrity, in.datagram.Remote)
		return
	}
	if shared(s.setup.auth) && !equal(in.get(wire.PayloadV1Hash), phase1Hash(s.keys.prf, s.keys.skeyid, &s.setup.exchanged, s.setup.saBody, in.get(wire.PayloadV1ID), false)) {
		s.env.Drop(now, ike.DropIntegrity, in.datagram.Remote)
		return
	}
	s.taken(now, in.datagram)
	s.received(in.datagram, wire.V1Summary(in.header, in.payloads))
	s.first.out = nil
	s.keys.iv = in.iv
	s.verify(now, in, func(now time.Time, r *ike.Rejection) {
		if r != nil {
			s.refuseProof(now, r)
			return
		}
		s.proved(now, false)
	})
}

// doubt takes note of a message that refuses or makes no sense. Nobody vouches for it:
// what was sent stays in flight for a while, and the first such message is what the
// attempt failed of if nothing better comes.
func (s *sa) doubt(now time.Time, r *ike.Rejection) {
	if s.setup.refused == nil {
		s.setup.refused = r
	}
	if at := now.Add(refusalGrace); s.initiator && (s.life.setupEnd.IsZero() || at.Before(s.life.setupEnd)) {
		s.life.setupEnd = at
	}
}
