package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// mac is a keyed hash whose state is reused from packet to packet.
type mac interface {
	Reset()
	Write(p []byte) (int, error)
	Sum(b []byte) []byte
}

// macCipher encrypts with CBC, CTR or NULL and then authenticates (RFC 4303 §3.3.2).
type macCipher struct {
	kind   cipherKind
	icvLen int
	mac    mac
	sum    [sha512.Size]byte // where mac.Sum writes

	block cipher.Block
	cbc   cbcMode

	ctr, stream [aesBlock]byte // CTR: nonce | IV | counter, and its encryption

	ivBlock cipher.Block // CBC: makes IVs under a random key of its own
	ivCount uint64
}

// cbcMode is Go's CBC with its IV settable again and again.
type cbcMode struct{ enc, dec ivSetter }

type ivSetter interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newMACCipher(kind cipherKind, key, salt Key, integ Transform, integKey Key) (Cipher, error) {
	c := &macCipher{kind: kind}
	var err error
	if c.mac, c.icvLen, err = newMAC(integ, integKey); err != nil {
		return nil, err
	}
	if kind == kindNULL {
		return c, nil
	}
	if c.block, err = newBlock(kind, key); err != nil {
		return nil, err
	}
	copy(c.ctr[:], salt)
	if kind == kindCTR {
		return c, nil
	}
	zero := make([]byte, c.block.BlockSize())
	var encOK, decOK bool
	c.cbc.enc, encOK = cipher.NewCBCEncrypter(c.block, zero).(ivSetter)
	c.cbc.dec, decOK = cipher.NewCBCDecrypter(c.block, zero).(ivSetter)
	if !encOK || !decOK {
		c.cbc = cbcMode{&plainCBC{block: c.block}, &plainCBC{block: c.block, decrypt: true}}
	}
	var ivKey [16]byte
	rand.Read(ivKey[:])
	c.ivBlock, err = aes.NewCipher(ivKey[:])
	clear(ivKey[:])
	return c, err
}

// newBlock is the block cipher of a kind.
func newBlock(kind cipherKind, key Key) (cipher.Block, error) {
	if kind == kind3DES {
		return des.NewTripleDESCipher(key)
	}
	return aes.NewCipher(key)
}

// newMAC returns an integrity algorithm ready for reuse, and its ICV length.
func newMAC(integ Transform, key Key) (mac, int, error) {
	_, icv, err := integOf(integ)
	if err != nil {
		return nil, 0, err
	}
	var h func() hash.Hash
	switch integ.ID {
	case IntegAESXCBC96:
		m, err := newXCBC(key)
		return m, icv, err
	case IntegAESCMAC96:
		m, err := newCMAC(key)
		return m, icv, err
	case IntegHMACMD5_96:
		h = md5.New
	case IntegHMACSHA1_96:
		h = sha1.New
	case IntegHMACSHA2_256_128, IntegHMACSHA2_256_96:
		h = sha256.New
	case IntegHMACSHA2_384_192:
		h = sha512.New384
	case IntegHMACSHA2_512_256:
		h = sha512.New
	}
	m := hmac.New(h, key)
	m.Reset() // the first Reset saves the keyed state for all later ones
	return m, icv, nil
}

func (c *macCipher) IVLen() int {
	switch c.kind {
	case kindCBC, kind3DES:
		return c.block.BlockSize()
	case kindCTR:
		return explicitIVLen
	}
	return 0
}

func (c *macCipher) ICVLen() int { return c.icvLen }
func (c *macCipher) AEAD() bool  { return false }

func (c *macCipher) Align() int {
	if c.kind == kindCBC || c.kind == kind3DES {
		return c.block.BlockSize()
	}
	return 1
}

