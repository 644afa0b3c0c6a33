package ikev1

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// Fragmentation of ISAKMP messages by Cisco and Microsoft ([MS-IKEE] §3.2.7): a message
// is cut as it is, encrypted or not. So fragments come in the clear, and nobody vouches
// for them: what they make is looked at as if it had come whole.

// partial is a message of the peer's of which some fragments have come.
type partial struct {
	id    uint16
	from  netip.AddrPort
	parts [][]byte // by number from 1; nil: has not come
	last  bool     // the last of them has come, so that there are no more
	have  int
	size  int // bytes that have come
	until time.Time
}

// sliceHeader is what a fragment that has not come takes in memory.
const sliceHeader = 24

func (p *partial) held() int { return p.size + len(p.parts)*sliceHeader }

// contradicts reports whether a fragment that differs from what has come at its place
// can't belong to the same message.
func (p *partial) contradicts(i int, last bool) bool {
	if i < len(p.parts) {
		return p.parts[i] != nil || last && i < len(p.parts)-1
	}
	return p.last
}

// takesFragments reports whether the peer may send fragments: not where every connection
// that it may be says no.
func (s *sa) takesFragments() bool {
	peers := []*ike.Peer{s.peer}
	switch {
	case s.peer != nil:
	case s.setup == nil:
		return false
	default:
		peers = s.setup.candidates
	}
	return slices.ContainsFunc(peers, func(p *ike.Peer) bool { return p.Fragmentation != ike.FragmentNo })
}

// sendsFragments reports whether a message of ours that is too large for one packet goes
// in fragments: if the peer has announced that it takes them, or with `force` always.
func (s *sa) sendsFragments(list []wire.V1Payload) bool {
	p := s.peer
	if p == nil && (s.setup == nil || len(s.setup.candidates) == 0) {
		return false
	}
	if p == nil {
		p = s.setup.candidates[0]
	}
	switch {
	case p.Fragmentation == ike.FragmentForce:
		return true
	case p.Fragmentation != ike.FragmentYes || !s.caps.fragments:
		return false
	case s.caps.vendor == windows: // peer quirk: it takes them where it waits for certificates
		return slices.ContainsFunc(list, func(p wire.V1Payload) bool { return p.Type == wire.PayloadV1CERT })
	}
	return true
}

// room is the greatest message that leaves in one piece.
func (s *sa) room() int { return s.config().MessageRoom(s.remote.Addr()) }

// pieces are the packets of a message that is ready: itself, or fragments of it. Their
// header is that of phase 1 whatever the message, as others have it.
func (s *sa) pieces(b []byte, list []wire.V1Payload) [][]byte {
	if len(b) <= s.room() || !s.sendsFragments(list) {
		return [][]byte{b}
	}
	h := s.header(&exchange{kind: wire.ExchangeV1IdentityProtection})
	if s.first != nil {
		h.Exchange = s.first.kind
	} else if s.peer.Aggressive {
		h.Exchange = wire.ExchangeV1Aggressive
	}
	n := s.room() - wire.HeaderLen - wire.V1FragmentOverhead
	var out [][]byte
	s.fragmentID++
	for part := range slices.Chunk(b, n) {
		f := wire.V1Fragment{ID: s.fragmentID, Number: uint8(len(out) + 1), Last: len(out)*n+len(part) == len(b), Data: part}
		out = append(out, wire.AppendV1Message(nil, h, []wire.V1Payload{f.Payload()}))
	}
	return out
}

