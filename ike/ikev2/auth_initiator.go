package ikev2

import (
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// beginAuth sends the first IKE_AUTH request, with our first round in it (RFC 7296 §1.2).
func (s *sa) beginAuth(now time.Time) {
	st := s.state.(*authSent)
	if s.peer.Local[0].Method == ike.AuthEAP && s.peerCaps.ppk {
		s.sendRound(now, st) // the PPK goes with AUTH, after EAP (RFC 8784 §3)
		return
	}
	s.offerPPK(now, st, func(now time.Time) { s.sendRound(now, st) })
}

// sendRound begins our next round: IDi, and CERT and AUTH unless it is of EAP.
func (s *sa) sendRound(now time.Time, st *authSent) {
	a := &st.authentication
	round := &s.peer.Local[a.ours]
	s.ids[0] = roundID(s.peer, a.ours, s.local.Addr())
	idi := idPayload(wire.PayloadIDi, s.ids[0])
	a.ourID = idi
	switch round.Method {
	case ike.AuthEAP:
		a.eap = newConversation(s.env, s.peer, a.ours, false)
		s.sendAuth(now, st, nil, nil)
	case ike.AuthPSK:
		theirs := s.peer.Remote[min(len(a.theirs), len(s.peer.Remote)-1)].ID
		if a.peerID != nil {
			theirs = identity(a.peerID)
		}
		s.askPSK(now, a, s.ids[0], theirs, s.peer, func(now time.Time) {
			if len(a.psks.list) == 0 {
				s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailNoPSK, Ours: s.ids[0].String(), Theirs: theirs.String(),
					Difference: "no shared key for these identities"})
				return
			}
			octets := a.covered(true)
			if s.secondAuth(st) {
				st.second = &wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.plain(st.ppk).pskAuth(a.psks.list[0], octets, idi, true)}
			}
			s.sendAuth(now, st, nil, &wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.pskAuth(a.psks.list[0], octets, idi, true)})
		})
	default:
		send := func(now time.Time, certs []wire.Payload, auth *wire.Auth, r *ike.Rejection) {
			if r != nil {
				r.Notify = ""
				s.localAuthFailed(now, st, r)
				return
			}
			s.sendAuth(now, st, certs, auth)
		}
		if !s.secondAuth(st) {
			s.sign(now, a, s.peer, idi, s.keys, send)
			return
		}
		s.sign(now, a, s.peer, idi, s.keys.plain(st.ppk), func(now time.Time, _ []wire.Payload, auth *wire.Auth, r *ike.Rejection) {
			if r != nil {
				send(now, nil, nil, r)
				return
			}
			st.second = auth
			s.sign(now, a, s.peer, idi, s.keys, send)
		})
	}
}

// secondAuth reports whether our AUTH goes out a second time, without the PPK.
func (s *sa) secondAuth(st *authSent) bool { return st.ppk != nil && !s.peer.PPKRequired }

// localAuthFailed ends a set-up in which we cannot prove ourselves. A responder
// that waits for more is told.
func (s *sa) localAuthFailed(now time.Time, st *authSent, r *ike.Rejection) {
	if st.exchanges == 0 {
		s.fail(now, r)
		return
	}
	s.abortAuth(now, r)
}

// sendAuth sends the request of a round. The first one carries everything else of
// the set-up, in the order of RFC 7296 appendix C.2.
func (s *sa) sendAuth(now time.Time, st *authSent, certs []wire.Payload, auth *wire.Auth) {
	a := &st.authentication
	first := a.exchanges == 0
	list := append([]wire.Payload{a.ourID}, certs...)
	want := s.peer.Remote[min(len(a.theirs), len(s.peer.Remote)-1)].ID
	if first {
		if !st.reauth && s.peer.Unique != ike.UniqueNever && !s.env.HasContact(s.ids[0], want, s.remote.Addr()) {
			list = append(list, notify(wire.InitialContact, nil))
		}
		list = append(list, certRequests(s.env, []*ike.Peer{s.peer})...)
	}
	if !want.IsPattern() && a.expects {
		list = append(list, idPayload(wire.PayloadIDr, want))
	}
	if auth != nil {
		list = append(list, auth)
		st.unanswered = true
		if st.ppk != nil {
			list = append(list, ppkNotifies(s.peer, st.second)...)
			st.second = nil
		}
		if a.ours+1 < len(s.peer.Local) && a.multiple {
			list = append(list, notify(wire.AnotherAuthFollows, nil))
		}
	}
	if first {
		list = append(list, s.firstRequest(now, st)...)
	}
	s.win.sendID = max(s.win.sendID, 1)
	a.exchanges++
	s.request(now, wire.ExchangeIKEAuth, list)
}

