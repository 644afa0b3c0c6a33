package ikev1

import (
	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Derived is what the tests of key derivation look at.
type Derived struct{ SKEYID, D, A, E, Key, IV []byte }

// Derive computes the keys of phase 1 as the exchanges do.
func Derive(sel suite.Selected, psk, shared []byte, cookies [16]byte, publicI, publicR, ni, nr []byte) (Derived, error) {
	x := &exchanged{cookies: cookies, publicI: publicI, publicR: publicR, nonceI: ni, nonceR: nr}
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return Derived{}, err
	}
	skeyid := skeyidSig(prf, shared, x)
	if psk != nil {
		skeyid = skeyidPSK(prf, psk, x)
	}
	k, err := derive(sel, skeyid, shared, x)
	if err != nil {
		return Derived{}, err
	}
	e := prf.Sum(skeyid, k.a, shared, cookies[:], []byte{2})
	return Derived{SKEYID: k.skeyid, D: k.d, A: k.a, E: e, Key: lengthen(prf, e, int(sel.Encr.KeyBits)/8), IV: k.iv}, nil
}

// Lengthen and Expand make longer keys of shorter ones.
var Lengthen, Expand = lengthen, expand

// Keymat is the keys of one direction of a quick mode.
func Keymat(prf suite.Transform, d, shared suite.Key, sel suite.Selected, spi ipsec.SPI, ni, nr []byte) (enc, integ suite.Key, err error) {
	f, err := suite.NewPRF(prf)
	if err != nil {
		return nil, nil, err
	}
	k := &keys{prf: f, d: d}
	return k.keymat(sel, shared, spi, ni, nr)
}

// Usable reports whether the SA can protect a message.
func Usable(v ike.SA) bool { s := v.(*sa); return s.phase == phaseEstablished && s.keys != nil }

// Inner lets a fuzz test write what only protection lets in: a message of phase 2 with
// a right hash from the SA's own keys, as bytes.
func Inner(v ike.SA, kind uint8, id uint32, first uint8, rest []byte) []byte {
	return innerOf(v.(*sa), kind, id, first, rest)
}

func innerOf(s *sa, kind uint8, id uint32, first uint8, rest []byte) []byte {
	hash := s.keys.hash1(id, rest)
	if x := s.exchange(id); x != nil && x.quick != nil {
		hash = s.keys.hash2(id, x.quick.ni, rest)
	}
	text := append([]byte{first, 0, 0, byte(4 + len(hash))}, hash...)
	text = append(text, rest...)
	for len(text)%s.keys.chain.BlockLen() != 0 {
		text = append(text, 0)
	}
	iv := s.keys.chainIV(id)
	if x := s.exchange(id); x != nil {
		iv = x.iv
	}
	s.keys.chain.Encrypt(iv, text)
	h := s.header(&exchange{id: id, kind: wire.ExchangeType(kind)})
	h.Flags |= wire.FlagV1Encryption
	h.NextPayload = wire.PayloadV1Hash
	h.Length = uint32(wire.HeaderLen + len(text))
	return append(h.Append(nil), text...)
}
