package ikev2

import (
	"errors"
	"fmt"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// errTooManyFragments tells that a message of ours does not fit into limitFragments.
var errTooManyFragments = errors.New("the message needs more fragments than are sent")

// partial is a message of the peer's of which some fragments have come (RFC 7383
// §2.6). Only authentic ones are kept.
type partial struct {
	exchange wire.ExchangeType
	id       uint32
	inner    wire.PayloadType // the first payload, as fragment 1 says
	parts    [][]byte         // by number; nil: has not come
	have     int
	size     int       // bytes of plain text
	held     int       // bytes kept in all
	first    []byte    // fragment 1 as it came, by which its repetition is known
	until    time.Time // forgotten then
}

// whole is a message put together.
type whole struct {
	inner wire.PayloadType
	text  []byte
	first []byte
}

// sendsFragments reports whether what is too large for one packet goes in
// fragments: only if both sides announced it (RFC 7383 §2.3).
func (s *sa) sendsFragments() bool {
	return s.peerCaps.fragments && (s.peer == nil || s.peer.Fragmentation == ike.FragmentYes || s.peer.Fragmentation == ike.FragmentForce)
}

// announcesFragments reports whether one of the connections lets the peer send
// fragments. A responder does not know yet which one it will be.
func announcesFragments(peers ...*ike.Peer) bool {
	for _, p := range peers {
		if p.Fragmentation != ike.FragmentNo {
			return true
		}
	}
	return false
}

// room is the greatest message that leaves in one piece.
func (s *sa) room() int { return s.config().MessageRoom(s.remote.Addr()) }

// sealAll protects a message: in one piece if it fits into room or room is 0,
// otherwise in fragments, each under an IV of its own (RFC 7383 §2.5).
func (k *ikeKeys) sealAll(h wire.Header, payloads []wire.Payload, room int) ([][]byte, error) {
	if err := wire.CheckPayloads(payloads); err != nil {
		return nil, err
	}
	first, text := wire.AppendPayloads(nil, payloads)
	defer clear(text)
	if n := wire.EncryptedOverhead(wire.PayloadSK) + k.sealedLen(len(text)); room == 0 || n <= room {
		if n > wire.MaxMessageLen {
			return nil, wire.ErrTooLarge
		}
		return [][]byte{k.sealText(h, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, text)}, nil
	}
	n := room - wire.EncryptedOverhead(wire.PayloadSKF) - k.out.IVLen() - k.out.ICVLen()
	n = n - n%max(k.out.Align(), 1) - 1
	total := (len(text) + n - 1) / n
	if total > limitFragments {
		return nil, errTooManyFragments
	}
	out := make([][]byte, 0, total)
	for i := range total {
		e := wire.Encrypted{Type: wire.PayloadSKF, FragmentNumber: uint16(i + 1), TotalFragments: uint16(total)}
		if i == 0 {
			e.FirstInner = first
		}
		out = append(out, k.sealText(h, e, text[i*n:min((i+1)*n, len(text))]))
	}
	return out, nil
}

// fragmentTag stands behind the summary of a message that travels in fragments.
func fragmentTag(number, total int) string { return fmt.Sprintf(" [EF:%d/%d]", number, total) }

// collect keeps an authentic fragment. It returns the message once it is whole.
// What does not belong to it is dropped and changes nothing, apart from a larger
// number of fragments, with which a sender begins anew in smaller ones (RFC 7383
// §2.5.2, §2.6).
func (s *sa) collect(now time.Time, d ike.Datagram, m *wire.Message, text []byte) *whole {
	e, h := m.Encrypted, m.Header
	slot := &s.partial[0]
	if h.Response() {
		slot = &s.partial[1]
	}
	number, total := int(e.FragmentNumber), int(e.TotalFragments)
	p := *slot
	if p != nil && p.id != h.MessageID {
		p = nil // of a message that is answered meanwhile
	}
	switch {
	case p != nil && p.exchange == h.Exchange && total == len(p.parts) && p.parts[number-1] != nil:
		return nil // doubled on the way, or repeated with others that were lost
	case len(text) == 0, p != nil && (p.exchange != h.Exchange || total < len(p.parts)):
		s.env.Drop(now, ike.DropFragment, d.Remote)
		return nil
	case p == nil || total > len(p.parts):
		s.forgetPartial(slot)
		p = &partial{exchange: h.Exchange, id: h.MessageID, parts: make([][]byte, total), held: total * sliceHeader}
	}
	held := p.held + len(e.Body)
	if number == 1 {
		held += len(d.Data)
	}
	if p.size+len(text) > s.config().MaxPacket || !s.holdFragments(slot, held) {
		s.forgetPartial(slot)
		s.env.Drop(now, ike.DropFragment, d.Remote)
		if s.state.phase() == phaseEstablished {
			s.note(2, "a fragmented message of the peer is larger than is taken")
		}
		return nil
	}
	*slot = p
	p.held = held
	p.parts[number-1], p.have, p.size = text, p.have+1, p.size+len(text)
	if number == 1 {
		p.inner, p.first = e.FirstInner, d.Data
	}
	p.until = now.Add(timeoutFragments)
	s.life.lastIn = now
	if p.have < len(p.parts) {
		s.env.Emit(s.message(d, summary(h, nil)+fragmentTag(number, total)))
		return nil
	}
	w := &whole{inner: p.inner, text: make([]byte, 0, p.size), first: p.first}
	for _, part := range p.parts {
		w.text = append(w.text, part...)
	}
	s.forgetPartial(slot)
	return w
}

// sliceHeader is what a fragment that has not come takes in memory.
const sliceHeader = 24

// holdFragments asks for room for slot, beside what the other direction holds.
func (s *sa) holdFragments(slot **partial, bytes int) bool {
	for i := range s.partial {
		if o := &s.partial[i]; o != slot && *o != nil {
			bytes += (*o).held
		}
	}
	return s.env.HoldFragments(bytes)
}

// forgetPartial drops what has come of a message.
func (s *sa) forgetPartial(slot **partial) {
	if *slot == nil {
		return
	}
	for _, part := range (*slot).parts {
		clear(part)
	}
	*slot = nil
	s.holdFragments(slot, 0)
}

// forgetPartials drops the fragments of messages that nobody waits for any more:
// of requests or of responses.
func (s *sa) forgetPartials(responses bool) {
	if responses {
		s.forgetPartial(&s.partial[1])
		return
	}
	s.forgetPartial(&s.partial[0])
}

// wakePartials forgets messages whose other fragments do not come.
func (s *sa) wakePartials(now time.Time) {
	for i := range s.partial {
		if p := s.partial[i]; p != nil && !now.Before(p.until) {
			s.forgetPartial(&s.partial[i])
		}
	}
}

// oversized is the record of a message of ours that cannot be sent.
func (s *sa) oversized(h wire.Header, err error) *ike.Rejection {
	return s.reject(&ike.Rejection{Reason: ike.ReasonLimit, Difference: fmt.Sprintf("%s %d: %v", h.Exchange, h.MessageID, err), Hint: "charon.fragment_size, or fewer certificates"})
}
