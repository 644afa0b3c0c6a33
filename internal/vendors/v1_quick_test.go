package vendors_test

import (
	"bytes"
	"encoding/binary"
	"slices"

	"adit/ike/wire"
	"adit/ipsec"
)

// protected takes an encrypted message of adit.
func (o *oldPeer) protected(h wire.Header, list []wire.V1Payload) {
	s := o.sa
	switch h.Exchange {
	case wire.ExchangeV1IdentityProtection: // message 5
		if !bytes.Equal(get(list, wire.PayloadV1Hash), o.hash(true, get(list, wire.PayloadV1ID))) {
			o.w.t.Error("HASH_I is wrong")
			return
		}
		s.up = true
		o.sealed(h.Exchange, 0, 0, o.id.Payload(), wire.V1Payload{Type: wire.PayloadV1Hash, Body: o.hash(false, o.id.Payload().Body)})
	case wire.ExchangeV1QuickMode:
		o.quick(h, list)
	case wire.ExchangeV1Informational:
		o.informed(list[1:])
	}
}

func (o *oldPeer) informed(list []wire.V1Payload) {
	for _, p := range list {
		switch p.Type {
		case wire.PayloadV1Delete:
			if d, err := wire.ParseV1Delete(p.Body); err == nil {
				o.deleted = append(o.deleted, d.SPIs...)
				o.kids = slices.DeleteFunc(o.kids, func(k *oldChild) bool {
					return slices.ContainsFunc(d.SPIs, func(b []byte) bool { return bytes.Equal(b, spi4(k.out)) })
				})
			}
		case wire.PayloadV1Notification:
			n, err := wire.ParseV1Notify(p.Body)
			if err != nil {
				o.w.t.Error(err)
				continue
			}
			o.notified = append(o.notified, n.Type)
			if n.Type == wire.V1RUThere {
				o.inform(wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: n.SPI, Type: wire.V1RUThereAck, Data: n.Data}.Payload())
			}
		}
	}
}

// inform sends an informational exchange.
func (o *oldPeer) inform(p wire.V1Payload) {
	o.hashed(wire.ExchangeV1Informational, binary.BigEndian.Uint32(random(4))|1, 0, nil, p)
}

// deleteChild tells adit that a pair is gone.
func (o *oldPeer) deleteChild(k *oldChild) {
	o.kids = slices.DeleteFunc(o.kids, func(x *oldChild) bool { return x == k })
	o.inform(wire.V1Delete{Protocol: wire.ProtocolESP, SPIs: [][]byte{spi4(k.in)}}.Payload())
}

// keymat is the cipher's key of what comes in under an SPI (RFC 2409 §5.5), without PFS.
func (o *oldPeer) keymat(spi uint32, ni, nr []byte) []byte {
	return o.prf(o.sa.d, []byte{3}, spi4(spi), ni, nr)[:16]
}

func (o *oldPeer) life(t *wire.V1Transform) (seconds, kb uint64) {
	unit := uint64(0)
	for _, a := range t.Attributes {
		n, _ := a.Uint()
		switch {
		case a.Type == wire.V1AttrESPLifeType:
			unit = n
		case a.Type == wire.V1AttrESPLife && unit == 1:
			seconds = n
		case a.Type == wire.V1AttrESPLife && unit == 2:
			kb = n
		}
	}
	return seconds, kb
}

