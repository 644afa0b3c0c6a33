package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// blockMAC is AES-XCBC-MAC (RFC 3566) or AES-CMAC (RFC 4493): a CBC-MAC whose last
// block is masked by one of two further keys.
type blockMAC struct {
	block       cipher.Block
	whole, part [aesBlock]byte // masks for a full and for a padded last block
	state       [aesBlock]byte
	last        [aesBlock]byte // the block not yet absorbed: it may be the last
	fill        int            // its bytes
}

// newXCBC derives K1, K2, K3 by encrypting constants (RFC 3566 §4.2).
func newXCBC(key Key) (*blockMAC, error) {
	outer, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	m := new(blockMAC)
	var k1 [aesBlock]byte
	for i := range aesBlock {
		k1[i], m.whole[i], m.part[i] = 1, 2, 3
	}
	outer.Encrypt(k1[:], k1[:])
	outer.Encrypt(m.whole[:], m.whole[:])
	outer.Encrypt(m.part[:], m.part[:])
	m.block, err = aes.NewCipher(k1[:])
	clear(k1[:])
	return m, err
}

// newCMAC derives K1 and K2 by doubling E(0) in GF(2^128) (RFC 4493 §2.3).
func newCMAC(key Key) (*blockMAC, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	m := &blockMAC{block: block}
	block.Encrypt(m.whole[:], m.whole[:])
	m.whole = double(m.whole)
	m.part = double(m.whole)
	return m, nil
}

func double(x [aesBlock]byte) (y [aesBlock]byte) {
	carry := x[0] >> 7
	for i := range aesBlock - 1 {
		y[i] = x[i]<<1 | x[i+1]>>7
	}
	y[aesBlock-1] = x[aesBlock-1]<<1 ^ carry*0x87
	return y
}

func (m *blockMAC) Reset() {
	m.fill = 0
	clear(m.state[:])
}

func (m *blockMAC) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if m.fill == aesBlock {
			m.absorb(m.last[:])
			m.fill = 0
		}
		if m.fill == 0 {
			for ; len(p) > aesBlock; p = p[aesBlock:] {
				m.absorb(p)
			}
		}
		k := copy(m.last[m.fill:], p)
		m.fill += k
		p = p[k:]
	}
	return n, nil
}

func (m *blockMAC) absorb(b []byte) {
	subtle.XORBytes(m.state[:], m.state[:], b[:aesBlock])
	m.block.Encrypt(m.state[:], m.state[:])
}

// Sum appends the 16-byte MAC. Reset must follow before more is written.
func (m *blockMAC) Sum(b []byte) []byte {
	mask := &m.whole
	if m.fill < aesBlock {
		mask = &m.part
		m.last[m.fill] = 0x80
		clear(m.last[m.fill+1:])
	}
	subtle.XORBytes(m.last[:], m.last[:], mask[:])
	m.absorb(m.last[:])
	return append(b, m.state[:]...)
}
