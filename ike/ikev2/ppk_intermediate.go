package ikev2

import (
	"crypto/hmac"
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// PPKs before IKE_AUTH and in CREATE_CHILD_SA (RFC 9867). Both sides announce USE_PPK_INT.
// The initiator names its PPK by PPK_IDENTITY_KEY in its last IKE_INTERMEDIATE and proves
// there that it has it; the responder answers by PPK_IDENTITY, and all SK_* are made anew. So
// identities are protected, too, and it does not matter how the two prove themselves:
// EAP and several rounds work as well. In CREATE_CHILD_SA either side does the same, with the
// secret that the identity has by then.

// confirmLen is the length of a PPK Confirmation (RFC 9867 §3.1).
const confirmLen = 8

// namedPPK is a PPK and its identity. It is ours alone: who is done with it wipes it.
type namedPPK struct {
	id  string
	key suite.Key
}

func (p *namedPPK) wipe() {
	if p != nil {
		p.key.Zero()
		p.key = nil
	}
}

// take hands the key over; nil if there is none.
func (p *namedPPK) take() suite.Key {
	if p == nil {
		return nil
	}
	k := p.key
	p.key = nil
	return k
}

// confirmPPK is the PPK Confirmation: the first 8 octets of prf(PPK, Ni | Nr | SPIi | SPIr), in
// CREATE_CHILD_SA of prf(PPK, Ni | SPIi | SPIr) with its Ni (RFC 9867 §3.1, §3.2).
func (s *sa) confirmPPK(ppk suite.Key, nonces ...[]byte) []byte {
	context := slices.Concat(nonces...)
	context = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(context, s.spiI), s.spiR)
	return s.keys.prf.Sum(ppk, context)[:confirmLen]
}

// identityKey is PPK_IDENTITY_KEY for a PPK.
func (s *sa) identityKey(p *namedPPK, nonces ...[]byte) *wire.Notify {
	data := append([]byte{ppkFixed}, p.id...)
	return notify(wire.PPKIdentityKey, append(data, s.confirmPPK(p.key, nonces...)...))
}

// answeredPPK reads the responder's PPK_IDENTITY: whether it takes the PPK that we have
// offered. An identity that was not offered is an error (RFC 9867 §3.1).
func answeredPPK(payloads []wire.Payload, offered *namedPPK) (taken bool, why string) {
	n := wire.FindNotify(payloads, wire.PPKIdentity)
	switch {
	case n == nil || offered == nil:
		return false, ""
	case readPPKID(n.Data) != offered.id:
		return false, "the peer takes a PPK that was not offered"
	}
	return true, ""
}

// ppkSeed is SKEYSEED after a PPK: prf+ (PPK, SK_d) (RFC 9867 §3.1.1).
func (k *ikeKeys) ppkSeed(ppk, d suite.Key) suite.Key { return k.prf.Plus(ppk, d, k.prf.KeyLen()) }

// readPPKID reads a PPK_ID (RFC 8784 §5.1); "": it is none.
func readPPKID(data []byte) string {
	if len(data) > 1 && len(data) <= limitIdentity && (data[0] == ppkFixed || data[0] == ppkOpaque) {
		return string(data[1:])
	}
	return ""
}

// proposedPPK is one PPK_IDENTITY_KEY of the peer's.
type proposedPPK struct {
	id      string
	confirm []byte
}

// proposedPPKs reads the PPKs that the peer proposes; false: one of them is malformed, or
// they are too many.
func proposedPPKs(payloads []wire.Payload) (list []proposedPPK, ok bool) {
	for _, p := range payloads {
		n, is := p.(*wire.Notify)
		if !is || n.NotifyType != wire.PPKIdentityKey {
			continue
		}
		cut := len(n.Data) - confirmLen
		if cut < 0 || readPPKID(n.Data[:cut]) == "" || len(list) == limitPPKs {
			return nil, false
		}
		list = append(list, proposedPPK{readPPKID(n.Data[:cut]), n.Data[cut:]})
	}
	return list, true
}

// choosePPK finds the first PPK of the list that we have, too; then gets nil and why not.
func (s *sa) choosePPK(now time.Time, list []proposedPPK, nonces []byte, then func(time.Time, *namedPPK, string)) {
	if len(list) == 0 {
		then(now, nil, "the peer names none")
		return
	}
	p := list[0]
	s.askPPK(now, p.id, func(now time.Time, k suite.Key) {
		why := "there is no secret for the " + shortText(p.id) + " that the peer uses"
		if k != nil {
			if hmac.Equal(s.confirmPPK(k, nonces), p.confirm) {
				then(now, &namedPPK{p.id, k}, "")
				return
			}
			k.Zero()
			why = "the peer's secret for " + shortText(p.id) + " is another one than ours"
		}
		if len(list) == 1 {
			then(now, nil, why)
			return
		}
		s.choosePPK(now, list[1:], nonces, then)
	})
}

// offersPPKInt reports whether a connection takes PPKs before IKE_AUTH.
func offersPPKInt(p *ike.Peer) bool { return p.PPKIntermediate != ike.PPKIntermediateOff }

// insistsOnPPKInt reports whether it takes nothing less.
func insistsOnPPKInt(p *ike.Peer) bool {
	return p.PPKRequired && p.PPKIntermediate == ike.PPKIntermediateRequire
}

// offersPPKAuth reports whether it takes them as RFC 8784 has it.
func offersPPKAuth(p *ike.Peer) bool { return p.PPKIntermediate != ike.PPKIntermediateRequire }

