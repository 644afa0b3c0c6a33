package ikev1

import (
	"bytes"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// inbound is one message whose form is right; of phase 2 it is authentic, too.
type inbound struct {
	header   wire.Header
	datagram ike.Datagram
	payloads []wire.V1Payload
	// raw is the body as it came, encrypted is whether it has to be decrypted still.
	encrypted bool
	// x is the exchange that it belongs to, nil: it begins one. iv is the next one of
	// that chain if the message is taken.
	x  *exchange
	iv []byte
	// rest is what HASH covers.
	rest []byte
}

// get is the body of the first payload of the type, nil if there is none.
func (in *inbound) get(t wire.PayloadType) []byte {
	for _, p := range in.payloads {
		if p.Type == t {
			return p.Body
		}
	}
	return nil
}

// all are the bodies of the payloads of the types.
func (in *inbound) all(types ...wire.PayloadType) (list [][]byte) {
	for _, p := range in.payloads {
		for _, t := range types {
			if p.Type == t {
				list = append(list, p.Body)
			}
		}
	}
	return list
}

// receive checks a message and hands it to what its exchange is.
func (s *sa) receive(now time.Time, d ike.Datagram) {
	h, err := wire.ParseHeader(d.Data)
	if err != nil || h.Version.Major != 1 {
		s.env.Drop(now, ike.DropMalformed, d.Remote)
		return
	}
	in := &inbound{header: h, datagram: d, encrypted: h.Flags&wire.FlagV1Encryption != 0}
	phase1 := h.Exchange == wire.ExchangeV1IdentityProtection || h.Exchange == wire.ExchangeV1Aggressive
	switch {
	case phase1 && h.MessageID == 0:
		s.receivePhase1(now, in)
	case !in.encrypted && h.Exchange == wire.ExchangeV1Informational:
		s.unprotected(now, in) // peer quirk: under message ID 0
	case !phase1 && h.MessageID == 0:
		s.env.Drop(now, ike.DropMessageID, d.Remote)
	case !in.encrypted:
		s.env.Drop(now, ike.DropUnprotected, d.Remote)
	default:
		s.receivePhase2(now, in)
	}
}

// receivePhase1 takes a message of main or aggressive mode.
func (s *sa) receivePhase1(now time.Time, in *inbound) {
	drop := func(r ike.DropReason) { s.env.Drop(now, r, in.datagram.Remote) }
	r := findRule(s.phase, in.header.Exchange, in.encrypted)
	if r == nil || s.setup == nil {
		drop(ike.DropUnexpected)
		return
	}
	if in.encrypted {
		// With which key it comes is what the rule finds out.
		r.take(s, now, in)
		return
	}
	list, used, err := wire.ParseV1Chain(in.header.NextPayload, in.datagram.Data[wire.HeaderLen:])
	if err != nil || len(bytes.Trim(in.datagram.Data[wire.HeaderLen+used:], "\x00")) > 0 {
		drop(ike.DropMalformed)
		return
	}
	in.payloads = list
	if r.misses(list) != "" {
		drop(ike.DropMalformed)
		return
	}
	s.received(in.datagram, wire.V1Summary(in.header, list))
	r.take(s, now, in)
}

// readEncrypted decrypts a message of phase 1 with the keys and parses it; false: it
// can't be read, mostly for the key being another one.
func (s *sa) readEncrypted(k *keys, in *inbound, need ...wire.PayloadType) bool {
	text, next, ok := s.opened(k, k.iv, in.datagram.Data)
	if !ok {
		return false
	}
	list, _, err := wire.ParseV1Chain(in.header.NextPayload, text)
	if err != nil {
		return false
	}
	r := rule{need: need}
	if r.misses(list) != "" {
		return false
	}
	in.payloads, in.iv = list, next
	return true
}

// receivePhase2 takes a message that the keys of phase 1 protect: nothing is changed
// before its HASH has been found right.
func (s *sa) receivePhase2(now time.Time, in *inbound) {
	drop := func(r ike.DropReason) { s.env.Drop(now, r, in.datagram.Remote) }
	if s.phase == phaseAuthSent && in.header.Exchange == wire.ExchangeV1Informational {
		s.earlyInformational(now, in)
		return
	}
	if s.keys == nil || s.phase != phaseEstablished && s.phase != phaseExtended {
		drop(ike.DropUnexpected)
		return
	}
	in.x = s.exchange(in.header.MessageID)
	iv := s.keys.chainIV(in.header.MessageID)
	if in.x != nil {
		if in.x.kind != in.header.Exchange {
			drop(ike.DropUnexpected)
			return
		}
		iv = in.x.iv
	}
	text, next, ok := s.opened(s.keys, iv, in.datagram.Data)
	if !ok {
		drop(ike.DropMalformed)
		return
	}
	list, used, err := wire.ParseV1Chain(in.header.NextPayload, text)
	if err != nil || len(list) == 0 || list[0].Type != wire.PayloadV1Hash {
		drop(ike.DropIntegrity)
		return
	}
	in.payloads, in.iv, in.rest = list[1:], next, text[len(list[0].Body)+4:used]
	hash := list[0].Body
	switch in.header.Exchange {
	case wire.ExchangeV1Transaction:
		s.receiveTransaction(now, in, hash)
	case wire.ExchangeV1QuickMode:
		if s.phase != phaseEstablished {
			drop(ike.DropUnexpected) // it comes again
			return
		}
		s.receiveQuick(now, in, hash)
	case wire.ExchangeV1Informational:
		if in.x != nil || !equal(hash, s.keys.hash1(in.header.MessageID, in.rest)) {
			drop(ike.DropIntegrity)
			return
		}
		s.accepted(now, in)
		s.informational(now, in)
	default:
		drop(ike.DropUnexpected)
	}
}

// accepted notes an authentic message of phase 2.
func (s *sa) accepted(now time.Time, in *inbound) {
	s.life.lastIn, s.unheard = now, nil
	s.taken(now, in.datagram)
	if in.x != nil {
		in.x.iv = in.iv
	}
	s.received(in.datagram, wire.V1Summary(in.header, in.payloads))
	s.followPeer(now, in.datagram)
}

// followPeer takes over the address that an authentic message came from, if the peer
// is behind a NAT and we are not.
func (s *sa) followPeer(now time.Time, d ike.Datagram) {
	if (d.Remote != s.remote || d.Local != s.local) && s.nat.remote && !s.nat.local {
		s.move(now, d.Local, d.Remote)
	}
}