// firstRequest is what the first request carries besides authentication.
func (s *sa) firstRequest(now time.Time, st *authSent) (list []wire.Payload) {
	list = append(list, s.crashNotify()...) // before CP (RFC 6290 §4.2)
	list = append(list, s.cpRequest()...)
	child, req := s.firstChild(st)
	if child != nil {
		st.offer = s.offer(now, child, req.Acquired, false, false, nil)
		list = append(list, st.offer.payloads()...)
	}
	if st.multiple {
		list = append(list, notify(wire.MultipleAuthSupported, nil))
	}
	if st.announced.methods != nil {
		list = append(list, methodsNotify([]*ike.Peer{s.peer}, st.announced.hashes != nil)...)
	}
	list = append(list, s.offerMobike()...)
	if s.asksTicket() {
		list = append(list, notify(wire.TicketRequest, nil))
	}
	if eapOnly(s.peer) {
		list = append(list, notify(wire.EAPOnlyAuthentication, nil))
	}
	return list
}

// firstChild is the Child SA that IKE_AUTH asks for. A peer that does not know
// RFC 6023 needs one even if none is wanted; with one that does, `childless` may
// put it off until the IKE SA is up.
func (s *sa) firstChild(st *authSent) (*ike.Child, *ike.ChildRequest) {
	if s.peerCaps.childless && (s.peer.Childless == ike.ChildlessPrefer || s.peer.Childless == ike.ChildlessForce) {
		return nil, nil
	}
	if st.child != nil {
		return st.child.Child, st.child
	}
	if !s.peerCaps.childless || s.peer.Childless == ike.ChildlessNever {
		for _, c := range s.peer.Children {
			if c.Action == ipsec.Protect {
				return c, &ike.ChildRequest{Child: c}
			}
		}
	}
	return nil, nil
}

// fatal is the error notify of an answer that ends the set-up. Those that only
// refuse the Child SA or addresses come with the AUTH that ends it well.
func fatal(payloads []wire.Payload) *wire.Notify {
	for _, p := range payloads {
		n, ok := p.(*wire.Notify)
		if !ok || !n.NotifyType.IsError() {
			continue
		}
		switch n.NotifyType {
		case wire.NoProposalChosen, wire.SinglePairRequired, wire.NoAdditionalSAs, wire.InternalAddressFailure, wire.FailedCPRequired, wire.TSUnacceptable, wire.InvalidSelectors, wire.TemporaryFailure:
		default:
			return n
		}
	}
	return nil
}

// authResponse takes the responder's IKE_AUTH: first its own round, then what it
// says to ours.
func (s *sa) authResponse(now time.Time, in *inbound) {
	st := s.state.(*authSent)
	a := &st.authentication
	a.announced.read(in.payloads, !s.config().NoSignatureAuth)
	if s.resumed != nil {
		s.resumedResponse(now, st, in)
		return
	}
	idr := wire.FindID(in.payloads, wire.PayloadIDr)
	auth, _ := wire.First[*wire.Auth](in.payloads)
	eap, _ := wire.First[*wire.EAP](in.payloads)
	n := fatal(in.payloads)
	if n == nil && len(a.theirs) == 0 && (idr == nil || auth == nil && eap == nil) && (a.eap == nil || !a.eap.only) {
		// It has not even begun to prove itself.
		if n = errorNotify(in.payloads); n == nil {
			n = notify(wire.InvalidSyntax, nil)
		}
	}
	if n != nil {
		s.refusedByPeer(now, n)
		return
	}
	if a.exchanges > limitAuthExchanges {
		s.abortAuth(now, s.authFailed(a, "too many exchanges without an end"))
		return
	}
	if r := s.ppkAnswered(in, st); r != nil {
		s.abortAuth(now, r)
		return
	}
	if idr == nil || !a.expects {
		s.ownProgress(now, st, in, auth, eap)
		return
	}
	if r := s.fitsRemote(a, idr); r != nil {
		s.abortAuth(now, r)
		return
	}
	a.peerID = idr
	s.ids[1] = identity(idr)
	switch {
	case auth != nil:
		s.verify(now, a, in.payloads, auth, func(now time.Time, v *verified, r *ike.Rejection) {
			if r != nil {
				s.abortAuth(now, r)
				return
			}
			a.theirs = append(a.theirs, *v)
			a.expects = wire.FindNotify(in.payloads, wire.AnotherAuthFollows) != nil
			if a.keepRounds(); a.best() == nil {
				r := a.noCandidate(ike.ReasonAuthentication, "the peer has proved its identity, but not as the connection demands")
				r.Notify, r.Theirs = wire.AuthenticationFailed.String(), idText(a.peerID)
				s.abortAuth(now, r)
				return
			}
			s.ownProgress(now, st, in, nil, eap) // this AUTH is used up
		})
	case a.eap != nil && !a.eap.begun && eapOnly(s.peer) && len(a.theirs) == 0:
		a.eap.only, a.expects = true, false
		s.ownProgress(now, st, in, nil, eap)
	default:
		s.abortAuth(now, s.authFailed(a, "the peer does not prove who it is"))
	}
}

