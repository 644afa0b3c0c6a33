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

// mixKeys makes all keys anew after an additional key exchange (RFC 9370 §2.2.2). It
// zeroes shared and the keys before, but for what opens repetitions of a request.
func (s *sa) mixKeys(shared suite.Key, ni, nr []byte) error {
	old := s.keys
	seed := old.nextSeed(shared, ni, nr)
	shared.Zero()
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
	left := s.selected.AdditionalKE()
	if len(left) == 0 {
		s.enter(next)
		s.beginAuth(now)
		return
	}
	st := &intermediateSent{next: next, intermediate: intermediate{supported: true, left: left}}
	s.enter(st)
	s.sendIntermediate(now, st)
}

// sendIntermediate begins the next additional key exchange.
func (s *sa) sendIntermediate(now time.Time, st *intermediateSent) {
	method := st.left[0]
	makeKE(s, now, method.ID, func(now time.Time, ke suite.KeyExchange, err error) {
		if err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: method.Type.String() + ": " + err.Error()})
			return
		}
		st.ke = ke
		list := []wire.Payload{&wire.KE{Group: uint16(method.ID), Data: ke.Public()}}
		s.win.sendID = max(s.win.sendID, 1)
		st.authI = s.keys.intAuthSent(st.authI, true, s.header(wire.ExchangeIKEIntermediate, s.win.sendID, false), list)
		s.request(now, wire.ExchangeIKEIntermediate, list)
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
		s.fail(now, peerRefused(n, st.left[0].Name(), ""))
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
		next := st.next
		if err == nil {
			err = s.mixKeys(m.shared, next.ni, next.nr)
		}
		if err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: method.Type.String() + " (" + method.Name() + "): " + err.Error()})
			return
		}
		if st.left = st.left[1:]; len(st.left) > 0 {
			s.sendIntermediate(now, st)
			return
		}
		next.intAuth = st.intAuth(s.win.sendID)
		st.next = nil // so that it is not left with this state
		s.enter(next)
		s.beginAuth(now)
	})
}

// intermediateRequest answers an additional key exchange of the initiator's.
func (s *sa) intermediateRequest(now time.Time, in *inbound) {
	st := s.state.(*initReceived)
	refuse := func(now time.Time, why string) {
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
		s.fail(now, &ike.Rejection{Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: why})
	}
	if len(st.left) == 0 { // nothing was agreed on for which it would be
		s.env.Drop(now, ike.DropUnexpected, in.datagram.Remote)
		return
	}
	method := st.left[0]
	ke, _ := wire.First[*wire.KE](in.payloads)
	if why := wrongKE(method, ke); why != "" {
		refuse(now, why)
		return
	}
	s.prolong(now, s.config().HalfOpenTimeout)
	respondKE(s, now, method, ke.Data, func(now time.Time, public []byte, shared suite.Key, err error) {
		if err != nil {
			refuse(now, method.Type.String()+" ("+method.Name()+"): "+err.Error())
			return
		}
		st.authI = s.keys.intAuthOf(st.authI, true, in.first, in.text)
		list := []wire.Payload{&wire.KE{Group: uint16(method.ID), Data: public}}
		st.authR = s.keys.intAuthSent(st.authR, false, s.header(in.header.Exchange, in.header.MessageID, true), list)
		s.respond(now, in, list)
		st.left = st.left[1:]
		if err := s.mixKeys(shared, st.ni, st.nr); err != nil {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: method.Type.String() + ": " + err.Error()})
		}
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
