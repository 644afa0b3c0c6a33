package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"
)

// saltedAEAD is AES-GCM (RFC 4106), AES-GMAC (RFC 4543) or ChaCha20-Poly1305
// (RFC 7634): the nonce is 4 bytes of salt and the 8-byte explicit IV.
//
// The key is expanded, to ten times its size, by the first packet: an SA that
// carries nothing stays small. A sparse one expands it for every packet anew.
type saltedAEAD struct {
	aead    cipher.AEAD // nil before the first packet
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
	if icv == 8 {
		return &shortGCM{saltedAEAD: *c}, nil
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

// Zero forgets a key that is still ours.
func (c *saltedAEAD) Zero() {
	if c.sparse || c.aead == nil {
		clear(c.key[:])
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
	if c.gmac {
		c.expanded().Seal(icv[:0], c.nonce[:], nil, c.gmacInput(aad, iv, text))
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
	if c.gmac {
		_, err := c.expanded().Open(nil, c.nonce[:], icv, c.gmacInput(aad, iv, text))
		return err == nil
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
