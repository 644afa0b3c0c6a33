package ikev1

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// hashes are the hash algorithms of phase 1 (RFC 2409 appendix A, IANA), with the
// integrity algorithm that names them in a configuration and the PRF that they make.
var hashes = []struct {
	hash       uint64
	integ, prf suite.TransformID
}{
	{1, suite.IntegHMACMD5_96, suite.PRFHMACMD5},
	{2, suite.IntegHMACSHA1_96, suite.PRFHMACSHA1},
	{4, suite.IntegHMACSHA2_256_128, suite.PRFHMACSHA2_256},
	{5, suite.IntegHMACSHA2_384_192, suite.PRFHMACSHA2_384},
	{6, suite.IntegHMACSHA2_512_256, suite.PRFHMACSHA2_512},
}

// encrs are the ciphers of phase 1 (RFC 2409 appendix A, IANA). 3DES has no Key Length.
var encrs = map[uint64]suite.TransformID{5: suite.Encr3DESCBC, 7: suite.EncrAESCBC}

// defaultBits is the length of the key where none is said: some leave it out, for AES.
func defaultBits(id suite.TransformID) uint16 {
	if id == suite.EncrAESCBC {
		return 128
	}
	return 0
}

// lives of transforms, seconds and kilobytes.
const (
	lifeSeconds   = 1
	lifeKilobytes = 2
)

func lifeAttributes(kind, attr uint16, unit uint16, n uint64) []wire.V1Attribute {
	if n == 0 {
		return nil
	}
	n = min(n, 1<<32-1)
	v := wire.Basic16(attr, uint16(n))
	if n > 0xffff {
		v = wire.V1Attribute{Type: attr, Value: binary.BigEndian.AppendUint32(nil, uint32(n))}
	}
	return []wire.V1Attribute{wire.Basic16(kind, unit), v}
}

// phase1Offers are the transforms that the proposals come to: IKEv1 has no alternatives
// inside a transform, and no combined-mode ciphers in phase 1. sent are the same as
// suite proposals.
func phase1Offers(list []suite.Proposal, auths []wire.V1Auth, life time.Duration) (offers []wire.V1Transform, sent []suite.Proposal) {
	for _, p := range list {
		for _, e := range p.ByType(suite.TypeENCR) {
			for _, i := range p.ByType(suite.TypeINTEG) {
				for _, g := range p.ByType(suite.TypeKE) {
					for _, a := range auths {
						t, ok := phase1Transform(p, e, i, g, a, life)
						if !ok || len(offers) == limitOffered || !whole(p, phase1Suite(&t)) {
							continue
						}
						t.Number = uint8(len(offers) + 1)
						offers = append(offers, t)
						sent = append(sent, phase1Suite(&t))
					}
				}
			}
		}
	}
	return offers, sent
}

// whole reports whether what can be said in IKEv1 is all that the proposal demands: not
// where it wants additional key exchanges (RFC 9370), which IKEv1 doesn't have.
func whole(p, said suite.Proposal) bool { return contains([]suite.Proposal{p}, said) }

// contains reports whether a proposal is among those that are configured.
func contains(list []suite.Proposal, said suite.Proposal) bool {
	_, _, err := suite.Select(list, []suite.Proposal{said}, suite.SelectOptions{})
	return err == nil
}

// groupOf is a group as IKEv1 numbers it; ML-KEM, which is no Diffie-Hellman, is none.
func groupOf(n uint64) suite.TransformID {
	g := suite.TransformID(min(n, 0xffff))
	if g.PostQuantum() {
		return 0xffff
	}
	return g
}

func phase1Transform(p suite.Proposal, e, i, g suite.Transform, a wire.V1Auth, life time.Duration) (t wire.V1Transform, ok bool) {
	for _, h := range hashes {
		for number, encr := range encrs {
			if e.ID != encr || h.integ != i.ID || !p.Has(suite.Transform{Type: suite.TypePRF, ID: h.prf}) {
				continue
			}
			t = wire.V1Transform{ID: wire.V1KeyIKE, Attributes: []wire.V1Attribute{wire.Basic16(wire.V1AttrEncryption, uint16(number))}}
			if e.KeyBits != 0 {
				t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrKeyLength, e.KeyBits))
			}
			t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrHash, uint16(h.hash)), wire.Basic16(wire.V1AttrGroup, uint16(g.ID)), wire.Basic16(wire.V1AttrAuth, uint16(a)))
			t.Attributes = append(t.Attributes, lifeAttributes(wire.V1AttrLifeType, wire.V1AttrLife, lifeSeconds, uint64(life/time.Second))...)
			return t, true
		}
	}
	return t, false
}

