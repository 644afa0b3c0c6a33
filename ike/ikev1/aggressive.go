package ikev1

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Aggressive mode: phase 1 in three messages (RFC 2409 §5.1, §5.4). Identities go in
// the clear, and with a shared key message 2 is all that somebody needs who guesses it;
// so a responder does that only where strongSwan's own switch is set.

// beginAggressive makes message 1. There is one KE payload, so that one group is offered.
func (s *sa) beginAggressive(now time.Time, auths []wire.V1Auth) {
	st := s.setup
	s.phase, s.first.kind = phaseAggrSent, wire.ExchangeV1Aggressive
	group := suite.KENone
	for _, p := range s.peer.Proposals {
		if t, ok := p.First(suite.TypeKE); ok && group == suite.KENone {
			if o, _ := phase1Offers([]suite.Proposal{p}, auths, 0); len(o) > 0 {
				group = t.ID
			}
		}
	}
	var fits []wire.V1Transform
	var offered []suite.Proposal
	for i := range st.offers {
		if g, _ := st.offers[i].Attribute(wire.V1AttrGroup); suite.TransformID(g) == group {
			t := st.offers[i]
			t.Number = uint8(len(fits) + 1)
			fits, offered = append(fits, t), append(offered, st.offered[i])
		}
	}
	st.offers, st.offered, st.group = fits, offered, group
	compute(s, now, "key exchange "+groupName(group), slowGroup(group), func() (suite.KeyExchange, error) { return suite.NewKeyExchange(group) },
		func(now time.Time, ke suite.KeyExchange, err error) {
			if err != nil {
				s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
				return
			}
			st.ke, st.publicI = ke, ke.Public()
			p := s.offerPayload()
			st.saBody = p.Body
			list := []wire.V1Payload{p, {Type: wire.PayloadV1KE, Body: st.publicI}, {Type: wire.PayloadV1Nonce, Body: st.nonceI}, {Type: wire.PayloadV1ID, Body: identityBody(s.ids[0])}}
			list = append(list, s.certRequests(false)...)
			list = append(list, s.vendorIDs()...)
			packets, summary := s.clear(s.first, list)
			s.request(now, s.first, packets, summary)
		})
}

// aggressiveRequest takes what message 1 has beside its proposals and answers by
// message 2. list is the SA payload of the answer and vendor IDs.
func (s *sa) aggressiveRequest(now time.Time, in *inbound, list []wire.V1Payload) {
	st := s.setup
	r := rule{need: []wire.PayloadType{wire.PayloadV1KE, wire.PayloadV1Nonce, wire.PayloadV1ID}}
	public, nonce, ok := s.takeKE(in)
	id, known := identity(in.get(wire.PayloadV1ID))
	switch {
	case r.misses(in.payloads) != "" || !ok || !known:
		s.endRefused(now, nil, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "KE, nonce or ID of aggressive mode is missing or of a wrong length (its group is that of the first transform)"})
		return
	case shared(st.auth) && !s.config().AggressivePSK:
		s.endRefused(now, st.candidates[0], &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailMethod,
			Difference: "aggressive mode with a shared key is answered only with i_dont_care_about_security_and_use_aggressive_mode_psk = yes in strongswan.conf",
			Options:    []string{"charon.i_dont_care_about_security_and_use_aggressive_mode_psk"}})
		return
	}
	if r := s.selectByID(id); r != nil {
		s.endRefused(now, nil, r)
		return
	}
	s.phase = phaseAggrReceived
	st.publicI, st.nonceI, st.nonceR = public, nonce, newNonce()
	st.peerID, st.peerIDBody = &id, slices.Clone(in.get(wire.PayloadV1ID))
	st.candidates = st.candidates[:1] // its shared key and its certificates are what we answer with
	s.readCertReqs(in)
	s.respondKE(now, func(now time.Time) {
		s.keys = st.keyring[0]
		prf := s.keys.prf
		s.prove(now, st.candidates[0], func(now time.Time, proof []wire.V1Payload, r *ike.Rejection) {
			if r != nil {
				s.fail(now, r)
				return
			}
			out := append([]wire.V1Payload{list[0], {Type: wire.PayloadV1KE, Body: st.publicR}, {Type: wire.PayloadV1Nonce, Body: st.nonceR}}, proof...)
			out = append(out, s.certRequests(true)...)
			out = append(out, list[1:]...)
			out = append(out, s.natPayloads(prf)...)
			s.first.iv = s.keys.iv
			packets, summary := s.clear(s.first, out)
			s.respond(now, in, packets, summary)
		})
	})
}

// endRefused refuses a first message whose SA was begun already.
func (s *sa) endRefused(now time.Time, p *ike.Peer, r *ike.Rejection) {
	s.refuseFirst(now, p, r)
	s.end(now, ike.Closed{Cause: ike.CauseFailed, Rejection: r})
}

