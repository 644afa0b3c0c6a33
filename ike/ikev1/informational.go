package ikev1

import (
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// notify is the first notification of the type, nil if there is none.
func (in *inbound) notify(t wire.V1NotifyType) *wire.V1Notify {
	for _, b := range in.all(wire.PayloadV1Notification) {
		if n, err := wire.ParseV1Notify(b); err == nil && n.Type == t {
			return &n
		}
	}
	return nil
}

// inform sends an informational exchange (RFC 2409 §5.7). Nobody answers it and it is
// not repeated.
func (s *sa) inform(now time.Time, p wire.V1Payload) {
	x := s.newExchange(now, wire.ExchangeV1Informational)
	packets, summary := s.hashed(x, func(rest []byte) []byte { return s.keys.hash1(x.id, rest) }, []wire.V1Payload{p})
	s.sendAll(now, s.outward(), packets, summary, 0)
}

// unprotected takes a notification in the clear. It is believed only as far as doubt
// goes, and only before there are keys that it could be protected by.
func (s *sa) unprotected(now time.Time, in *inbound) {
	list, _, err := wire.ParseV1Chain(in.header.NextPayload, in.datagram.Data[wire.HeaderLen:])
	in.payloads = list
	if err != nil || s.setup == nil || !s.initiator || in.datagram.Remote.Addr() != s.remote.Addr() {
		s.env.Drop(now, ike.DropUnprotected, in.datagram.Remote)
		return
	}
	for _, b := range in.all(wire.PayloadV1Notification) {
		n, err := wire.ParseV1Notify(b)
		if err != nil || !n.Type.IsError() {
			continue
		}
		s.received(in.datagram, wire.V1Summary(in.header, list))
		s.doubt(now, s.peerRefused(n.Type))
		return
	}
	s.env.Drop(now, ike.DropUnprotected, in.datagram.Remote)
}

// earlyInformational takes a protected notification that comes in the place of message
// 6. One that can't be read is what a peer with another shared key sends; it is
// believed no more than one in the clear.
func (s *sa) earlyInformational(now time.Time, in *inbound) {
	if in.datagram.Remote.Addr() != s.remote.Addr() {
		s.env.Drop(now, ike.DropUnexpected, in.datagram.Remote)
		return
	}
	text, _, ok := s.opened(s.keys, s.keys.chainIV(in.header.MessageID), in.datagram.Data)
	if !ok {
		s.env.Drop(now, ike.DropMalformed, in.datagram.Remote)
		return
	}
	list, used, err := wire.ParseV1Chain(in.header.NextPayload, text)
	if err == nil && len(list) > 1 && list[0].Type == wire.PayloadV1Hash && equal(list[0].Body, s.keys.hash1(in.header.MessageID, text[len(list[0].Body)+4:used])) {
		in.payloads = list[1:]
		s.received(in.datagram, wire.V1Summary(in.header, list))
		for _, b := range in.all(wire.PayloadV1Notification) {
			if n, err := wire.ParseV1Notify(b); err == nil && n.Type.IsError() {
				s.doubt(now, s.peerRefused(n.Type))
			}
		}
		return
	}
	s.env.Drop(now, ike.DropIntegrity, in.datagram.Remote)
	if shared(s.setup.auth) {
		s.doubt(now, &ike.Rejection{Reason: ike.ReasonAuthentication, ByPeer: true, Detail: ike.DetailPSK, Difference: "the peer answers our proof by something under another key: the shared keys differ"})
	}
}

// peerRefused is the record of an error that the peer notified during phase 1.
func (s *sa) peerRefused(t wire.V1NotifyType) *ike.Rejection {
	r := &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Notify: t.String(), Ours: proposalText(s.setup.offered), Hint: "or the peer has no connection for our address"}
	switch t {
	case wire.V1NoProposalChosen:
		r.Reason = ike.ReasonProposal
	case wire.V1AuthenticationFailed, wire.V1InvalidHashInformation, wire.V1InvalidSignature:
		r.Reason = ike.ReasonAuthentication
	case wire.V1InvalidIDInformation:
		r.Reason, r.Hint = ike.ReasonIdentity, "the peer knows no connection for our identity, or it found another key"
	case wire.V1PayloadMalformed:
		if s.phase == phaseAuthSent && shared(s.setup.auth) {
			r.Reason, r.Hint = ike.ReasonAuthentication, "the peer can't decrypt our proof: the shared keys differ"
		}
	}
	if s.phase == phaseAuthSent || s.phase == phaseAggrSent {
		if r.Reason == ike.ReasonProposal {
			r.Reason, r.Hint = ike.ReasonAuthentication, "the peer may have no key or connection for our identity"
		}
	}
	return r
}