// phase1Suite reads a transform of phase 1; what is not known there makes it unfit.
func phase1Suite(t *wire.V1Transform) suite.Proposal {
	p := suite.Proposal{Protocol: suite.IKE}
	get := func(kind uint16) uint64 { n, _ := t.Attribute(kind); return n }
	encr := suite.Transform{Type: suite.TypeENCR, ID: suite.TransformID(get(wire.V1AttrEncryption)), KeyBits: suite.KeyBitsUnknown}
	if id, ok := encrs[get(wire.V1AttrEncryption)]; ok && t.ID == wire.V1KeyIKE && get(wire.V1AttrPRF) == 0 {
		encr.ID, encr.KeyBits = id, uint16(min(get(wire.V1AttrKeyLength), 0xfffe))
		if encr.KeyBits == 0 {
			encr.KeyBits = defaultBits(id)
		}
	}
	p.Transforms = append(p.Transforms, encr)
	for _, h := range hashes {
		if h.hash == get(wire.V1AttrHash) {
			p.Transforms = append(p.Transforms, suite.Transform{Type: suite.TypeINTEG, ID: h.integ}, suite.Transform{Type: suite.TypePRF, ID: h.prf})
		}
	}
	p.Transforms = append(p.Transforms, suite.Transform{Type: suite.TypeKE, ID: groupOf(get(wire.V1AttrGroup))})
	return p
}

func authOf(t *wire.V1Transform) wire.V1Auth {
	n, _ := t.Attribute(wire.V1AttrAuth)
	return wire.V1Auth(min(n, 0xffff))
}

// espIDs are the ESP transform identifiers that differ from those of IKEv2 (RFC 2407
// §4.4.4, IANA); the others have the same numbers.
var espIDs = map[uint8]suite.TransformID{
	3: suite.Encr3DESCBC, 11: suite.EncrNULL, 12: suite.EncrAESCBC, 13: suite.EncrAESCTR, 14: suite.EncrAESCCM8, 15: suite.EncrAESCCM12, 16: suite.EncrAESCCM16,
	18: suite.EncrAESGCM8, 19: suite.EncrAESGCM12, 20: suite.EncrAESGCM16, 23: suite.EncrNULLAuthAESGMAC,
}

// espAuth are the authentication algorithms of phase 2 (RFC 2407 §4.5, IANA).
var espAuth = map[uint64]suite.TransformID{1: suite.IntegHMACMD5_96, 2: suite.IntegHMACSHA1_96, 5: suite.IntegHMACSHA2_256_128, 6: suite.IntegHMACSHA2_384_192, 7: suite.IntegHMACSHA2_512_256, 9: suite.IntegAESXCBC96}

// phase2 is what the transforms of one quick mode have in common.
type phase2 struct {
	mode      uint16
	group     suite.TransformID
	life      time.Duration
	lifeBytes uint64
}

func (v phase2) transform(e, i suite.Transform, esn bool) (t wire.V1Transform, ok bool) {
	for id, known := range espIDs {
		if known == e.ID {
			t.ID, ok = id, true
		}
	}
	auth := uint64(0)
	for n, known := range espAuth {
		if i.Type == suite.TypeINTEG && known == i.ID {
			auth = n
		}
	}
	if !ok || auth == 0 && !e.AEAD() {
		return t, false
	}
	t.Attributes = append(lifeAttributes(wire.V1AttrESPLifeType, wire.V1AttrESPLife, lifeSeconds, uint64(v.life/time.Second)),
		lifeAttributes(wire.V1AttrESPLifeType, wire.V1AttrESPLife, lifeKilobytes, v.lifeBytes/1024)...)
	t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrESPMode, v.mode))
	if auth != 0 {
		t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrESPAuth, uint16(auth)))
	}
	if e.KeyBits != 0 {
		t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrESPKeyLength, e.KeyBits))
	}
	if v.group != suite.KENone {
		t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrESPGroup, uint16(v.group)))
	}
	if esn {
		t.Attributes = append(t.Attributes, wire.Basic16(wire.V1AttrESPESN, 1))
	}
	return t, true
}

