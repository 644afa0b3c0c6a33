package ikev2

import (
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// intermediate is what both roles keep from one IKE_INTERMEDIATE exchange to the next
// (RFC 9242): additional key exchanges, one an exchange (RFC 9370 §2.2.2), after each
// of which all SK_* are made anew.
type intermediate struct {
	supported bool              // both sides know the exchange
	left      []suite.Transform // key exchanges that are still to come, in their order
	ppkDone   bool              // the peer has named its PPKs, or that it has none (RFC 9867)
	// authI and authR are IntAuth_i and IntAuth_r of the exchanges so far.
	authI, authR []byte
}

// intAuth is IntAuth, which goes to the end of what AUTH covers (RFC 9242 §3.3.2);
// id is the message ID of the first IKE_AUTH.
func (m *intermediate) intAuth(id uint32) []byte {
	if m.authI == nil {
		return nil
	}
	return binary.BigEndian.AppendUint32(slices.Concat(m.authI, m.authR), id)
}

// offersAdditional reports whether a proposal has additional key exchanges.
func offersAdditional(list []suite.Proposal) bool {
	return slices.ContainsFunc(list, suite.Proposal.Additional)
}

// intAuthOf continues IntAuth_i or IntAuth_r with one message: prf(SK_p, what was so
// far | A | P). A is the header and the generic header of the Encrypted payload, P what
// that holds, as if it was neither encrypted nor in fragments (RFC 9242 §3.3.2):
//
//	A: header, next payload SK, length as if there was no IV, padding and ICV
//	   first inner payload | RESERVED | 4 + length of P
//
// head are the first 30 bytes of the message or of its first fragment.
func (k *ikeKeys) intAuthOf(before []byte, initiator bool, head, text []byte) []byte {
	p := k.pi
	if !initiator {
		p = k.pr
	}
	a := slices.Clone(head[:wire.HeaderLen+2])
	a[16] = byte(wire.PayloadSK)
	a = binary.BigEndian.AppendUint16(a, uint16(4+len(text)))
	binary.BigEndian.PutUint32(a[24:], uint32(len(a)+len(text)))
	return k.prf.Sum(p, before, a, text)
}

// intAuthSent is intAuthOf for a message that we are about to send.
func (k *ikeKeys) intAuthSent(before []byte, initiator bool, h wire.Header, payloads []wire.Payload) []byte {
	first, text := wire.AppendPayloads(nil, payloads)
	defer clear(text)
	head := wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, 0)
	return k.intAuthOf(before, initiator, head, text)
}

// mixKeys makes all keys anew after an additional key exchange (RFC 9370 §2.2.2), then with a
// PPK (RFC 9867 §3.1.1); either may be nil. It zeroes both and the keys before, but for what
// opens repetitions of a request.
func (s *sa) mixKeys(shared, ppk suite.Key, ni, nr []byte) error {
	old := s.keys
	if shared == nil && ppk == nil {
		return nil
	}
	defer ppk.Zero()
	var seed suite.Key
	if shared != nil {
		seed = old.nextSeed(shared, ni, nr)
		shared.Zero()
	}
	switch {
	case ppk != nil && shared != nil:
		between, err := deriveIKE(s.selected, seed, ni, nr, s.spiI, s.spiR)
		if err != nil {
			return err
		}
		seed = old.ppkSeed(ppk, between.d)
		between.wipe()
	case ppk != nil:
		seed = old.ppkSeed(ppk, old.d)
	}
	if err := s.armKeys(s.selected, seed, ni, nr); err != nil {
		return err
	}
	if !s.initiator {
		s.keys.before, old.in = old.in, nil
	}
	old.wipe()
	return nil
}

// beginIntermediate goes from IKE_SA_INIT to IKE_AUTH, by way of the additional key
// exchanges that were agreed on.
func (s *sa) beginIntermediate(now time.Time, next *authSent) {
	st := &intermediateSent{next: next, intermediate: intermediate{supported: true, left: s.selected.AdditionalKE()}}
	s.enter(st)
	s.findPPK(now, func(now time.Time, p *namedPPK) {
		if st.ppk = p; p == nil && len(st.left) == 0 {
			s.intermediatesDone(now, st)
			return
		}
		s.sendIntermediate(now, st)
	})
}

