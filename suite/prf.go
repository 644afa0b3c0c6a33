package suite

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// PRF is a pseudo-random function of IKE (RFC 7296 §2.13). It holds no key and no
// state; values compare with ==. The zero value is unusable.
type PRF struct{ id TransformID }

// NewPRF returns the function of a transform of type TypePRF.
func NewPRF(t Transform) (PRF, error) {
	if t.Type == TypePRF && t.KeyBits == 0 {
		switch t.ID {
		case PRFHMACMD5, PRFHMACSHA1, PRFAES128XCBC, PRFHMACSHA2_256, PRFHMACSHA2_384, PRFHMACSHA2_512, PRFAES128CMAC:
			return PRF{t.ID}, nil
		}
	}
	return PRF{}, fmt.Errorf("%w: %s", ErrUnsupported, t)
}

// Transform is what the function was made from.
func (f PRF) Transform() Transform { return Transform{Type: TypePRF, ID: f.id} }

// OutLen is the length of the output in bytes.
func (f PRF) OutLen() int {
	switch f.id {
	case PRFHMACMD5:
		return md5.Size
	case PRFHMACSHA1:
		return sha1.Size
	case PRFHMACSHA2_256:
		return sha256.Size
	case PRFHMACSHA2_384:
		return sha512.Size384
	case PRFHMACSHA2_512:
		return sha512.Size
	}
	return aesBlock
}

// KeyLen is the preferred key length in bytes: that of SK_d, SK_pi and SK_pr
// (RFC 7296 §2.13, §2.14). Sum takes keys of any length.
func (f PRF) KeyLen() int { return f.OutLen() }

// NonceKey is the key for SKEYSEED = prf(Ni | Nr, g^ir): both nonces, but only the
// first 64 bits of each for AES-XCBC and AES-CMAC (RFC 7296 §2.14).
func (f PRF) NonceKey(ni, nr []byte) Key {
	if f.id == PRFAES128XCBC || f.id == PRFAES128CMAC {
		ni, nr = ni[:min(8, len(ni))], nr[:min(8, len(nr))]
	}
	key := make(Key, 0, len(ni)+len(nr))
	return append(append(key, ni...), nr...)
}

// Sum is prf(key, data...), the parts of data taken as one string.
func (f PRF) Sum(key Key, data ...[]byte) Key {
	m := f.keyed(key)
	for _, d := range data {
		m.Write(d)
	}
	return m.Sum(make(Key, 0, f.OutLen()))
}

// Plus is the first n bytes of prf+(key, seed) (RFC 7296 §2.13). It panics if n is
// over 255 outputs, the limit of the construction; suites need far less.
func (f PRF) Plus(key Key, seed []byte, n int) Key {
	if n > 255*f.OutLen() {
		panic("suite: prf+ output too long")
	}
	m := f.keyed(key)
	out := make(Key, 0, n+f.OutLen())
	var last []byte
	for i := byte(1); len(out) < n; i++ {
		m.Reset()
		m.Write(last)
		m.Write(seed)
		m.Write([]byte{i})
		from := len(out)
		out = m.Sum(out)
		last = out[from:]
	}
	out[n:].Zero()
	return out[:n]
}

func (f PRF) keyed(key Key) mac {
	var h func() hash.Hash
	switch f.id {
	case PRFAES128XCBC, PRFAES128CMAC:
		return f.keyedAES(key)
	case PRFHMACMD5:
		h = md5.New
	case PRFHMACSHA1:
		h = sha1.New
	case PRFHMACSHA2_256:
		h = sha256.New
	case PRFHMACSHA2_384:
		h = sha512.New384
	case PRFHMACSHA2_512:
		h = sha512.New
	default:
		panic("suite: PRF not made by NewPRF")
	}
	return hmac.New(h, key)
}

// keyedAES brings keys of other lengths to 128 bits: XCBC pads short ones with
// zeros (RFC 4434 §2), else the key is its own MAC under a zero key (RFC 4434 §2,
// RFC 4615 §3).
func (f PRF) keyedAES(key Key) mac {
	make128 := newCMAC
	if f.id == PRFAES128XCBC {
		make128 = newXCBC
	}
	var k [aesBlock]byte
	switch {
	case len(key) == aesBlock, len(key) < aesBlock && f.id == PRFAES128XCBC:
		copy(k[:], key)
	default:
		m, _ := make128(make(Key, aesBlock)) // AES takes every 16-byte key
		m.Write(key)
		m.Sum(k[:0])
	}
	m, _ := make128(k[:])
	clear(k[:])
	return m
}