// aggressiveAnswer takes message 2, checks the responder's proof and sends ours.
func (s *sa) aggressiveAnswer(now time.Time, in *inbound) {
	st := s.setup
	t, r := s.phase1Answer(in.get(wire.PayloadV1SA))
	if r != nil || in.header.SPIr == 0 {
		if r == nil {
			r = &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "the answer has no cookie"}
		}
		s.doubt(now, r)
		return
	}
	public, nonce, ok := s.takeKE(in)
	id, known := identity(in.get(wire.PayloadV1ID))
	if !ok || !known {
		s.doubt(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "KE, nonce or ID of the answer has a wrong length"})
		return
	}
	s.taken(now, in.datagram)
	s.readVendorIDs(in)
	s.readCertReqs(in)
	out := s.first.out
	s.first.out = nil
	spiR := in.header.SPIr
	st.cookies, st.auth = cookiePair(s.spiI, spiR), authOf(t)
	undo := func(now time.Time, r *ike.Rejection) {
		s.first.out = out // what was wrong with it may be that it was forged
		s.doubt(now, r)
	}
	compute(s, now, "shared secret "+groupName(st.group), slowGroup(st.group), func() (suite.Key, error) { return st.ke.Shared(public) },
		func(now time.Time, shared suite.Key, err error) {
			if err != nil {
				undo(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "key exchange: " + err.Error()})
				return
			}
			st.publicR, st.nonceR, st.shared, st.peerID = public, nonce, shared, &id
			s.tieBreak = lower(st.nonceI, st.nonceR)
			s.makeKeyring(now, func(now time.Time, r *ike.Rejection) {
				if r != nil {
					s.fail(now, r)
					return
				}
				s.aggressiveKeys(now, in, spiR)
			})
		})
}

// aggressiveKeys goes on with message 2 once the keys are there.
func (s *sa) aggressiveKeys(now time.Time, in *inbound, spiR uint64) {
	st := s.setup
	body := in.get(wire.PayloadV1ID)
	for _, k := range st.keyring {
		if s.keys == nil || equal(in.get(wire.PayloadV1Hash), phase1Hash(k.prf, k.skeyid, &st.exchanged, st.saBody, body, false)) {
			s.keys = k
		}
	}
	if shared(st.auth) && !equal(in.get(wire.PayloadV1Hash), phase1Hash(s.keys.prf, s.keys.skeyid, &st.exchanged, st.saBody, body, false)) {
		// The secret of the exchange is used up: the attempt ends.
		s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailPSK, Ours: s.ids[0].String(), Theirs: shortText(st.peerID.String()),
			Difference: "the responder's hash is wrong: the shared keys differ"})
		return
	}
	s.spiR = spiR
	s.env.Register(s.spiI, s.spiR)
	s.life.setupEnd, st.refused = time.Time{}, nil
	s.detectNAT(s.keys.prf, in)
	s.verify(now, in, func(now time.Time, r *ike.Rejection) {
		if r != nil {
			s.fail(now, r)
			return
		}
		s.floatPorts()
		s.prove(now, s.peer, func(now time.Time, list []wire.V1Payload, r *ike.Rejection) {
			if r != nil {
				s.fail(now, r)
				return
			}
			list = append(list[1:], s.natPayloads(s.keys.prf)...) // the identity has been said
			if s.announcesContact() {
				list = append(list, wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: st.cookies[:], Type: wire.V1InitialContact}.Payload())
			}
			s.first.iv = s.keys.iv
			packets, summary := s.sealed(s.first, list)
			s.keys.iv = s.first.iv
			s.respond(now, &inbound{header: in.header, datagram: ike.Datagram{Local: s.local, Remote: s.remote, Data: in.datagram.Data}}, packets, summary)
			wait, _ := s.config().Retransmit.Wait(0)
			s.unheard = &exchange{kind: wire.ExchangeV1Aggressive, out: &outstanding{packets: packets, summary: summary, sent: 1, next: now.Add(wait)}}
			s.proved(now, false)
		})
	})
}

// aggressiveAuth takes message 3, the initiator's proof.
func (s *sa) aggressiveAuth(now time.Time, in *inbound) {
	st := s.setup
	proof := wire.PayloadV1Hash
	if signedBy(st.auth, true) {
		proof = wire.PayloadV1Signature
	}
	if s.keys == nil || in.encrypted && !s.readEncrypted(s.keys, in, proof) || !in.encrypted && in.get(proof) == nil {
		s.unreadable(now, in)
		return
	}
	k := s.keys
	if shared(st.auth) && !equal(in.get(wire.PayloadV1Hash), phase1Hash(k.prf, k.skeyid, &st.exchanged, st.saBody, st.peerIDBody, true)) {
		s.unreadable(now, in)
		return
	}
	if in.encrypted {
		k.iv = in.iv
		s.received(in.datagram, wire.V1Summary(in.header, in.payloads))
	}
	s.taken(now, in.datagram)
	s.detectNAT(k.prf, in)
	s.verify(now, in, func(now time.Time, r *ike.Rejection) {
		if r == nil {
			r = s.checkUnique()
		}
		if r != nil {
			s.refuseProof(now, r)
			return
		}
		s.local, s.remote = in.datagram.Local, in.datagram.Remote
		s.proved(now, in.notify(wire.V1InitialContact) != nil)
	})
}