// offers are the transforms that the proposals come to.
func (v phase2) offers(list []suite.Proposal) (offers []wire.V1Transform, sent []suite.Proposal) {
	for _, p := range list {
		if ke := p.ByType(suite.TypeKE); v.group != suite.KENone && !p.Has(suite.Transform{Type: suite.TypeKE, ID: v.group}) || v.group == suite.KENone && len(ke) > 0 && !p.Has(suite.Transform{Type: suite.TypeKE}) {
			continue
		}
		integs := p.ByType(suite.TypeINTEG)
		if len(integs) == 0 {
			integs = []suite.Transform{{}}
		}
		esn := !p.Has(suite.Transform{Type: suite.TypeSN, ID: suite.SNNone}) && p.Has(suite.Transform{Type: suite.TypeSN, ID: suite.SNESN})
		for _, e := range p.ByType(suite.TypeENCR) {
			for _, i := range integs {
				if t, ok := v.transform(e, i, esn); ok && len(offers) < limitOffered && whole(p, phase2Suite(&t)) {
					t.Number = uint8(len(offers) + 1)
					offers = append(offers, t)
					sent = append(sent, phase2Suite(&t))
				}
			}
		}
	}
	return offers, sent
}

// phase2Suite reads a transform of ESP; what is not known there makes it unfit.
func phase2Suite(t *wire.V1Transform) suite.Proposal {
	p := suite.Proposal{Protocol: suite.ESP}
	get := func(kind uint16) uint64 { n, _ := t.Attribute(kind); return n }
	encr := suite.Transform{Type: suite.TypeENCR, ID: suite.TransformID(t.ID), KeyBits: suite.KeyBitsUnknown}
	if id, ok := espIDs[t.ID]; ok {
		encr.ID, encr.KeyBits = id, uint16(min(get(wire.V1AttrESPKeyLength), 0xfffe))
		if encr.KeyBits == 0 {
			encr.KeyBits = defaultBits(id)
		}
	}
	p.Transforms = append(p.Transforms, encr)
	if n := get(wire.V1AttrESPAuth); n != 0 {
		id, ok := espAuth[n]
		if !ok {
			id = suite.TransformID(0xff00 + n&0xff)
		}
		p.Transforms = append(p.Transforms, suite.Transform{Type: suite.TypeINTEG, ID: id})
	}
	if g := get(wire.V1AttrESPGroup); g != 0 {
		p.Transforms = append(p.Transforms, suite.Transform{Type: suite.TypeKE, ID: groupOf(g)})
	}
	sn := suite.SNNone
	if get(wire.V1AttrESPESN) == 1 {
		sn = suite.SNESN
	}
	p.Transforms = append(p.Transforms, suite.Transform{Type: suite.TypeSN, ID: sn})
	return p
}

// lifeOf reads the lifetimes of a transform, whose attributes come in pairs.
func lifeOf(t *wire.V1Transform, kind, attr uint16) (seconds time.Duration, bytes uint64) {
	unit := uint64(0)
	for _, a := range t.Attributes {
		n, ok := a.Uint()
		switch {
		case a.Type == kind:
			unit = n
		case a.Type == attr && ok && unit == lifeSeconds:
			seconds = time.Duration(min(n, 1<<32)) * time.Second
		case a.Type == attr && ok && unit == lifeKilobytes:
			bytes = min(n, 1<<50) * 1024
		}
	}
	return seconds, bytes
}

// modeOf reads the encapsulation mode; false: it is none that is known, or in UDP
// where that was not found to be needed.
func modeOf(t *wire.V1Transform) (ipsec.Mode, bool) {
	switch n, _ := t.Attribute(wire.V1AttrESPMode); n {
	case modeTunnel, modeUDPTunnel, modeUDPTunnelDraft, 0:
		return ipsec.ModeTunnel, true
	case modeTransport, modeUDPTransport, modeUDPTransportDraft:
		return ipsec.ModeTransport, true
	}
	return 0, false
}