// quick plays quick mode: messages 1 and 3 of adit's, or message 2.
func (o *oldPeer) quick(h wire.Header, list []wire.V1Payload) {
	s, id := o.sa, binary.BigEndian.AppendUint32(nil, h.MessageID)
	if get(list, wire.PayloadV1SA) == nil { // message 3
		if !bytes.Equal(list[0].Body, o.prf(s.a, []byte{0}, id, s.qni[h.MessageID], s.qnr[h.MessageID])) {
			o.w.t.Error("HASH(3) is wrong")
		}
		if o.commit {
			// RFC 2408 §3.1: under the message ID of the quick mode, and as a new exchange.
			delete(s.ivs, h.MessageID)
			o.hashed(wire.ExchangeV1Informational, h.MessageID, 0, nil, wire.V1Notify{Protocol: wire.ProtocolESP, SPI: spi4(o.kids[len(o.kids)-1].in), Type: wire.V1Connected}.Payload())
		}
		return
	}
	if ni, ours := s.qni[h.MessageID]; ours { // message 2
		nr := get(list, wire.PayloadV1Nonce)
		_, rest := wire.AppendV1Chain(nil, list[1:])
		if !bytes.Equal(list[0].Body, o.prf(s.a, id, ni, rest)) {
			o.w.t.Error("HASH(2) is wrong")
		}
		answer, _ := wire.ParseV1SA(get(list, wire.PayloadV1SA))
		k := o.kids[len(o.kids)-1]
		k.out, k.inKey = binary.BigEndian.Uint32(answer.Proposals[0].SPI), o.keymat(k.in, ni, nr)
		k.lifeSeconds, k.lifeKB = o.life(&answer.Proposals[0].Transforms[0])
		o.sealed(h.Exchange, h.MessageID, 0, wire.V1Payload{Type: wire.PayloadV1Hash, Body: o.prf(s.a, []byte{0}, id, ni, nr)})
		return
	}
	ni, nr := get(list, wire.PayloadV1Nonce), random(20)
	_, rest := wire.AppendV1Chain(nil, list[1:])
	if !bytes.Equal(list[0].Body, o.prf(s.a, id, rest)) {
		o.w.t.Error("HASH(1) is wrong")
	}
	s.qni[h.MessageID], s.qnr[h.MessageID] = ni, nr
	answer := o.chosen(get(list, wire.PayloadV1SA), func(t *wire.V1Transform) bool {
		a, _ := t.Attribute(wire.V1AttrESPAuth)
		k, _ := t.Attribute(wire.V1AttrESPKeyLength)
		return t.ID == 12 && a == 2 && k == 128
	})
	before := slices.Clone(o.kids)
	k := &oldChild{in: newSPI(), out: binary.BigEndian.Uint32(answer.Proposals[0].SPI)}
	k.inKey = o.keymat(k.in, ni, nr)
	k.lifeSeconds, k.lifeKB = o.life(&answer.Proposals[0].Transforms[0])
	o.kids = append(o.kids, k)
	answer.Proposals[0].SPI = spi4(k.in)
	out := []wire.V1Payload{answer.Payload(), {Type: wire.PayloadV1Nonce, Body: nr}}
	for _, p := range list {
		if p.Type == wire.PayloadV1ID {
			out = append(out, p)
		}
	}
	if o.seconds != 0 || o.kilobytes != 0 {
		out = append(out, o.responderLifetime(k).Payload())
	}
	var flags wire.Flags
	if o.commit {
		flags = wire.FlagV1Commit
	}
	o.hashed(h.Exchange, h.MessageID, flags, ni, out...)
	if o.deletesOld {
		for _, old := range before {
			o.deleteChild(old)
		}
	}
}

// responderLifetime is RFC 2407 §4.6.3.1.
func (o *oldPeer) responderLifetime(k *oldChild) wire.V1Notify {
	var b []byte
	add := func(unit uint16, n uint32) {
		b = binary.BigEndian.AppendUint16(b, 0x8000|wire.V1AttrESPLifeType)
		b = binary.BigEndian.AppendUint16(b, unit)
		b = binary.BigEndian.AppendUint16(b, wire.V1AttrESPLife)
		b = binary.BigEndian.AppendUint16(b, 4)
		b = binary.BigEndian.AppendUint32(b, n)
	}
	if o.seconds != 0 {
		add(1, o.seconds)
	}
	if o.kilobytes != 0 {
		add(2, o.kilobytes)
	}
	return wire.V1Notify{Protocol: wire.ProtocolESP, SPI: spi4(k.in), Type: wire.V1ResponderLifetime, Data: b}
}

// beginQuick has the peer ask for IPsec SAs, new ones or in the place of others.
func (o *oldPeer) beginQuick() {
	id := binary.BigEndian.Uint32(random(4)) | 1
	ni := random(20)
	o.sa.qni[id] = ni
	k := &oldChild{in: newSPI()}
	o.kids = append(o.kids, k)
	life := []wire.V1Attribute{wire.Basic16(4, 1)}
	if o.seconds != 0 {
		life = append(life, wire.Basic16(1, 1), wire.V1Attribute{Type: 2, Value: spi4(o.seconds)})
	}
	if o.kilobytes != 0 {
		life = append(life, wire.Basic16(1, 2), wire.V1Attribute{Type: 2, Value: spi4(o.kilobytes)})
	}
	p := wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{{Number: 1, Protocol: wire.ProtocolESP, SPI: spi4(k.in),
		Transforms: []wire.V1Transform{{Number: 1, ID: 12, Attributes: append(life, wire.Basic16(5, 2), wire.Basic16(6, 128))}}}}}
	o.hashed(wire.ExchangeV1QuickMode, id, 0, nil, p.Payload(), wire.V1Payload{Type: wire.PayloadV1Nonce, Body: ni}, subnetID(o.local), subnetID(o.rem))
}

func subnetID(s ipsec.Selector) wire.V1Payload {
	p, _ := s.Prefix()
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return wire.V1ID{Type: wire.IDV1IPv4AddrSubnet, Data: append(s.From.AsSlice(), mask...)}.Payload()
}
