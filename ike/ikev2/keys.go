package ikev2

import (
	"crypto/hmac"
	"encoding/binary"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// ikeKeys are the keys of one IKE SA (RFC 7296 §2.14).
type ikeKeys struct {
	prf suite.PRF
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
	for _, c := range []suite.Cipher{k.in, k.out} {
		if z, ok := c.(interface{ Zero() }); ok {
			z.Zero()
		}
	}
	*k = ikeKeys{prf: k.prf}
}

func (k *ikeKeys) export(sel suite.Selected, spiI, spiR uint64) *ike.IKEKeys {
	clone := func(b suite.Key) suite.Key { return append(suite.Key(nil), b...) }
	return &ike.IKEKeys{SPIi: spiI, SPIr: spiR, Encr: sel.Encr, Integ: sel.Integ, SKei: clone(k.ei), SKer: clone(k.er), SKai: clone(k.ai), SKar: clone(k.ar)}
}

// rekeySeed is SKEYSEED of the IKE SA that replaces this one: prf(SK_d (old),
// g^ir (new) | Ni | Nr), with the old IKE SA's prf (RFC 7296 §2.18).
func (k *ikeKeys) rekeySeed(shared suite.Key, ni, nr []byte) suite.Key {
	return k.prf.Sum(k.d, shared, ni, nr)
}

// childKeys are the keys of a Child SA's two directions (RFC 7296 §2.17).
type childKeys struct{ encI, intI, encR, intR suite.Key }

// deriveChild computes KEYMAT = prf+(SK_d, [g^ir |] Ni | Nr).
func (k *ikeKeys) deriveChild(sel suite.Selected, shared suite.Key, ni, nr []byte) (childKeys, error) {
	enc, integ, err := sel.KeyLengths()
	if err != nil {
		return childKeys{}, err
	}
	seed := make([]byte, 0, len(shared)+len(ni)+len(nr))
	seed = append(append(append(seed, shared...), ni...), nr...)
	all := k.prf.Plus(k.d, seed, 2*(enc+integ))
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

// signedOctets are InitiatorSignedOctets or ResponderSignedOctets: the side's
// first message, the other's nonce, and the MAC of its ID payload (RFC 7296 §2.15).
func (k *ikeKeys) signedOctets(message, nonce []byte, id *wire.ID, initiator bool) []byte {
	p := k.pi
	if !initiator {
		p = k.pr
	}
	maced := k.prf.Sum(p, id.AppendSigned(nil))
	out := make([]byte, 0, len(message)+len(nonce)+len(maced))
	return append(append(append(out, message...), nonce...), maced...)
}

// eapAuth is the AUTH value of one side for the key of an EAP method, or for
// SK_pi or SK_pr where the method makes none (RFC 7296 §2.16).
func (k *ikeKeys) eapAuth(msk suite.Key, message, nonce []byte, id *wire.ID, initiator bool) []byte {
	if len(msk) == 0 {
		if msk = k.pr; initiator {
			msk = k.pi
		}
	}
	return k.pskAuth(msk, message, nonce, id, initiator)
}

// pskAuth is the AUTH value of one side for a shared key (RFC 7296 §2.15):
// message is what that side sent in IKE_SA_INIT, nonce the other's.
func (k *ikeKeys) pskAuth(psk suite.Key, message, nonce []byte, id *wire.ID, initiator bool) []byte {
	p := k.pi
	if !initiator {
		p = k.pr
	}
	maced := k.prf.Sum(p, id.AppendSigned(nil))
	padded := k.prf.Sum(psk, []byte(keyPad))
	defer padded.Zero()
	return k.prf.Sum(padded, message, nonce, maced)
}

// pskMatches finds the key with which the peer's AUTH was made. Every key is
// tried, so that the time does not tell which one fits.
func (k *ikeKeys) pskMatches(psks []suite.Key, auth, message, nonce []byte, id *wire.ID, initiator bool) (found suite.Key) {
	for _, psk := range psks[:min(len(psks), limitPSKs)] {
		if hmac.Equal(k.pskAuth(psk, message, nonce, id, initiator), auth) && found == nil {
			found = psk
		}
	}
	return found
}