// modeNumber is the mode as it is said to the peer.
func (s *sa) modeNumber(m ipsec.Mode) uint16 {
	n := uint16(modeTunnel)
	if m == ipsec.ModeTransport {
		n = modeTransport
	}
	switch {
	case !s.nat.encap():
		return n
	case s.caps.natT == natDraft:
		return n + modeUDPTunnelDraft - modeTunnel
	}
	return n + modeUDPTunnel - modeTunnel
}

// selectorID is a traffic selector as an ID payload (RFC 2407 §4.6.2.1).
func selectorID(t ipsec.Selector) wire.V1ID {
	id := wire.V1ID{Protocol: t.Proto}
	if t.PortFrom == t.PortTo {
		id.Port = t.PortFrom
	}
	v6 := t.From.Is6()
	pick := func(four, six wire.IDType) wire.IDType {
		if v6 {
			return six
		}
		return four
	}
	switch p, ok := t.Prefix(); {
	case t.From == t.To:
		id.Type, id.Data = pick(wire.IDIPv4Addr, wire.IDIPv6Addr), t.From.AsSlice()
	case ok:
		mask := make([]byte, len(t.From.AsSlice()))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		id.Type, id.Data = pick(wire.IDV1IPv4AddrSubnet, wire.IDV1IPv6AddrSubnet), append(t.From.AsSlice(), mask...)
	default:
		id.Type, id.Data = pick(wire.IDV1IPv4AddrRange, wire.IDV1IPv6AddrRange), append(t.From.AsSlice(), t.To.AsSlice()...)
	}
	return id
}

// selectorOf reads an ID payload of quick mode; false: it names no addresses.
func selectorOf(id wire.V1ID) (t ipsec.Selector, ok bool) {
	t = ipsec.Selector{Proto: id.Protocol, PortFrom: id.Port, PortTo: id.Port}
	if id.Port == 0 {
		t.PortTo = 65535
	}
	size, pair := 4, true
	switch id.Type {
	case wire.IDIPv4Addr:
		pair = false
	case wire.IDIPv6Addr:
		size, pair = 16, false
	case wire.IDV1IPv4AddrSubnet, wire.IDV1IPv4AddrRange:
	case wire.IDV1IPv6AddrSubnet, wire.IDV1IPv6AddrRange:
		size = 16
	default:
		return t, false
	}
	if len(id.Data) != size && !pair || len(id.Data) != 2*size && pair {
		return t, false
	}
	from, to := append([]byte(nil), id.Data[:size]...), append([]byte(nil), id.Data[len(id.Data)-size:]...)
	if id.Type == wire.IDV1IPv4AddrSubnet || id.Type == wire.IDV1IPv6AddrSubnet {
		mask := to
		to = make([]byte, size)
		for i := range mask {
			from[i] &= mask[i]
			to[i] = from[i] | ^mask[i]
		}
	}
	t.From, t.To = addrOf(from), addrOf(to)
	return t, t.Valid() && !t.IsDynamic()
}

func identityBody(id ike.Identity) []byte {
	return wire.V1ID{Type: wire.IDType(id.Type), Data: []byte(id.Data)}.Payload().Body
}

// identity reads an ID payload of phase 1.
func identity(body []byte) (ike.Identity, bool) {
	id, err := wire.ParseV1ID(body)
	if err != nil || len(id.Data) > limitIdentity {
		return ike.Identity{}, false
	}
	return ike.Identity{Type: uint8(id.Type), Data: string(id.Data)}, true
}

// noProposal is the record of proposals that do not meet.
func noProposal(err error, ours, theirs []suite.Proposal) *ike.Rejection {
	r := &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailTransform, Notify: wire.V1NoProposalChosen.String(), Ours: proposalText(ours), Theirs: proposalText(theirs), Difference: err.Error()}
	var none *suite.NoProposalError
	if errors.As(err, &none) && none.Type == suite.TypeKE {
		r.Detail = ike.DetailGroup
	}
	return r
}

func proposalText(list []suite.Proposal) string {
	var texts []string
	for i, p := range list {
		if i == 8 {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

func selectorList(list []ipsec.Selector) string {
	var texts []string
	for i, t := range list {
		if i == 8 {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, t.String())
	}
	return strings.Join(texts, " ")
}