// informational takes an authentic informational exchange.
func (s *sa) informational(now time.Time, in *inbound) {
	for _, p := range in.payloads {
		if s.phase == phaseDead {
			return
		}
		switch p.Type {
		case wire.PayloadV1Notification:
			if n, err := wire.ParseV1Notify(p.Body); err == nil {
				s.notified(now, in, n)
			}
		case wire.PayloadV1Delete:
			if d, err := wire.ParseV1Delete(p.Body); err == nil {
				s.deleted(now, d)
			}
		}
	}
}

func (s *sa) notified(now time.Time, in *inbound, n wire.V1Notify) {
	switch {
	case n.Type == wire.V1RUThere:
		s.answerCheck(now, in, n)
	case n.Type == wire.V1RUThereAck:
		s.checkAnswered(n)
	case n.Type.IsError():
		s.refusedByPeer(now, n)
	default:
		// INITIAL-CONTACT counts in phase 1 only; of the rest nothing follows.
		s.note(2, "the peer notifies "+n.Type.String())
	}
}

// refusedByPeer ends the quick mode of ours that the peer refuses: it does so under a
// message ID of its own, and most don't say which one they mean.
func (s *sa) refusedByPeer(now time.Time, n wire.V1Notify) {
	t, ok := s.sched.current.(*quickTask)
	if !ok || t.x == nil || t.x.out == nil {
		s.note(1, "the peer notifies "+n.Type.String())
		return
	}
	q := t.x.quick
	r := &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Notify: n.Type.String(), Ours: proposalText(q.offered)}
	switch n.Type {
	case wire.V1NoProposalChosen:
		r.Reason = ike.ReasonProposal
	case wire.V1InvalidIDInformation:
		r.Reason, r.Ours = ike.ReasonSelectors, q.local.String()+" === "+q.remote.String()
	}
	t.refused(s, now, r)
}

// deleted carries out a Delete of the peer (RFC 2408 §3.15).
func (s *sa) deleted(now time.Time, d wire.V1Delete) {
	for _, spi := range d.SPIs {
		switch {
		case d.Protocol == wire.ProtocolIKE && len(spi) == 16:
			c := cookiePair(s.spiI, s.spiR)
			if equal(spi, c[:]) {
				s.handOver(now)
				s.end(now, ike.Closed{Cause: ike.CausePeer, Reason: "deleted by the peer"})
				return
			}
		case d.Protocol == wire.ProtocolESP && len(spi) == 4:
			n := ipsec.SPI(binary.BigEndian.Uint32(spi))
			for _, c := range slices.Clone(s.children) {
				if c.spiOut == n && c.dataplane {
					s.dropChild(now, c, ike.CausePeer, "deleted by the peer")
				}
			}
		}
	}
}

// sendDelete tells the peer that a pair of ours is gone.
func (s *sa) sendDelete(now time.Time, spi ipsec.SPI) {
	s.inform(now, wire.V1Delete{Protocol: wire.ProtocolESP, SPIs: [][]byte{spiBytes(spi)}}.Payload())
}

// sendDeletes tells the peer that everything is gone.
func (s *sa) sendDeletes(now time.Time) {
	for _, c := range s.children {
		if c.dataplane {
			s.sendDelete(now, c.spiIn)
		}
	}
	c := cookiePair(s.spiI, s.spiR)
	s.inform(now, wire.V1Delete{Protocol: wire.ProtocolIKE, SPIs: [][]byte{c[:]}}.Payload())
}

// deleteChild deletes a pair on both sides.
func (s *sa) deleteChild(now time.Time, c *child, cause ike.Cause, reason string) {
	if c.dataplane && s.phase == phaseEstablished {
		s.sendDelete(now, c.spiIn)
	}
	s.dropChild(now, c, cause, reason)
}

// DeleteChild deletes a pair for an operator.
func (s *sa) DeleteChild(now time.Time, id uint32, reason string) {
	if c := s.child(id); c != nil {
		s.deleteChild(now, c, ike.CauseLocal, reason)
		return
	}
	s.env.ChildGone(id)
}
