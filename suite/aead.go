package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"adit/suite/gcm"
)

// saltedAEAD is AES-GCM (RFC 4106), AES-GMAC (RFC 4543) or ChaCha20-Poly1305
// (RFC 7634): the nonce is 4 bytes of salt and the 8-byte explicit IV.
//
// The key is expanded, to ten times its size, by the first packet: an SA that
// carries nothing stays small. A sparse one expands it for every packet anew.
type saltedAEAD struct {
	aead    cipher.AEAD // nil before the first packet
	gcm     *gcm.AEAD   // instead of aead for AES with 16 bytes of ICV
	scratch []byte      // for parts that are not adjacent, and short tags
	key     [32]byte    // until it is expanded
	nonce   [12]byte    // salt | IV of the packet at hand
	keyLen  uint8
	icvLen  uint8
	chacha  bool
	gmac    bool // text is authenticated, not encrypted
	sparse  bool
}

const explicitIVLen = 8

func newAEAD(kind cipherKind, icv int, key, salt Key, sparse bool) (Cipher, error) {
	c := &saltedAEAD{icvLen: uint8(icv), keyLen: uint8(len(key)), gmac: kind == kindGMAC, chacha: kind == kindChaCha, sparse: sparse}
	copy(c.nonce[:], salt)
	copy(c.key[:], key)
	switch {
	case icv == 8:
		return &shortGCM{saltedAEAD: *c}, nil
	case kind == kindGCM && icv == fullTag && !sparse:
		return &batchGCM{saltedAEAD: *c}, nil
	}
	return c, nil
}

// expanded is the cipher with its key schedule. Lengths were checked when it was made.
func (c *saltedAEAD) expanded() cipher.AEAD {
	if c.aead != nil {
		return c.aead
	}
	key := c.key[:c.keyLen]
	var a cipher.AEAD
	var err error
	if c.chacha {
		a, err = chacha20poly1305.New(key)
	} else {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			tag := int(c.icvLen)
			if tag == 8 {
				tag = fullTag // Go has no tags under 12 bytes; they are cut from full ones here
			}
			a, err = cipher.NewGCMWithTagSize(block, tag)
		}
	}
	if err != nil {
		panic("suite: " + err.Error())
	}
	if !c.sparse {
		c.aead = a
		clear(key)
	}
	return a
}

// isGCM reports that package gcm does the work, else Go's or x/crypto's AEAD.
func (c *saltedAEAD) isGCM() bool { return !c.chacha && c.icvLen == fullTag }

// expandedGCM is expanded for isGCM. The caller calls doneGCM when the packet is done.
func (c *saltedAEAD) expandedGCM() *gcm.AEAD {
	if c.gcm != nil {
		return c.gcm
	}
	a, err := gcm.New(c.key[:c.keyLen])
	if err != nil {
		panic("suite: " + err.Error())
	}
	if !c.sparse {
		c.gcm = a
		clear(c.key[:])
	}
	return a
}

func (c *saltedAEAD) doneGCM(a *gcm.AEAD) {
	if c.sparse {
		a.Zero()
	}
}

// Zero forgets the key, except what Go's and x/crypto's ciphers hold.
func (c *saltedAEAD) Zero() {
	clear(c.key[:])
	if c.gcm != nil {
		c.gcm.Zero()
	}
}

func (c *saltedAEAD) IVLen() int  { return explicitIVLen }
func (c *saltedAEAD) ICVLen() int { return int(c.icvLen) }
func (c *saltedAEAD) Align() int  { return 1 }
func (c *saltedAEAD) AEAD() bool  { return true }

func (c *saltedAEAD) PutIV(iv []byte, counter uint64) { binary.BigEndian.PutUint64(iv, counter) }

func (c *saltedAEAD) Seal(aad, iv, text, icv, _ []byte) {
	if len(iv) != explicitIVLen || len(icv) != int(c.icvLen) {
		panic(badLengths)
	}
	copy(c.nonce[4:], iv)
	if c.isGCM() {
		a := c.expandedGCM()
		c.sealGCM(a, aad, iv, text, icv)
		c.doneGCM(a)
		return
	}
	if adjacent(text, icv) {
		c.expanded().Seal(text[:0], c.nonce[:], text, aad)
		return
	}
	c.scratch = grow(c.scratch, len(text)+len(icv))
	c.expanded().Seal(c.scratch[:0], c.nonce[:], text, aad)
	copy(text, c.scratch)
	copy(icv, c.scratch[len(text):])
}

