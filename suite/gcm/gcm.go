// Package gcm is AES-GCM (NIST SP 800-38D) for packets: in place, many in one call,
// at the speed of the machine.
//
// It owns the choice among its implementations: assembler for AVX-512 and for AVX2,
// both with VAES and VPCLMULQDQ, and Go's own crypto/cipher, which also takes what the
// others leave (keys of 192 bits, texts beyond 64 KiB). It must not know of ESP or IKE:
// nonces are the caller's, and must not repeat under a key.
//
// The assembler is generated (see _asm) and tested against crypto/cipher. Start reading
// at Packet and AEAD, then gcm_amd64.go, then _asm/main.go.
package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// Lengths in bytes.
const (
	NonceSize = 12
	TagSize   = 16
	// maxCall bounds text and additional data of one call into assembler, which cannot
	// be preempted: about 5 µs.
	maxCall = 64 << 10
)

// Packet is what is sealed or opened in place.
type Packet struct {
	// Buf is the text and, behind it, the tag or room for it.
	Buf []byte
	// AAD is authenticated, too. It must not overlap Buf.
	AAD []byte
	// Nonce is the salt and the explicit IV (RFC 4106 §4).
	Nonce [NonceSize]byte
	// OK is Open's verdict.
	OK bool
}

// work is what a packet counts of maxCall.
func (p *Packet) work() int { return len(p.Buf) + len(p.AAD) + 64 }

// AEAD is one key. One goroutine may use it at a time.
type AEAD struct {
	impl  Implementation
	ks    *schedule   // nil for "go"
	slow  cipher.AEAD // Go's, made when it is needed
	size  int         // of the key
	nonce [NonceSize]byte
}

var (
	errKeySize = errors.New("gcm: the key must have 16, 24 or 32 bytes")
	errRoom    = "gcm: no room for the tag"
)

// New returns the AEAD of a key of 16, 24 or 32 bytes, which is copied, by the
// implementation in use.
func New(key []byte) (*AEAD, error) { return inUse.New(key) }

// New is the package's New by a certain implementation.
func (i Implementation) New(key []byte) (*AEAD, error) {
	a := &AEAD{impl: i, size: len(key)}
	switch len(key) {
	case 16, 32:
	case 24:
		a.impl = goImpl
	default:
		return nil, errKeySize
	}
	if a.impl == goImpl {
		var err error
		a.slow, err = newSlow(key)
		return a, err
	}
	a.ks = new(schedule)
	a.ks.expand(key)
	return a, nil
}

func newSlow(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Implementation is a way to compute AES-GCM.
type Implementation struct{ kind uint8 }

const (
	kindGo uint8 = iota
	kindAVX2
	kindAVX512
	kindAVX512Alone // for small packets, too: for tests
)

var goImpl = Implementation{kindGo}

// String is "vaes-avx512", "vaes-avx2" or "go".
func (i Implementation) String() string {
	return [...]string{"go", "vaes-avx2", "vaes-avx512", "vaes-avx512 alone"}[i.kind]
}

var (
	available = append(detect(), goImpl)
	inUse     = available[0]
)

// Implementations are those that this machine can run, the fastest first; the last is Go's.
func Implementations() []Implementation { return append([]Implementation(nil), available...) }

// InUse is the implementation by which New works.
func InUse() Implementation { return inUse }

// Use makes New work by an implementation of Implementations. Call it at the start,
// before anything else of this package.
func Use(i Implementation) { inUse = i }

// Implementation is the one that this key has.
func (a *AEAD) Implementation() Implementation { return a.impl }

// Zero forgets the key, except what Go's cipher holds. Using the AEAD then panics.
func (a *AEAD) Zero() {
	if a.ks != nil {
		clear(a.ks[:])
	}
	a.ks, a.slow = nil, nil
}

// Seal encrypts the text in buf in place and writes the tag behind it, where buf has
// TagSize bytes for it. The nonce has NonceSize bytes. It panics if a length is wrong.
func (a *AEAD) Seal(buf, nonce, aad []byte) {
	if len(buf) < TagSize || len(nonce) != NonceSize {
		panic(errRoom)
	}
	if a.ks == nil || len(buf)+len(aad) > maxCall {
		a.slowly().Seal(buf[:0], nonce, buf[:len(buf)-TagSize], aad)
		return
	}
	p := Packet{Buf: buf, AAD: aad}
	p.setNonce(nonce)
	a.seal(&p, 1, p.work())
}

// Open checks the tag at the end of buf and decrypts the text before it in place. If it
// reports false, the text is zero.
func (a *AEAD) Open(buf, nonce, aad []byte) bool {
	if len(buf) < TagSize || len(nonce) != NonceSize {
		return false
	}
	if a.ks == nil || len(buf)+len(aad) > maxCall {
		_, err := a.slowly().Open(buf[:0], nonce, buf, aad)
		if err != nil {
			clear(buf[:len(buf)-TagSize]) // Go does, too, but does not promise it
		}
		return err == nil
	}
	p := Packet{Buf: buf, AAD: aad}
	p.setNonce(nonce)
	a.open(&p, 1, p.work())
	if !p.OK {
		clear(buf[:len(buf)-TagSize])
	}
	return p.OK
}

// setNonce writes in the pieces in which the assembler reads.
func (p *Packet) setNonce(nonce []byte) {
	binary.LittleEndian.PutUint32(p.Nonce[:], binary.LittleEndian.Uint32(nonce))
	binary.LittleEndian.PutUint64(p.Nonce[4:], binary.LittleEndian.Uint64(nonce[4:]))
}

// SealBatch is Seal for many packets.
func (a *AEAD) SealBatch(ps []Packet) {
	for i := range ps {
		if len(ps[i].Buf) < TagSize {
			panic(errRoom)
		}
	}
	for len(ps) > 0 {
		n, work := a.run(ps)
		if n > 0 {
			a.seal(&ps[0], n, work)
		} else {
			p := &ps[0]
			a.nonce = p.Nonce // an argument of an interface's method escapes
			a.slowly().Seal(p.Buf[:0], a.nonce[:], p.Buf[:len(p.Buf)-TagSize], p.AAD)
			n = 1
		}
		ps = ps[n:]
	}
}

// OpenBatch is Open for many packets: it sets OK of each, and returns how many are
// authentic.
func (a *AEAD) OpenBatch(ps []Packet) (opened int) {
	for len(ps) > 0 {
		n, work := a.run(ps)
		if n > 0 {
			a.open(&ps[0], n, work)
		} else {
			p := &ps[0]
			a.nonce = p.Nonce
			p.OK = a.Open(p.Buf, a.nonce[:], p.AAD)
			n = 1
		}
		for i := range n {
			if p := &ps[i]; p.OK {
				opened++
			} else {
				clear(p.Buf[:max(0, len(p.Buf)-TagSize)])
			}
		}
		ps = ps[n:]
	}
	return opened
}

// run is how many packets at the start of ps one call into assembler may take, and
// their work.
func (a *AEAD) run(ps []Packet) (n, work int) {
	if a.ks == nil {
		return 0, 0
	}
	for n < len(ps) && len(ps[n].Buf) >= TagSize {
		w := ps[n].work()
		if work+w > maxCall {
			break
		}
		work += w
		n++
	}
	return n, work
}

// slowly is Go's cipher. The first round keys are the key.
func (a *AEAD) slowly() cipher.AEAD {
	if a.slow == nil {
		var err error
		if a.slow, err = newSlow(a.ks[:a.size]); err != nil {
			panic("gcm: " + err.Error())
		}
	}
	return a.slow
}