// intermediatesDone goes on to IKE_AUTH.
func (s *sa) intermediatesDone(now time.Time, st *intermediateSent) {
	next := st.next
	next.intAuth = st.intAuth(s.win.sendID)
	st.next = nil // so that it is not left with this state
	s.enter(next)
	s.beginAuth(now)
}

// sendIntermediate begins the next additional key exchange; the last exchange names the PPK
// (RFC 9867 §3.1).
func (s *sa) sendIntermediate(now time.Time, st *intermediateSent) {
	send := func(now time.Time, list []wire.Payload) {
		if st.ppk != nil && len(st.left) <= 1 {
			list = append(list, s.identityKey(st.ppk, st.next.ni, st.next.nr))
		}
		s.win.sendID = max(s.win.sendID, 1)
		st.authI = s.keys.intAuthSent(st.authI, true, s.header(wire.ExchangeIKEIntermediate, s.win.sendID, false), list)
		s.request(now, wire.ExchangeIKEIntermediate, list)
	}
	if len(st.left) == 0 {
		send(now, nil)
		return
	}
	method := st.left[0]
	makeKE(s, now, method.ID, func(now time.Time, ke suite.KeyExchange, err error) {
		if err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: method.Type.String() + ": " + err.Error()})
			return
		}
		st.ke = ke
		send(now, []wire.Payload{&wire.KE{Group: uint16(method.ID), Data: ke.Public()}})
	})
}

// wrongKE tells why a KE payload is not that of an additional key exchange; "": it is.
func wrongKE(want suite.Transform, ke *wire.KE) string {
	switch {
	case ke == nil:
		return want.Type.String() + ": the message has no KE payload"
	case suite.TransformID(ke.Group) != want.ID:
		got := want
		got.ID = suite.TransformID(ke.Group)
		return want.Type.String() + ": the peer's KE payload is of " + got.Name() + ", agreed on is " + want.Name()
	}
	return ""
}

// intermediateResponse takes the responder's half of an additional key exchange.
func (s *sa) intermediateResponse(now time.Time, in *inbound) {
	st := s.state.(*intermediateSent)
	if n := errorNotify(in.payloads); n != nil {
		s.fail(now, s.intermediateRefused(st, n))
		return
	}
	var ppk suite.Key
	if st.ppk != nil && len(st.left) <= 1 {
		taken, why := answeredPPK(in.payloads, st.ppk)
		if why != "" {
			s.fail(now, s.ppkRefused(why))
			return
		}
		if taken {
			ppk, s.ppk, s.ppkID = st.ppk.take(), true, st.ppk.id
		}
	}
	if len(st.left) == 0 {
		st.authR = s.keys.intAuthOf(st.authR, false, in.first, in.text)
		if err := s.mixKeys(nil, ppk, st.next.ni, st.next.nr); err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "PPK: " + err.Error()})
			return
		}
		s.intermediatesDone(now, st)
		return
	}
	method := st.left[0]
	ke, _ := wire.First[*wire.KE](in.payloads)
	if why := wrongKE(method, ke); why != "" {
		s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: why})
		return
	}
	st.authR = s.keys.intAuthOf(st.authR, false, in.first, in.text)
	type made struct {
		shared suite.Key
		err    error
	}
	kx, public := st.ke, slices.Clone(ke.Data)
	compute(s, now, "shared secret "+method.Name(), slowGroup(method.ID), func() made {
		k, err := kx.Shared(public)
		return made{k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err == nil {
			err = s.mixKeys(m.shared, ppk, st.next.ni, st.next.nr)
		}
		if err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: method.Type.String() + " (" + method.Name() + "): " + err.Error()})
			return
		}
		if st.left = st.left[1:]; len(st.left) > 0 {
			s.sendIntermediate(now, st)
			return
		}
		s.intermediatesDone(now, st)
	})
}

// intermediateRefused is the record of an error notify in place of an answer.
func (s *sa) intermediateRefused(st *intermediateSent, n *wire.Notify) *ike.Rejection {
	if n.NotifyType == wire.AuthenticationFailed && st.ppk != nil {
		r := peerRefused(n, s.peer.PPKID, "")
		r.Detail, r.Difference, r.Options = ike.DetailPPK, "the peer insists on a PPK, and has not the one of ppk_id", []string{s.peer.Option("ppk_id")}
		return r
	}
	ours := ""
	if len(st.left) > 0 {
		ours = st.left[0].Name()
	}
	return peerRefused(n, ours, "")
}

