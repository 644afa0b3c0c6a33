package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

const aesBlock = aes.BlockSize

// ccm is AES-CCM (RFC 3610) as RFC 4309 uses it: a 3-byte salt, an 8-byte explicit
// IV and a 4-byte length and counter field.
type ccm struct {
	block  cipher.Block
	salt   [3]byte
	icvLen int

	ctr, mac, stream [aesBlock]byte // counter block, CBC-MAC state, key stream
	fill             int            // bytes of the current CBC-MAC block
}

func newCCM(icv int, key, salt Key) (Cipher, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c := &ccm{block: block, icvLen: icv}
	copy(c.salt[:], salt)
	return c, nil
}

func (c *ccm) IVLen() int  { return explicitIVLen }
func (c *ccm) ICVLen() int { return c.icvLen }
func (c *ccm) Align() int  { return 1 }
func (c *ccm) AEAD() bool  { return true }

func (c *ccm) PutIV(iv []byte, counter uint64) { binary.BigEndian.PutUint64(iv, counter) }

// begin sets up nonce, counter 0 and the MAC over B_0 and the additional data
// (RFC 3610 §2.2, with L = 4).
func (c *ccm) begin(aad, iv []byte, textLen int) {
	c.ctr = [aesBlock]byte{3}
	copy(c.ctr[1:], c.salt[:])
	copy(c.ctr[4:], iv)

	c.mac = c.ctr
	c.mac[0] = 3 | byte((c.icvLen-2)/2)<<3
	if len(aad) > 0 {
		c.mac[0] |= 1 << 6
	}
	binary.BigEndian.PutUint32(c.mac[12:], uint32(textLen))
	c.block.Encrypt(c.mac[:], c.mac[:])
	c.fill = 0
	if len(aad) > 0 {
		if n := len(aad); n < 0xFF00 {
			c.mac[0] ^= byte(n >> 8)
			c.mac[1] ^= byte(n)
			c.fill = 2
		} else { // 0xFFFE and four bytes
			c.mac[0] ^= 0xFF
			c.mac[1] ^= 0xFE
			c.mac[2] ^= byte(n >> 24)
			c.mac[3] ^= byte(n >> 16)
			c.mac[4] ^= byte(n >> 8)
			c.mac[5] ^= byte(n)
			c.fill = 6
		}
		c.absorb(aad)
		c.flush()
	}
}

// absorb runs b through the CBC-MAC.
func (c *ccm) absorb(b []byte) {
	for len(b) > 0 {
		n := subtle.XORBytes(c.mac[c.fill:], c.mac[c.fill:], b[:min(len(b), aesBlock-c.fill)])
		b = b[n:]
		if c.fill += n; c.fill == aesBlock {
			c.block.Encrypt(c.mac[:], c.mac[:])
			c.fill = 0
		}
	}
}

// flush ends a part: it is padded with zeros to a whole block.
func (c *ccm) flush() {
	if c.fill > 0 {
		c.block.Encrypt(c.mac[:], c.mac[:])
		c.fill = 0
	}
}

// crypt adds the key stream, from counter 1 on.
func (c *ccm) crypt(text []byte) {
	for n := uint32(1); len(text) > 0; n++ {
		binary.BigEndian.PutUint32(c.ctr[12:], n)
		c.block.Encrypt(c.stream[:], c.ctr[:])
		text = text[subtle.XORBytes(text, text, c.stream[:min(len(text), aesBlock)]):]
	}
}

// tag encrypts the MAC with counter 0 into c.mac.
func (c *ccm) tag() {
	binary.BigEndian.PutUint32(c.ctr[12:], 0)
	c.block.Encrypt(c.stream[:], c.ctr[:])
	subtle.XORBytes(c.mac[:], c.mac[:], c.stream[:])
}

func (c *ccm) Seal(aad, iv, text, icv, _ []byte) {
	if len(iv) != explicitIVLen || len(icv) != c.icvLen {
		panic(badLengths)
	}
	c.begin(aad, iv, len(text))
	c.absorb(text)
	c.flush()
	c.crypt(text)
	c.tag()
	copy(icv, c.mac[:])
}

// Open has to decrypt before it can check; it encrypts again what is not authentic.
func (c *ccm) Open(aad, iv, text, icv, _ []byte) bool {
	if len(iv) != explicitIVLen || len(icv) != c.icvLen {
		return false
	}
	c.begin(aad, iv, len(text))
	c.crypt(text)
	c.absorb(text)
	c.flush()
	c.tag()
	if subtle.ConstantTimeCompare(c.mac[:c.icvLen], icv) == 1 {
		return true
	}
	c.crypt(text)
	return false
}