// refusedByPeer ends a set-up that the responder refuses.
func (s *sa) refusedByPeer(now time.Time, n *wire.Notify) {
	r := peerRefused(n, s.ids[0].String(), "")
	if n.NotifyType == wire.AuthenticationFailed {
		r.Theirs, r.Hint = s.peer.Remote[0].ID.String(), "the peer's log tells why: a key, a certificate or an identity differs, or its unique policy keeps another IKE SA"
	}
	s.fail(now, r)
}

// roundOption is the path of an option of the peer's round k.
func (s *sa) roundOption(k int, option string) string {
	name := s.peer.Remote[k].Name
	if name == "" {
		name = "remote"
	}
	return "connections." + s.peer.Name + "." + name + "." + option
}

// fitsRemote checks the responder's identity against the round that is due.
func (s *sa) fitsRemote(a *authentication, idr *wire.ID) *ike.Rejection {
	k := len(a.theirs)
	if k >= len(s.peer.Remote) {
		return s.authFailed(a, "the peer begins another round of authentication than the connection has")
	}
	remote, want := identity(idr), s.peer.Remote[k].ID
	if len(idr.Data) <= limitIdentity && remote.Match(want) != ike.MatchNone {
		return nil
	}
	return &ike.Rejection{Reason: ike.ReasonIdentity, Detail: ike.DetailRemoteID, Ours: want.String(), Theirs: idText(idr), Notify: wire.AuthenticationFailed.String(),
		Difference: "the peer's identity is not the configured one", Options: []string{s.roundOption(k, "id")}}
}

// ownProgress goes on with our own rounds after the responder's was looked at.
// auth is an AUTH payload that was not used yet: only EAP has one for it.
func (s *sa) ownProgress(now time.Time, st *authSent, in *inbound, auth *wire.Auth, eap *wire.EAP) {
	a := &st.authentication
	// Only in the first answer or the last one (RFC 5685 §6).
	if a.exchanges == 1 && !a.expects && len(a.theirs) > 0 && s.redirectedAuth(now, in) {
		return
	}
	if a.eap != nil {
		s.eapProgress(now, st, in, auth, eap)
		return
	}
	if eap != nil || auth != nil {
		s.abortAuth(now, s.authFailed(a, "an EAP or AUTH payload where none is due"))
		return
	}
	if st.unanswered {
		st.unanswered = false
		a.ours++
	}
	switch {
	case a.ours < len(s.peer.Local) && (a.ours == 0 || a.multiple):
		s.sendRound(now, st)
	case a.expects: // the peer has another round for us
		s.continueAuth(now, st, nil)
	default:
		s.completeAuth(now, st, in)
	}
}

// completeAuth ends the authentication as initiator, if all is proved.
func (s *sa) completeAuth(now time.Time, st *authSent, in *inbound) {
	p := st.proof()
	if p == nil {
		s.abortAuth(now, s.authFailed(&st.authentication, "the peer did not prove all that the connection demands"))
		return
	}
	if s.redirectedAuth(now, in) {
		return
	}
	s.takeLifetime(in.payloads)
	s.takeCrashToken(in.payloads)
	s.acceptMobike(in.payloads, true)
	s.takeTicket(now, in.payloads, p.rounds)
	s.cpTake(now, in.payloads, func(now time.Time) { s.authenticated(now, st, in, p) })
}

