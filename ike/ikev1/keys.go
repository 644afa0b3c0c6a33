package ikev1

import (
	"crypto/subtle"
	"encoding/binary"

	"adit/ipsec"
	"adit/suite"
)

// keys are those of one ISAKMP SA (RFC 2409 §5).
type keys struct {
	prf suite.PRF
	// skeyid authenticates phase 1 and is gone after it; d, a are SKEYID_d and SKEYID_a.
	skeyid, d, a suite.Key
	chain        suite.Chain
	// iv is that of the next message of phase 1; what it is when phase 1 ends begins
	// the chains of all other exchanges (RFC 2409 appendix B).
	iv []byte
}

// exchanged is what both sides have told each other in phase 1 before they prove
// themselves.
type exchanged struct {
	cookies        [16]byte // CKY-I | CKY-R
	publicI        []byte   // g^xi
	publicR        []byte   // g^xr
	nonceI, nonceR []byte   // Ni_b, Nr_b
}

func cookiePair(i, r uint64) (b [16]byte) {
	binary.BigEndian.PutUint64(b[:], i)
	binary.BigEndian.PutUint64(b[8:], r)
	return b
}

// skeyidPSK is SKEYID of a pre-shared key: prf(key, Ni_b | Nr_b).
func skeyidPSK(prf suite.PRF, psk suite.Key, x *exchanged) suite.Key {
	return prf.Sum(psk, x.nonceI, x.nonceR)
}

// skeyidSig is SKEYID of signatures: prf(Ni_b | Nr_b, g^xy).
func skeyidSig(prf suite.PRF, shared suite.Key, x *exchanged) suite.Key {
	return prf.Sum(append(append(suite.Key{}, x.nonceI...), x.nonceR...), shared)
}

// derive computes the keys from SKEYID, which it takes over (RFC 2409 §5).
func derive(sel suite.Selected, skeyid, shared suite.Key, x *exchanged) (*keys, error) {
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return nil, err
	}
	n, err := suite.ChainKeyLength(sel.Encr)
	if err != nil {
		return nil, err
	}
	k := &keys{prf: prf, skeyid: skeyid}
	k.d = prf.Sum(skeyid, shared, x.cookies[:], []byte{0})
	k.a = prf.Sum(skeyid, k.d, shared, x.cookies[:], []byte{1})
	e := prf.Sum(skeyid, k.a, shared, x.cookies[:], []byte{2})
	cipherKey := lengthen(prf, e, n)
	defer e.Zero()
	defer cipherKey.Zero()
	if k.chain, err = suite.NewChain(sel.Encr, cipherKey); err != nil {
		return nil, err
	}
	k.iv = prf.Hash(x.publicI, x.publicR)[:k.chain.BlockLen()]
	return k, nil
}

// lengthen makes the key of the cipher of SKEYID_e, which may be shorter: K1 =
// prf(SKEYID_e, 0), K2 = prf(SKEYID_e, K1) and so on (RFC 2409 appendix B).
func lengthen(prf suite.PRF, e suite.Key, n int) suite.Key {
	if len(e) >= n {
		return append(suite.Key{}, e[:n]...)
	}
	var out suite.Key
	block := suite.Key{0}
	for len(out) < n {
		block = prf.Sum(e, block)
		out = append(out, block...)
	}
	return out[:n]
}

func (k *keys) wipe() {
	if k == nil {
		return
	}
	for _, key := range []suite.Key{k.skeyid, k.d, k.a} {
		key.Zero()
	}
	k.skeyid, k.d, k.a = nil, nil, nil
}

// proved forgets what only phase 1 is authenticated by.
func (k *keys) proved() {
	k.skeyid.Zero()
	k.skeyid = nil
}

// phase1Hash is HASH_I, or HASH_R: prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b |
// IDii_b), with the two halves of each pair exchanged for the responder (RFC 2409 §5).
// prf is that of SKEYID but for ECDSA, whose methods name a hash (RFC 4754 §4).
func phase1Hash(prf suite.PRF, skeyid suite.Key, x *exchanged, sa, id []byte, initiator bool) []byte {
	first, second := x.publicI, x.publicR
	c := x.cookies
	if !initiator {
		first, second = second, first
		copy(c[:8], x.cookies[8:])
		copy(c[8:], x.cookies[:8])
	}
	return prf.Sum(skeyid, first, second, c[:], sa, id)
}

func messageID(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

// hash1 is HASH(1) of quick mode and informational exchanges, and of transactions:
// prf(SKEYID_a, M-ID | everything behind the HASH payload).
func (k *keys) hash1(id uint32, rest []byte) []byte { return k.prf.Sum(k.a, messageID(id), rest) }

// hash2 is HASH(2): prf(SKEYID_a, M-ID | Ni_b | everything behind the HASH payload).
func (k *keys) hash2(id uint32, ni, rest []byte) []byte {
	return k.prf.Sum(k.a, messageID(id), ni, rest)
}

// hash3 is HASH(3): prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b).
func (k *keys) hash3(id uint32, ni, nr []byte) []byte {
	return k.prf.Sum(k.a, []byte{0}, messageID(id), ni, nr)
}

// chainIV begins the chain of an exchange of phase 2: hash(last block of phase 1 | M-ID).
func (k *keys) chainIV(id uint32) []byte {
	return k.prf.Hash(k.iv, messageID(id))[:k.chain.BlockLen()]
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// keymat is KEYMAT of one direction: K1 = prf(SKEYID_d, [g(qm)^xy |] protocol | SPI |
// Ni_b | Nr_b), K2 = prf(SKEYID_d, K1 | the same) and so on; the encryption key comes
// first (RFC 2409 §5.5, RFC 2407 §4.4.3).
func (k *keys) keymat(sel suite.Selected, shared suite.Key, spi ipsec.SPI, ni, nr []byte) (enc, integ suite.Key, err error) {
	n, m, err := sel.KeyLengths()
	if err != nil {
		return nil, nil, err
	}
	seed := append([]byte{}, shared...)
	seed = append(seed, byte(sel.Protocol))
	seed = binary.BigEndian.AppendUint32(seed, uint32(spi))
	seed = append(append(seed, ni...), nr...)
	defer clear(seed)
	out := expand(k.prf, k.d, seed, n+m)
	return out[:n:n], out[n : n+m : n+m], nil
}

// expand is K1 | K2 | …, K1 = prf(key, seed), K2 = prf(key, K1 | seed), cut to n octets.
func expand(prf suite.PRF, key suite.Key, seed []byte, n int) suite.Key {
	var out, block suite.Key
	for len(out) < n {
		block = prf.Sum(key, block, seed)
		out = append(out, block...)
	}
	return out[:n:n]
}
