package ikev2

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// authRequest takes the first IKE_AUTH request: who is it, and how does it prove
// it (RFC 7296 §1.2, §2.15).
func (s *sa) authRequest(now time.Time, in *inbound) {
	before := s.state.(*initReceived)
	if len(before.left) > 0 {
		s.refuseAuth(now, in, &ike.Rejection{Reason: ike.ReasonSyntax, Notify: wire.AuthenticationFailed.String(),
			Difference: "IKE_AUTH before " + before.left[0].Type.String() + " (" + before.left[0].Name() + ")"})
		return
	}
	st := &authReceived{contact: wire.FindNotify(in.payloads, wire.InitialContact) != nil, eapOnly: wire.FindNotify(in.payloads, wire.EAPOnlyAuthentication) != nil}
	st.authentication = authentication{request: before.request, response: before.response, ni: before.ni, nr: before.nr,
		candidates: before.candidates, first: before.candidates, passed: before.passed, expects: true, announced: before.announced,
		multiple: s.multipleAuth(in.payloads), intAuth: before.intAuth(in.header.MessageID), transcript: before.transcript}
	st.from = ike.Datagram{Local: in.datagram.Local, Remote: in.datagram.Remote}
	// What the Child SA is made of comes now and is answered at the end.
	for _, p := range in.payloads {
		switch p.(type) {
		case *wire.SA, *wire.TS, *wire.CP, *wire.Notify:
			st.first = append(st.first, p)
		}
	}
	s.enter(st)
	if s.resumed != nil {
		s.resumeAuthRequest(now, st, in)
		return
	}
	s.authNext(now, in)
}

// authNext takes the next IKE_AUTH request of the set-up, with the PPK that it may name.
func (s *sa) authNext(now time.Time, in *inbound) {
	st := s.state.(*authReceived)
	s.takePPK(now, st, in, func(now time.Time) {
		if a := &st.authentication; a.eap != nil && a.best() == nil {
			r := a.noCandidate(ike.ReasonAuthentication, "no connection goes with the peer's PPK, or with none")
			r.Notify, r.Theirs = wire.AuthenticationFailed.String(), idText(a.peerID)
			s.refuseAuth(now, in, r)
			return
		}
		s.authRound(now, st, in)
	})
}

// authRound goes on with the round that is due.
func (s *sa) authRound(now time.Time, st *authReceived, in *inbound) {
	a := &st.authentication
	a.announced.read(in.payloads, !s.config().NoSignatureAuth)
	s.prolong(now, s.config().HalfOpenTimeout)
	a.wanted = wire.FindID(in.payloads, wire.PayloadIDr)
	a.exchanges++
	switch {
	case a.exchanges > limitAuthExchanges:
		s.refuseAuth(now, in, s.authFailed(a, "too many exchanges without an end"))
	case a.eap != nil && a.eap.proving:
		s.eapProved(now, st, in)
	case a.eap != nil:
		s.eapAnswered(now, st, in)
	case a.expects:
		s.peerRound(now, st, in)
	default:
		s.ownRound(now, st, in, nil)
	}
}

// authFailed is the record of an authentication that ends here.
func (s *sa) authFailed(a *authentication, why string) *ike.Rejection {
	r := &ike.Rejection{Reason: ike.ReasonAuthentication, Notify: wire.AuthenticationFailed.String(), Ours: s.ids[0].String(), Difference: why}
	if a.peerID != nil {
		r.Theirs = idText(a.peerID)
	}
	return r
}

// peerRound begins a round of the initiator.
func (s *sa) peerRound(now time.Time, st *authReceived, in *inbound) {
	a := &st.authentication
	idi := wire.FindID(in.payloads, wire.PayloadIDi)
	if idi == nil {
		s.refuseAuth(now, in, s.authFailed(a, "the request has no IDi"))
		return
	}
	a.peerID = idi
	remote := identity(idi)
	s.ids[1] = remote
	before := a.best()
	if len(a.theirs) == 0 {
		s.selectByIDs(a, remote, a.wanted)
	} else {
		k := len(a.theirs)
		a.keep(func(p *ike.Peer) (ike.Detail, string) {
			if k < len(p.Remote) && remote.Match(p.Remote[k].ID) == ike.MatchNone {
				return ike.DetailRemoteID, "the id " + p.Remote[k].ID.String() + " of its next remote round does not match " + idText(idi)
			}
			return "", ""
		})
	}
	auth, _ := wire.First[*wire.Auth](in.payloads)
	if auth == nil {
		s.eapBegin(now, st, in)
		return
	}
	s.verify(now, a, in.payloads, auth, func(now time.Time, v *verified, r *ike.Rejection) {
		if r != nil {
			s.refuseAuth(now, in, r)
			return
		}
		s.switched(a, before)
		s.peerProved(now, st, in, v, nil)
	})
}

