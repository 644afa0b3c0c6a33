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
type saltedAEAD struct {
	aead    cipher.AEAD
	nonce   [12]byte // salt | IV of the packet at hand
	icvLen  int
	gmac    bool   // text is authenticated, not encrypted
	scratch []byte // for parts that are not adjacent, and short tags
}

const explicitIVLen = 8

func newAEAD(kind cipherKind, icv int, key, salt Key) (Cipher, error) {
	c := &saltedAEAD{icvLen: icv, gmac: kind == kindGMAC}
	copy(c.nonce[:], salt)
	var err error
	if kind == kindChaCha {
		c.aead, err = chacha20poly1305.New(key)
		return c, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	tag := icv
	if icv == 8 {
		tag = 16 // Go has no tags under 12 bytes; they are cut from full ones here
	}
	c.aead, err = cipher.NewGCMWithTagSize(block, tag)
	if icv == 8 && err == nil {
		return &shortGCM{saltedAEAD: *c}, nil
	}
	return c, err
}

func (c *saltedAEAD) IVLen() int  { return explicitIVLen }
func (c *saltedAEAD) ICVLen() int { return c.icvLen }
func (c *saltedAEAD) Align() int  { return 1 }
func (c *saltedAEAD) AEAD() bool  { return true }

func (c *saltedAEAD) PutIV(iv []byte, counter uint64) { binary.BigEndian.PutUint64(iv, counter) }

func (c *saltedAEAD) Seal(aad, iv, text, icv, _ []byte) {
	if len(iv) != explicitIVLen || len(icv) != c.icvLen {
		panic(badLengths)
	}
	copy(c.nonce[4:], iv)
	if c.gmac {
		c.aead.Seal(icv[:0], c.nonce[:], nil, c.gmacInput(aad, iv, text))
		return
	}
	if adjacent(text, icv) {
		c.aead.Seal(text[:0], c.nonce[:], text, aad)
		return
	}
	c.scratch = grow(c.scratch, len(text)+len(icv))
	c.aead.Seal(c.scratch[:0], c.nonce[:], text, aad)
	copy(text, c.scratch)
	copy(icv, c.scratch[len(text):])
}

func (c *saltedAEAD) Open(aad, iv, text, icv, _ []byte) bool {
	if len(iv) != explicitIVLen || len(icv) != c.icvLen {
		return false
	}
	copy(c.nonce[4:], iv)
	if c.gmac {
		_, err := c.aead.Open(nil, c.nonce[:], icv, c.gmacInput(aad, iv, text))
		return err == nil
	}
	if adjacent(text, icv) {
		_, err := c.aead.Open(text[:0], c.nonce[:], text[:len(text)+len(icv)], aad)
		return err == nil
	}
	c.scratch = grow(c.scratch, len(text)+len(icv))
	copy(c.scratch, text)
	copy(c.scratch[len(text):], icv)
	plain, err := c.aead.Open(c.scratch[:0], c.nonce[:], c.scratch, aad)
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
	if len(iv) != explicitIVLen || len(icv) != c.icvLen {
		panic(badLengths)
	}
	copy(c.nonce[4:], iv)
	c.scratch = grow(c.scratch, len(text)+fullTag)
	c.aead.Seal(c.scratch[:0], c.nonce[:], text, aad)
	copy(text, c.scratch)
	copy(icv, c.scratch[len(text):])
}

// Open cannot ask Go to check a short tag. It adds the key stream to the
// ciphertext by sealing it, which gives the plaintext, and seals that to learn
// the right tag. The plaintext stays in the scratch space until the tag is right.
func (c *shortGCM) Open(aad, iv, text, icv, _ []byte) bool {
	if len(iv) != explicitIVLen || len(icv) != c.icvLen {
		return false
	}
	copy(c.nonce[4:], iv)
	n := len(text) + fullTag
	c.scratch = grow(c.scratch, 2*n)
	plain, again := c.scratch[:n:n], c.scratch[n:]
	c.aead.Seal(plain[:0], c.nonce[:], text, nil)
	c.aead.Seal(again[:0], c.nonce[:], plain[:len(text)], aad)
	ok := subtle.ConstantTimeCompare(again[len(text):len(text)+c.icvLen], icv) == 1
	if ok {
		copy(text, plain[:len(text)])
	}
	clear(plain)
	return ok
}
