package ikev2

import (
	"crypto/hmac"
	"encoding/binary"
	"slices"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// ikeKeys are the keys of one IKE SA (RFC 7296 §2.14).
type ikeKeys struct {
	prf suite.PRF
	// before opens repetitions of the request by which these keys replaced others
	// (RFC 9370 §2.2.2); nil from the next request on.
	before suite.Cipher
	// d derives the keys of Child SAs and of the next IKE SA.
	d suite.Key
	*setupKeys
	in, out suite.Cipher
	// sealed counts what out has sealed: the IV of counter modes, never repeated
	// under one key.
	sealed uint64
}

// setupKeys are those that only the set-up of an IKE SA needs. They are gone, and
// the pointer nil, as soon as both sides have proved themselves.
type setupKeys struct {
	// pi and pr are authenticated with the identities.
	pi, pr suite.Key
	// ai, ar, ei and er are kept only until the ciphers are made.
	ai, ar, ei, er suite.Key
}

func (k *setupKeys) wipe() {
	if k == nil {
		return
	}
	for _, key := range []suite.Key{k.pi, k.pr, k.ai, k.ar, k.ei, k.er} {
		key.Zero()
	}
}

// proved forgets what no message will be authenticated with any more.
func (k *ikeKeys) proved() {
	k.setupKeys.wipe()
	k.setupKeys = nil
	k.forgetBefore()
}

func (k *ikeKeys) forgetBefore() {
	zeroCipher(k.before)
	k.before = nil
}

func zeroCipher(c suite.Cipher) {
	if z, ok := c.(interface{ Zero() }); ok {
		z.Zero()
	}
}

// deriveIKE computes the keys of an IKE SA from SKEYSEED. It zeroes skeyseed.
func deriveIKE(sel suite.Selected, skeyseed suite.Key, ni, nr []byte, spiI, spiR uint64) (*ikeKeys, error) {
	defer skeyseed.Zero()
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return nil, err
	}
	enc, integ, err := sel.KeyLengths()
	if err != nil {
		return nil, err
	}
	seed := append(append([]byte(nil), ni...), nr...)
	seed = binary.BigEndian.AppendUint64(seed, spiI)
	seed = binary.BigEndian.AppendUint64(seed, spiR)
	p := prf.KeyLen()
	all := prf.Plus(skeyseed, seed, 3*p+2*enc+2*integ)
	defer all.Zero()
	take := func(n int) suite.Key {
		k := append(suite.Key(nil), all[:n]...)
		clear(all[:n])
		all = all[n:]
		return k
	}
	k := &ikeKeys{prf: prf, setupKeys: &setupKeys{}}
	k.d = take(p)
	k.ai, k.ar = take(integ), take(integ)
	k.ei, k.er = take(enc), take(enc)
	k.pi, k.pr = take(p), take(p)
	return k, nil
}

// arm makes the ciphers and zeroes the keys that went into them.
func (k *ikeKeys) arm(sel suite.Selected, initiator bool) error {
	ci, err := suite.NewSparseCipher(sel.Encr, sel.Integ, k.ei, k.ai)
	if err != nil {
		return err
	}
	cr, err := suite.NewSparseCipher(sel.Encr, sel.Integ, k.er, k.ar)
	if err != nil {
		return err
	}
	for _, key := range []suite.Key{k.ei, k.er, k.ai, k.ar} {
		key.Zero()
	}
	k.ei, k.er, k.ai, k.ar = nil, nil, nil, nil
	if k.out, k.in = ci, cr; !initiator {
		k.out, k.in = cr, ci
	}
	return nil
}

// wipe zeroes all that is ours; what Go's ciphers hold is out of reach.
func (k *ikeKeys) wipe() {
	if k == nil {
		return
	}
	k.d.Zero()
	k.setupKeys.wipe()
	for _, c := range []suite.Cipher{k.in, k.out, k.before} {
		zeroCipher(c)
	}
	*k = ikeKeys{prf: k.prf}
}

func (k *ikeKeys) export(sel suite.Selected, spiI, spiR uint64) *ike.IKEKeys {
	clone := func(b suite.Key) suite.Key { return append(suite.Key(nil), b...) }
	return &ike.IKEKeys{SPIi: spiI, SPIr: spiR, Encr: sel.Encr, Integ: sel.Integ, SKei: clone(k.ei), SKer: clone(k.er), SKai: clone(k.ai), SKar: clone(k.ar)}
}

// secrets are the shared secrets of one exchange: SK(0), SK(1) to SK(n) of its additional
// key exchanges in a row (RFC 9370 §2.2.4), and a fresh PPK (RFC 9867).
type secrets struct{ first, more, ppk suite.Key }

func (x secrets) zero() {
	x.ppk.Zero()
	x.first.Zero()
	x.more.Zero()
}