// abortAuth refuses a responder that has not proved who it is. It may hold the
// IKE SA as established, so it is told (RFC 7296 §2.21.2: an INFORMATIONAL
// request with AUTHENTICATION_FAILED), once and without waiting.
func (s *sa) abortAuth(now time.Time, r *ike.Rejection) {
	h := s.header(wire.ExchangeInformational, s.win.sendID, false)
	list := []wire.Payload{notify(wire.AuthenticationFailed, nil)}
	s.win.sendID++
	s.send(now, s.local2remote(s.keys.seal(h, list)), summary(h, list), 0)
	s.fail(now, r)
}

// authenticated goes on with the Child SA after the responder has proved itself.
func (s *sa) authenticated(now time.Time, st *authSent, in *inbound, p *proof) {
	offer, req := st.offer, st.child
	ni, nr := st.ni, st.nr
	fail := func(now time.Time, r *ike.Rejection) {
		if req != nil {
			s.env.ChildDone(now, req, r)
		}
	}
	if offer == nil {
		s.up(now, p, false)
		if req != nil {
			s.enqueue(&createChild{cfg: req.Child, req: req}) // RFC 6023
		}
		return
	}
	if saP, _ := wire.First[*wire.SA](in.payloads); saP == nil {
		// The IKE SA is up, the Child SA is refused.
		n := errorNotify(in.payloads)
		if n == nil {
			n = notify(wire.NoProposalChosen, nil)
		}
		c := offer.c
		s.forgetChild(c)
		s.up(now, p, false)
		if n.NotifyType == wire.SinglePairRequired && !offer.single {
			s.enqueue(&createChild{cfg: c.cfg, req: req, single: true})
			return
		}
		if s.askForPairs(offer, n, req, nil) {
			return
		}
		r := s.childRefused(c.cfg, offer, n)
		fail(now, r)
		s.firstChildFailed(now, r)
		return
	}
	if r := s.accepted(offer, in.payloads, true); r != nil {
		// The peer has it installed: it is deleted there.
		spi := offer.c.spiIn
		s.forgetChild(offer.c)
		s.up(now, p, false)
		s.enqueue(&deleteOrphan{spi: spi})
		fail(now, s.reject(r))
		s.firstChildFailed(now, r)
		return
	}
	s.installChild(now, offer.c, true, secrets{}, ni, nr, false, func(now time.Time, r *ike.Rejection) {
		spi := offer.c.spiIn
		if r == nil {
			s.activate(offer.c) // the host is ready for the answers to what waits
		}
		s.up(now, p, false)
		if r != nil {
			s.enqueue(&deleteOrphan{spi: spi})
			fail(now, r)
			s.firstChildFailed(now, r)
			return
		}
		s.announce(now, offer.c)
		if req != nil {
			s.env.ChildDone(now, req, nil)
		}
		s.askForRest(now, offer, req)
	})
}

// childRefused is the record of a Child SA that the peer refused.
func (s *sa) childRefused(cfg *ike.Child, o *childOffer, n *wire.Notify) *ike.Rejection {
	ours := ""
	switch n.NotifyType {
	case wire.TSUnacceptable:
		ours = selectorText(o.local, o.remote)
	case wire.NoProposalChosen:
		ours = proposalText(o.proposals)
	}
	r := peerRefused(n, ours, "")
	r.Child = cfg.Name
	r.Options = s.rekeyOptions(cfg.Name, microsoftCode(n))
	if n.NotifyType == wire.NoProposalChosen && o.group != suite.KENone {
		// Peer quirk (Azure, macOS): the Child SA of IKE_AUTH came up with the same
		// algorithms; what its rekey has besides is the key exchange.
		for _, c := range s.children {
			if c.cfg.Name == cfg.Name && c.state == childInstalled && !c.suite.KEPresent {
				r.Detail, r.Hint = ike.DetailGroup, "the first Child SA needs no key exchange, this one asked for "+suite.Transform{Type: suite.TypeKE, ID: o.group}.String()+
					": the peer may have PFS off; -none behind the group makes it optional"
			}
		}
	}
	return s.reject(r)
}