func (c *macCipher) PutIV(iv []byte, counter uint64) {
	switch c.kind {
	case kindCTR:
		binary.BigEndian.PutUint64(iv, counter)
	case kindCBC:
		// The encryption of a counter under a random key is unpredictable
		// (NIST SP 800-38A, appendix C). The own count keeps IVs apart even if
		// the caller's repeats.
		c.ivCount++
		binary.BigEndian.PutUint64(iv, c.ivCount)
		binary.BigEndian.PutUint64(iv[8:], counter)
		c.ivBlock.Encrypt(iv[:aesBlock], iv[:aesBlock])
	case kind3DES: // half of such a block: as good as random
		c.ivCount++
		binary.BigEndian.PutUint64(c.ctr[:], c.ivCount)
		binary.BigEndian.PutUint64(c.ctr[8:], counter)
		c.ivBlock.Encrypt(c.stream[:], c.ctr[:])
		copy(iv, c.stream[:des.BlockSize])
	}
}

func (c *macCipher) Seal(aad, iv, text, icv, trailer []byte) {
	if len(iv) != c.IVLen() || len(icv) != c.icvLen || len(text)%c.Align() != 0 {
		panic(badLengths)
	}
	switch c.kind {
	case kindCBC, kind3DES:
		c.cbc.enc.SetIV(iv)
		c.cbc.enc.CryptBlocks(text, text)
	case kindCTR:
		c.crypt(iv, text)
	}
	copy(icv, c.authenticate(aad, iv, text, trailer))
}

func (c *macCipher) Open(aad, iv, text, icv, trailer []byte) bool {
	if len(iv) != c.IVLen() || len(icv) != c.icvLen || len(text)%c.Align() != 0 {
		return false
	}
	if subtle.ConstantTimeCompare(c.authenticate(aad, iv, text, trailer)[:c.icvLen], icv) != 1 {
		return false
	}
	switch c.kind {
	case kindCBC, kind3DES:
		c.cbc.dec.SetIV(iv)
		c.cbc.dec.CryptBlocks(text, text)
	case kindCTR:
		c.crypt(iv, text)
	}
	return true
}

func (c *macCipher) authenticate(aad, iv, text, trailer []byte) []byte {
	c.mac.Reset()
	switch {
	case len(text) > 0 && (len(iv) == 0 && adjacent(aad, text) || adjacent(aad, iv) && adjacent(iv, text)):
		c.mac.Write(aad[:len(aad)+len(iv)+len(text)])
	default:
		c.mac.Write(aad)
		c.mac.Write(iv)
		c.mac.Write(text)
	}
	if len(trailer) > 0 {
		c.mac.Write(trailer)
	}
	return c.mac.Sum(c.sum[:0])
}

// crypt adds the AES-CTR key stream: the block counter starts at 1 (RFC 3686 §4).
func (c *macCipher) crypt(iv, text []byte) {
	copy(c.ctr[4:12], iv)
	for n := uint32(1); len(text) > 0; n++ {
		binary.BigEndian.PutUint32(c.ctr[12:], n)
		c.block.Encrypt(c.stream[:], c.ctr[:])
		text = text[subtle.XORBytes(text, text, c.stream[:min(len(text), aesBlock)]):]
	}
}

// plainCBC is CBC block by block, should Go's own one day have no SetIV.
type plainCBC struct {
	block    cipher.Block
	decrypt  bool
	iv, next [aesBlock]byte
}

func (c *plainCBC) BlockSize() int  { return c.block.BlockSize() }
func (c *plainCBC) SetIV(iv []byte) { copy(c.iv[:], iv) }

func (c *plainCBC) CryptBlocks(dst, src []byte) {
	n := c.block.BlockSize()
	for ; len(src) > 0; dst, src = dst[n:], src[n:] {
		if c.decrypt {
			copy(c.next[:], src[:n])
			c.block.Decrypt(dst, src)
			subtle.XORBytes(dst, dst[:n], c.iv[:])
			c.iv = c.next
			continue
		}
		subtle.XORBytes(c.iv[:], c.iv[:n], src)
		c.block.Encrypt(c.iv[:], c.iv[:])
		copy(dst, c.iv[:n])
	}
}