// freshD is what an exchange's keys come from: SK_d, with a fresh PPK prf+ (PPK, SK_d)
// (RFC 9867 §3.2). own: it is not k's, and to be zeroed.
func (k *ikeKeys) freshD(ppk suite.Key) (d suite.Key, own bool) {
	if len(ppk) == 0 {
		return k.d, false
	}
	return k.prf.Plus(ppk, k.d, len(k.d)), true
}

// rekeySeed is SKEYSEED of the IKE SA that replaces this one: prf(SK_d (old),
// SK(0) | Ni | Nr | SK(1) | … | SK(n)), with the old IKE SA's prf (RFC 7296 §2.18,
// RFC 9370 §2.2.4).
func (k *ikeKeys) rekeySeed(x secrets, ni, nr []byte) suite.Key {
	d, own := k.freshD(x.ppk)
	if own {
		defer d.Zero()
	}
	return k.prf.Sum(d, x.first, ni, nr, x.more)
}

// nextSeed is SKEYSEED(n) after an additional key exchange of a set-up:
// prf(SK_d(n-1), SK(n) | Ni | Nr) (RFC 9370 §2.2.2).
func (k *ikeKeys) nextSeed(shared suite.Key, ni, nr []byte) suite.Key {
	return k.prf.Sum(k.d, shared, ni, nr)
}

// childKeys are the keys of a Child SA's two directions (RFC 7296 §2.17).
type childKeys struct{ encI, intI, encR, intR suite.Key }

// deriveChild computes KEYMAT = prf+(SK_d, [SK(0) |] Ni | Nr [| SK(1) | … | SK(n)]).
func (k *ikeKeys) deriveChild(sel suite.Selected, x secrets, ni, nr []byte) (childKeys, error) {
	enc, integ, err := sel.KeyLengths()
	if err != nil {
		return childKeys{}, err
	}
	seed := make([]byte, 0, len(x.first)+len(ni)+len(nr)+len(x.more))
	seed = append(append(append(append(seed, x.first...), ni...), nr...), x.more...)
	d, own := k.freshD(x.ppk)
	all := k.prf.Plus(d, seed, 2*(enc+integ))
	if own {
		d.Zero()
	}
	clear(seed)
	cut := func(n int) suite.Key {
		key := all[:n:n]
		all = all[n:]
		return key
	}
	return childKeys{encI: cut(enc), intI: cut(integ), encR: cut(enc), intR: cut(integ)}, nil
}

// keyPad is what turns a shared secret into a key (RFC 7296 §2.15).
const keyPad = "Key Pad for IKEv2"

// covered is what the AUTH of one side covers beside its identity: its message of
// IKE_SA_INIT and the other's nonce (RFC 7296 §2.15), and IntAuth, which is empty
// without IKE_INTERMEDIATE (RFC 9242 §3.3.2).
type covered struct{ message, nonce, intAuth []byte }

// signedOctets are InitiatorSignedOctets or ResponderSignedOctets: the side's
// first message, the other's nonce, the MAC of its ID payload (RFC 7296 §2.15),
// and IntAuth.
func (k *ikeKeys) signedOctets(c covered, id *wire.ID, initiator bool) []byte {
	p := k.pi
	if !initiator {
		p = k.pr
	}
	maced := k.prf.Sum(p, id.AppendSigned(nil))
	return slices.Concat(c.message, c.nonce, maced, c.intAuth)
}

// eapAuth is the AUTH value of one side for the key of an EAP method, or for
// SK_pi or SK_pr where the method makes none (RFC 7296 §2.16).
func (k *ikeKeys) eapAuth(msk suite.Key, c covered, id *wire.ID, initiator bool) []byte {
	if len(msk) == 0 {
		if msk = k.pr; initiator {
			msk = k.pi
		}
	}
	return k.pskAuth(msk, c, id, initiator)
}

// pskAuth is the AUTH value of one side for a shared key (RFC 7296 §2.15).
func (k *ikeKeys) pskAuth(psk suite.Key, c covered, id *wire.ID, initiator bool) []byte {
	p := k.pi
	if !initiator {
		p = k.pr
	}
	maced := k.prf.Sum(p, id.AppendSigned(nil))
	padded := k.prf.Sum(psk, []byte(keyPad))
	defer padded.Zero()
	return k.prf.Sum(padded, c.message, c.nonce, maced, c.intAuth)
}

// pskMatches finds the key with which the peer's AUTH was made. Every key is
// tried, so that the time does not tell which one fits.
func (k *ikeKeys) pskMatches(psks []suite.Key, auth []byte, c covered, id *wire.ID, initiator bool) (found suite.Key) {
	for _, psk := range psks[:min(len(psks), limitPSKs)] {
		if hmac.Equal(k.pskAuth(psk, c, id, initiator), auth) && found == nil {
			found = psk
		}
	}
	return found
}