// best is the connection that we go by, nil if none is left.
func (a *authentication) best() *ike.Peer {
	if len(a.candidates) == 0 {
		return nil
	}
	return a.candidates[0]
}

// peerProved takes note of a round that the initiator has passed, then goes on
// with ours. reply is what the answer holds already.
func (s *sa) peerProved(now time.Time, st *authReceived, in *inbound, v *verified, reply []wire.Payload) {
	a := &st.authentication
	before := a.best()
	a.theirs = append(a.theirs, *v)
	a.expects = wire.FindNotify(in.payloads, wire.AnotherAuthFollows) != nil
	a.keepRounds()
	a.keepShown(s)
	if a.best() == nil {
		r := a.noCandidate(ike.ReasonAuthentication, "the peer has proved its identity, but no connection fits all that it showed")
		r.Notify, r.Theirs = wire.AuthenticationFailed.String(), idText(a.peerID)
		s.refuseAuth(now, in, r)
		return
	}
	s.switched(a, before)
	s.peer = a.best()
	if reply != nil { // our AUTH of EAP is in it; a round of our own has to wait
		s.authAnswer(now, st, in, reply)
		return
	}
	s.ownRound(now, st, in, nil)
}

// ownRound puts our next round into the answer, if one is left: IDr, CERT, AUTH.
// tail follows them.
func (s *sa) ownRound(now time.Time, st *authReceived, in *inbound, tail []wire.Payload) {
	a := &st.authentication
	p := a.best()
	s.peer = p
	if a.ours >= len(p.Local) || a.ours > 0 && !a.multiple {
		s.authAnswer(now, st, in, tail)
		return
	}
	round := &p.Local[a.ours]
	ours, score := s.answerID(p, a.ours, a.wanted)
	if score == ike.MatchNone {
		r := s.authFailed(a, "the peer wants "+idText(a.wanted)+", our identity is "+ours.String())
		r.Reason, r.Detail = ike.ReasonIdentity, ike.DetailLocalID
		s.refuseAuth(now, in, r)
		return
	}
	s.ids[0] = ours
	idr := idPayload(wire.PayloadIDr, ours)
	done := func(now time.Time, certs []wire.Payload, auth *wire.Auth) {
		list := append([]wire.Payload{idr}, certs...)
		if auth != nil {
			list = append(list, auth)
		}
		a.ourID = idr
		a.shown = append(a.shown, shown{*round, ours})
		a.ours++
		if a.ours < len(p.Local) && a.multiple {
			list = append(list, notify(wire.AnotherAuthFollows, nil))
		}
		s.authAnswer(now, st, in, append(list, tail...))
	}
	switch round.Method {
	case ike.AuthEAP:
		// Only EAP is to prove us as well (RFC 5998 §3): the initiator must have allowed it.
		if a.eap == nil || !st.eapOnly {
			s.refuseAuth(now, in, s.authFailed(a, "local.auth is EAP, but the peer does not take EAP alone (RFC 5998)"))
			return
		}
		a.eap.only = true
		done(now, nil, nil)
	case ike.AuthPSK:
		s.answerPSK(now, st, in, ours, idr, done)
	default:
		s.sign(now, a, p, idr, s.keys, func(now time.Time, certs []wire.Payload, auth *wire.Auth, r *ike.Rejection) {
			if r != nil {
				s.refuseAuth(now, in, r)
				return
			}
			done(now, certs, auth)
		})
	}
}

// answerPSK proves us by the shared key with which the peer has proved itself, or
// by the best one of these identities.
func (s *sa) answerPSK(now time.Time, st *authReceived, in *inbound, ours ike.Identity, idr *wire.ID, done func(time.Time, []wire.Payload, *wire.Auth)) {
	a := &st.authentication
	s.askPSK(now, a, ours, identity(a.peerID), a.best(), func(now time.Time) {
		key := a.psks.fits
		if key == nil && len(a.psks.list) > 0 {
			key = a.psks.list[0]
		}
		if key == nil {
			r := s.authFailed(a, "no shared key for these identities")
			r.Detail = ike.DetailNoPSK
			s.refuseAuth(now, in, r)
			return
		}
		octets := a.covered(false)
		done(now, nil, &wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.pskAuth(key, octets, idr, false)})
	})
}