func (c *saltedAEAD) Open(aad, iv, text, icv, _ []byte) bool {
	if len(iv) != explicitIVLen || len(icv) != int(c.icvLen) {
		return false
	}
	copy(c.nonce[4:], iv)
	if c.isGCM() {
		a := c.expandedGCM()
		ok := c.openGCM(a, aad, iv, text, icv)
		c.doneGCM(a)
		return ok
	}
	if adjacent(text, icv) {
		_, err := c.expanded().Open(text[:0], c.nonce[:], text[:len(text)+len(icv)], aad)
		return err == nil
	}
	c.scratch = grow(c.scratch, len(text)+len(icv))
	copy(c.scratch, text)
	copy(c.scratch[len(text):], icv)
	plain, err := c.expanded().Open(c.scratch[:0], c.nonce[:], c.scratch, aad)
	if err != nil {
		return false
	}
	copy(text, plain)
	return true
}

func (c *saltedAEAD) sealGCM(a *gcm.AEAD, aad, iv, text, icv []byte) {
	switch {
	case c.gmac:
		a.Seal(icv, c.nonce[:], c.gmacInput(aad, iv, text))
	case adjacent(text, icv):
		a.Seal(text[:len(text)+len(icv)], c.nonce[:], aad)
	default:
		c.scratch = grow(c.scratch, len(text)+len(icv))
		copy(c.scratch, text)
		a.Seal(c.scratch, c.nonce[:], aad)
		copy(text, c.scratch)
		copy(icv, c.scratch[len(text):])
	}
}

func (c *saltedAEAD) openGCM(a *gcm.AEAD, aad, iv, text, icv []byte) bool {
	switch {
	case c.gmac:
		return a.Open(icv, c.nonce[:], c.gmacInput(aad, iv, text))
	case adjacent(text, icv):
		return a.Open(text[:len(text)+len(icv)], c.nonce[:], aad)
	}
	c.scratch = grow(c.scratch, len(text)+len(icv))
	copy(c.scratch, text)
	copy(c.scratch[len(text):], icv)
	ok := a.Open(c.scratch, c.nonce[:], aad)
	if ok {
		copy(text, c.scratch)
	}
	return ok
}

// gmacInput is the authenticated data of GMAC (RFC 4543 §3.3) in one piece.
func (c *saltedAEAD) gmacInput(aad, iv, text []byte) []byte {
	if adjacent(aad, iv) && (len(text) == 0 || adjacent(iv, text)) {
		return aad[:len(aad)+len(iv)+len(text)]
	}
	c.scratch = grow(c.scratch, len(aad)+len(iv)+len(text))
	n := copy(c.scratch, aad)
	n += copy(c.scratch[n:], iv)
	copy(c.scratch[n:], text)
	return c.scratch
}

// batchGCM is AES-GCM with 16 bytes of ICV, which can do many packets at once.
type batchGCM struct{ saltedAEAD }

func (c *batchGCM) SealBatch(ps []BatchPacket) {
	c.salt(ps)
	c.expandedGCM().SealBatch(ps)
}

func (c *batchGCM) OpenBatch(ps []BatchPacket) (opened int) {
	c.salt(ps)
	return c.expandedGCM().OpenBatch(ps)
}

func (c *batchGCM) salt(ps []BatchPacket) {
	salt := [4]byte(c.nonce[:])
	for i := range ps {
		*(*[4]byte)(ps[i].Nonce[:]) = salt
	}
}

// shortGCM is AES-GCM with an 8-byte ICV, made from the 16-byte tag.
type shortGCM struct{ saltedAEAD }

const fullTag = 16

func (c *shortGCM) Seal(aad, iv, text, icv, _ []byte) {
	if len(iv) != explicitIVLen || len(icv) != int(c.icvLen) {
		panic(badLengths)
	}
	copy(c.nonce[4:], iv)
	c.scratch = grow(c.scratch, len(text)+fullTag)
	c.expanded().Seal(c.scratch[:0], c.nonce[:], text, aad)
	copy(text, c.scratch)
	copy(icv, c.scratch[len(text):])
}

// Open cannot ask Go to check a short tag. It adds the key stream to the
// ciphertext by sealing it, which gives the plaintext, and seals that to learn
// the right tag. The plaintext stays in the scratch space until the tag is right.
func (c *shortGCM) Open(aad, iv, text, icv, _ []byte) bool {
	if len(iv) != explicitIVLen || len(icv) != int(c.icvLen) {
		return false
	}
	copy(c.nonce[4:], iv)
	n := len(text) + fullTag
	c.scratch = grow(c.scratch, 2*n)
	plain, again := c.scratch[:n:n], c.scratch[n:]
	a := c.expanded()
	a.Seal(plain[:0], c.nonce[:], text, nil)
	a.Seal(again[:0], c.nonce[:], plain[:len(text)], aad)
	ok := subtle.ConstantTimeCompare(again[len(text):len(text)+int(c.icvLen)], icv) == 1
	if ok {
		copy(text, plain[:len(text)])
	}
	clear(plain)
	return ok
}