// intermediateRequest answers an additional key exchange of the initiator's, or takes its PPK.
func (s *sa) intermediateRequest(now time.Time, in *inbound) {
	st := s.state.(*initReceived)
	refuse := func(now time.Time, why string) {
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
		s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: why})
	}
	ppkDue := s.peerCaps.ppkInt && !st.ppkDone && len(st.left) <= 1
	if len(st.left) == 0 && !ppkDue { // nothing was agreed on for which it would be
		s.env.Drop(now, ike.DropUnexpected, in.datagram.Remote)
		return
	}
	proposed, ok := proposedPPKs(in.payloads)
	switch {
	case s.peerCaps.ppkInt && !ok:
		refuse(now, "a malformed "+wire.PPKIdentityKey.String()+", or too many")
		return
	case s.peerCaps.ppkInt && len(proposed) > 0 && !ppkDue:
		refuse(now, wire.PPKIdentityKey.String()+" before the last IKE_INTERMEDIATE")
		return
	}
	s.prolong(now, s.config().HalfOpenTimeout)
	if len(st.left) == 0 {
		s.answerIntermediate(now, st, in, nil, nil, proposed)
		return
	}
	method := st.left[0]
	ke, _ := wire.First[*wire.KE](in.payloads)
	if why := wrongKE(method, ke); why != "" {
		refuse(now, why)
		return
	}
	respondKE(s, now, method, ke.Data, func(now time.Time, public []byte, shared suite.Key, err error) {
		if err != nil {
			refuse(now, method.Type.String()+" ("+method.Name()+"): "+err.Error())
			return
		}
		s.answerIntermediate(now, st, in, []wire.Payload{&wire.KE{Group: uint16(method.ID), Data: public}}, shared, proposed)
	})
}

// answerIntermediate answers with list, and with the PPK that both have of those that the
// initiator proposes; then the keys are made anew.
func (s *sa) answerIntermediate(now time.Time, st *initReceived, in *inbound, list []wire.Payload, shared suite.Key, proposed []proposedPPK) {
	answer := func(now time.Time, ppk *namedPPK) {
		if ppk != nil {
			s.ppk, s.ppkID = true, ppk.id
			list = append(list, ppkIdentity(ppk.id))
		}
		st.authI = s.keys.intAuthOf(st.authI, true, in.first, in.text)
		st.authR = s.keys.intAuthSent(st.authR, false, s.header(in.header.Exchange, in.header.MessageID, true), list)
		s.respond(now, in, list)
		if len(st.left) > 0 {
			st.left = st.left[1:]
		}
		if err := s.mixKeys(shared, ppk.take(), st.ni, st.nr); err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "IKE_INTERMEDIATE: " + err.Error()})
		}
	}
	if !s.peerCaps.ppkInt || len(proposed) == 0 && len(st.left) > 0 {
		answer(now, nil) // the PPK may come in an exchange of its own
		return
	}
	st.ppkDone = true
	s.choosePPK(now, proposed, slices.Concat(st.ni, st.nr), func(now time.Time, ppk *namedPPK, why string) {
		if ppk == nil && !slices.ContainsFunc(st.candidates, func(p *ike.Peer) bool { return !p.PPKRequired }) {
			s.respondNotify(now, in, wire.AuthenticationFailed, nil)
			s.peer = st.candidates[0]
			s.fail(now, s.ppkRefused(why))
			return
		}
		if ppk == nil {
			s.note(1, "no PPK is used: "+why)
		}
		answer(now, ppk)
	})
}

// respondKE does the responder's half of a key exchange, elsewhere if that is slow.
func respondKE(s *sa, now time.Time, method suite.Transform, public []byte, then func(now time.Time, public []byte, shared suite.Key, err error)) {
	type made struct {
		public []byte
		shared suite.Key
		err    error
	}
	theirs, id := slices.Clone(public), method.ID
	compute(s, now, "key exchange "+method.Name(), slowGroup(id), func() made {
		p, k, err := suite.RespondKeyExchange(id, theirs)
		return made{p, k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err == nil && m.shared == nil {
			err = errNoAnswerInTime
		}
		then(now, m.public, m.shared, err)
	})
}