// collect keeps a fragment and returns the message once it is whole, nil before. A
// fragment that contradicts what has come of its message begins it anew: many give all
// their messages one ID, and repetitions of an older one may be late.
func (s *sa) collect(now time.Time, d ike.Datagram) []byte {
	drop := func() []byte { s.env.Drop(now, ike.DropFragment, d.Remote); return nil }
	list, used, err := wire.ParseV1Chain(wire.PayloadV1Fragment, d.Data[wire.HeaderLen:])
	if err != nil || len(list) != 1 || used != len(d.Data)-wire.HeaderLen {
		return drop()
	}
	f, err := wire.ParseV1Fragment(list[0].Body)
	if err != nil || !s.takesFragments() {
		return drop()
	}
	p := s.partialOf(f.ID, d.Remote)
	i := int(f.Number) - 1
	if i < len(p.parts) && bytes.Equal(p.parts[i], f.Data) {
		return nil // doubled on the way, or repeated with others that were lost
	}
	if p.contradicts(i, f.Last) {
		p.parts, p.last, p.have, p.size = nil, false, 0, 0
	}
	for len(p.parts) <= i {
		p.parts = append(p.parts, nil)
	}
	p.parts[i], p.last = slices.Clone(f.Data), p.last || f.Last
	p.have, p.size, p.until = p.have+1, p.size+len(f.Data), now.Add(timeoutFragments)
	if p.size > s.config().MaxPacket || !s.holdPartials() {
		s.forgetPartials(func(o *partial) bool { return o == p })
		return drop()
	}
	s.env.Emit(s.message(d, fmt.Sprintf("FRAG_V1 [ %d of message %d ]", f.Number, f.ID)))
	if !p.last || p.have < len(p.parts) {
		return nil
	}
	whole := slices.Concat(p.parts...)
	s.forgetPartials(func(o *partial) bool { return o == p })
	// Nothing but a message of this SA may come of it, and no fragment of a fragment.
	h, err := wire.ParseHeader(whole)
	if err != nil || int(h.Length) != len(whole) || h.Version.Major != 1 || h.NextPayload == wire.PayloadV1Fragment ||
		h.SPIi != s.spiI || s.spiR != 0 && h.SPIr != s.spiR && !isFirst(&h) {
		return drop()
	}
	return whole
}

// takePieces waits for a first message that comes in fragments, from whom a connection
// may be that takes them. Peer quirk (strongSwan with `fragmentation = force`): it sends what
// is too large so before anybody has announced anything.
func (s *sa) takePieces(now time.Time, d ike.Datagram, _ wire.Header) bool {
	peers, _ := ike.MatchPeers(s.env.Peers(), 1, d.Local.Addr(), d.Remote.Addr())
	s.phase, s.setup = phasePieces, &setup{candidates: peers}
	s.life.setupEnd = now.Add(s.config().HalfOpenTimeout)
	if whole := s.collect(now, d); whole != nil {
		d.Data = whole
		return s.takeWhole(now, d)
	}
	return len(s.partials) > 0
}

// takeWhole takes the first message once it is whole, as if it had come so.
func (s *sa) takeWhole(now time.Time, d ike.Datagram) bool {
	h, err := wire.ParseHeader(d.Data)
	if err != nil || !isFirst(&h) {
		s.env.Drop(now, ike.DropFragment, d.Remote)
		return false
	}
	s.forgetPartials(func(*partial) bool { return true })
	return s.takeFirst(now, d, h)
}

// partialOf finds what has come of a message, or begins it in the place of the oldest.
func (s *sa) partialOf(id uint16, from netip.AddrPort) *partial {
	for _, p := range s.partials {
		if p.id == id && p.from == from {
			return p
		}
	}
	if len(s.partials) == limitPartials {
		oldest := slices.MinFunc(s.partials, func(a, b *partial) int { return a.until.Compare(b.until) })
		s.forgetPartials(func(p *partial) bool { return p == oldest })
	}
	p := &partial{id: id, from: from}
	s.partials = append(s.partials, p)
	return p
}

// holdPartials asks for room for what has come.
func (s *sa) holdPartials() bool {
	n := 0
	for _, p := range s.partials {
		n += p.held()
	}
	return s.env.HoldFragments(n)
}

func (s *sa) forgetPartials(which func(*partial) bool) {
	if len(s.partials) > 0 {
		s.partials = slices.DeleteFunc(s.partials, which)
		s.holdPartials()
	}
}