// ppks are the notifies of IKE_SA_INIT by which an initiator that has its PPK asks for it: the
// responder gives back one of them (RFC 9867 §3.1).
func (st *initSent) ppks(p *ike.Peer) (list []wire.Payload) {
	if !st.havePPK {
		return nil
	}
	if offersPPKAuth(p) {
		list = append(list, notify(wire.UsePPK, nil))
	}
	if offersPPKInt(p) {
		list = append(list, notify(wire.UsePPKInt, nil))
	}
	return list
}

// findPPK has the initiator's PPK ready for its last IKE_INTERMEDIATE; without one it goes
// on if the connection lets it.
func (s *sa) findPPK(now time.Time, then func(time.Time, *namedPPK)) {
	if !s.peerCaps.ppkInt {
		then(now, nil)
		return
	}
	id := s.peer.PPKID
	s.askPPK(now, id, func(now time.Time, k suite.Key) {
		if k == nil {
			then(now, nil) // offerPPK says so, or refuses
			return
		}
		then(now, &namedPPK{id, k})
	})
}

// offerPPKInt is offerPPK where the PPK had its turn in IKE_INTERMEDIATE.
func (s *sa) offerPPKInt(now time.Time, then func(time.Time)) {
	if s.ppk {
		then(now)
		return
	}
	s.withoutPPK(now, "the peer has not the same secret for "+shortText(s.peer.PPKID)+", or we have none", then)
}

// ppkDemands drops the connections that do not go with the PPK of IKE_INTERMEDIATE.
func (s *sa) ppkDemands(a *authentication) {
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		switch {
		case p.PPKRequired && !s.ppk:
			return ike.DetailPPK, "its ppk_required = yes, and no PPK was agreed on"
		case s.ppk && p.PPKID != "" && p.PPKID != s.ppkID:
			return ike.DetailPPK, "its ppk_id " + p.PPKID + " is not the " + shortText(s.ppkID) + " that the peer uses"
		}
		return "", ""
	})
}

// freshID is the PPK that goes into our next CREATE_CHILD_SA; "": none does. A reload can
// have changed it. Peers of RFC 8784 are not asked: they would pass over it.
func (s *sa) freshID() string {
	if !s.peerCaps.ppkInt || !s.ppk {
		return ""
	}
	if p := s.env.CurrentPeer(s.peer); p.PPKID != "" {
		return p.PPKID
	}
	return s.ppkID
}

// offerFresh adds PPK_IDENTITY_KEY to our CREATE_CHILD_SA request (RFC 9867 §3.2).
func (s *sa) offerFresh(now time.Time, nonce []byte, then func(time.Time, []wire.Payload)) {
	s.sched.ppk.wipe()
	s.sched.ppk = nil
	id := s.freshID()
	if id == "" {
		then(now, nil)
		return
	}
	s.askPPK(now, id, func(now time.Time, k suite.Key) {
		if k == nil {
			s.note(1, "no fresh PPK goes into the new keys: there is no secret for "+id)
			then(now, nil)
			return
		}
		s.sched.ppk = &namedPPK{id, k}
		then(now, []wire.Payload{s.identityKey(s.sched.ppk, nonce)})
	})
}

// freshAnswered is the PPK that the answer to our CREATE_CHILD_SA takes; nil: none. What SK_d
// holds already stays in the keys, so the exchange goes on without: two ends get a new
// secret one after the other.
func (s *sa) freshAnswered(payloads []wire.Payload) (ppk suite.Key, why string) {
	offered := s.sched.ppk
	s.sched.ppk = nil
	taken, why := answeredPPK(payloads, offered)
	switch {
	case taken:
		s.ppkID = offered.id
		return offered.take(), ""
	case offered != nil && why == "":
		s.note(1, "no fresh PPK goes into the new keys: the peer's secret for "+shortText(offered.id)+" is another one, or it has none")
	}
	offered.wipe()
	return nil, why
}

// takeFresh finds the PPK of the peer's CREATE_CHILD_SA before it is worked on.
func (s *sa) takeFresh(now time.Time, in *inbound, then func(time.Time)) {
	list, ok := proposedPPKs(in.payloads)
	switch {
	case !offersPPKInt(s.peer):
		then(now) // the notify means nothing here
		return
	case !ok:
		s.reject(&ike.Rejection{Reason: ike.ReasonSyntax, Detail: ike.DetailPPK, Notify: wire.InvalidSyntax.String(), Difference: "a malformed " + wire.PPKIdentityKey.String() + ", or too many"})
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
		return
	case len(list) == 0:
		then(now)
		return
	}
	if p := s.env.CurrentPeer(s.peer); p.PPKID != "" {
		list = slices.DeleteFunc(list, func(x proposedPPK) bool { return x.id != p.PPKID })
	}
	ni, _ := wire.First[*wire.Nonce](in.payloads)
	s.choosePPK(now, list, ni.Data, func(now time.Time, p *namedPPK, why string) {
		if p == nil {
			s.note(1, "no fresh PPK goes into the new keys: "+why)
		}
		in.fresh = p
		then(now)
		in.fresh.wipe() // unless it was taken
	})
}

// freshPayload tells the peer which of its PPKs goes into the new keys.
func (in *inbound) freshPayload() []wire.Payload {
	if in.fresh == nil {
		return nil
	}
	return []wire.Payload{ppkIdentity(in.fresh.id)}
}