// authAnswer sends an answer: in between, or the last one with the Child SA.
func (s *sa) authAnswer(now time.Time, st *authReceived, in *inbound, list []wire.Payload) {
	a := &st.authentication
	if st.ppkTell {
		st.ppkTell = false
		list = append(slices.Clone(list), notify(wire.PPKIdentity, nil))
	}
	if a.expects || a.eap != nil || a.ours < len(a.best().Local) && a.multiple {
		s.respond(now, in, list)
		return
	}
	p := a.proof()
	if p == nil {
		s.refuseAuth(now, in, s.authFailed(a, "the peer did not prove all that its connection demands"))
		return
	}
	if r := s.env.CheckUnique(p.peer, s.ids[0], a.unique()); r != nil {
		r.Notify = wire.AuthenticationFailed.String()
		s.refuseAuth(now, in, r)
		return
	}
	if to := s.awayAfterAuth(p.peer); to.IsSet() {
		s.redirectAuth(now, st, in, p, list, to)
		return
	}
	s.grantAuth(now, st, in, p, list)
}

// grantAuth ends the set-up: addresses for the peer, its first Child SA, the last
// answer (RFC 7296 §1.2).
func (s *sa) grantAuth(now time.Time, st *authReceived, in *inbound, p *proof, list []wire.Payload) {
	ni, nr := st.ni, st.nr
	finish := func(now time.Time, list []wire.Payload, c *child) {
		list = append(list, s.grantMobike(st.first)...)
		s.respond(now, in, slices.Concat(list, s.lifetimeNotify(p), s.giveTicket(now, st.first, p)))
		if c != nil {
			s.activateGranted(now, c) // not before: the peer would not know the SPI of what overtakes the answer
		}
		s.up(now, p, st.contact)
		if c != nil {
			s.announce(now, c)
		}
		s.lateForDrain(now)
	}
	first := st.first
	s.takeCrashToken(first)
	known := s.identify(p)
	if p.peer.MOBIKE && translatedOnTheWay(first, st.from) { // RFC 4555 §3.9
		s.respondNotify(now, in, wire.UnexpectedNATDetected, nil)
		s.fail(now, &ike.Rejection{Reason: ike.ReasonPeer, Notify: wire.UnexpectedNATDetected.String(), Difference: "the peer allows no NAT, but one is on the way"})
		return
	}
	if r := childlessRefused(p.peer, first); r != nil {
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
		s.fail(now, r)
		return
	}
	s.cpGrant(now, first, s.env.Replaces(s.peer, s.ids[0], known, st.contact), func(now time.Time, cp []wire.Payload) {
		list = slices.Concat(list, s.crashNotify(), cp) // the token before CP (RFC 6290 §4.2)
		if saP, _ := wire.First[*wire.SA](first); saP == nil {
			finish(now, list, nil) // RFC 6023
			return
		}
		ch, refused := s.choose(now, first, nil, false)
		if refused != nil {
			// The IKE SA stays up without a Child SA (RFC 7296 §1.2).
			refused.record.Notify = refused.notify.String()
			s.reject(refused.record)
			finish(now, append(list, notify(refused.notify, refused.data)), nil)
			s.firstChildFailed(now, refused.record)
			return
		}
		grant := s.grant(ch)
		s.installChild(now, ch.c, false, secrets{}, ni, nr, false, func(now time.Time, rej *ike.Rejection) {
			if rej != nil {
				finish(now, append(list, notify(wire.TemporaryFailure, nil)), nil)
				s.firstChildFailed(now, rej)
				return
			}
			finish(now, append(list, grant...), ch.c)
		})
	})
}

// firstChildFailed closes the IKE SA whose Child SA of IKE_AUTH failed, if it is to be.
func (s *sa) firstChildFailed(now time.Time, r *ike.Rejection) {
	if s.config().CloseOnChildFailure {
		s.Close(now, ike.Closed{Cause: ike.CauseFailed, Reason: "its first Child SA failed", Rejection: r}, false)
	}
}

// refuseAuth says AUTHENTICATION_FAILED and forgets the IKE SA (RFC 7296
// §2.21.2). Whatever the reason, the peer learns no more.
func (s *sa) refuseAuth(now time.Time, in *inbound, r *ike.Rejection) {
	s.respondNotify(now, in, wire.AuthenticationFailed, nil)
	s.fail(now, r)
}

// authGivenUp takes an INFORMATIONAL request in the middle of a set-up: the
// initiator refuses us (RFC 7296 §2.21.2), or goes.
func (s *sa) authGivenUp(now time.Time, in *inbound) {
	s.respond(now, in, nil)
	n := errorNotify(in.payloads)
	if n == nil {
		n = notify(wire.AuthenticationFailed, nil)
	}
	r := peerRefused(n, s.ids[0].String(), "")
	r.Theirs = shortText(s.ids[1].String())
	if s.peer != nil {
		r.PointTo(s.peer)
		s.blameCertificate(r)
	}
	s.fail(now, s.eapAborted(r))
}
