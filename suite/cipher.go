package suite

import (
	"errors"
	"fmt"

	"adit/suite/gcm"
)

// Cipher protects one direction of one SA: an AEAD cipher, or encryption and then
// a MAC (CBC, CTR or NULL with HMAC, XCBC or CMAC). ESP and the IKE Encrypted
// payload use it alike.
//
// A Cipher keeps scratch space and hash state, so that no call allocates; it
// serves one goroutine at a time. Slices passed to it escape: keep them in
// buffers that are on the heap anyway.
type Cipher interface {
	// IVLen is the length in bytes of the explicit IV on the wire.
	IVLen() int
	// ICVLen is the length in bytes of the integrity check value on the wire.
	ICVLen() int
	// Align is what the length of the text must be a multiple of: the block in
	// CBC (16, with 3DES 8), else 1. ESP's own alignment to 4 bytes (RFC 4303 §2.4) is not in it.
	Align() int
	// AEAD reports a combined-mode cipher, whose additional data in ESP holds
	// the whole extended sequence number (RFC 4106 §5) instead of a trailer.
	AEAD() bool
	// PutIV writes the IV of a packet. Counter modes write counter big-endian:
	// the caller guarantees that it never repeats under one key, in IKE over
	// fragments and retransmissions too. CBC writes an unpredictable IV
	// (RFC 3602 §3) and depends on nothing about counter.
	PutIV(iv []byte, counter uint64)
	// Seal encrypts text in place and writes icv. AEAD ciphers authenticate aad
	// and text, GMAC aad, iv and text; the MAC of the others covers aad, iv,
	// the ciphertext and trailer (the high half of an extended sequence number,
	// RFC 4303 §2.2.1), in this order. Adjacent iv, text and icv in one buffer
	// are fastest. It panics if a length is wrong.
	Seal(aad, iv, text, icv, trailer []byte)
	// Open checks icv in constant time and only then decrypts text in place. It
	// reports whether the packet is authentic; if not, what text holds is
	// unspecified, but never plaintext. Wrong lengths are not authentic.
	Open(aad, iv, text, icv, trailer []byte) bool
}

// Batch is what a Cipher is besides, if many packets in one call are faster than one
// by one: AES-GCM with 16 bytes of ICV.
type Batch interface {
	Cipher
	// SealBatch is Seal for packets whose text and room for the ICV are in Buf, and
	// whose IV, as it is on the wire, begins at Nonce[4]: what is before is the salt,
	// which the cipher writes. It panics if a Buf has no room for the ICV.
	SealBatch(ps []BatchPacket)
	// OpenBatch is Open likewise. It sets OK of each packet and returns how many are
	// authentic. The text of the others is zero.
	OpenBatch(ps []BatchPacket) (opened int)
}

// BatchPacket is one packet of a Batch.
type BatchPacket = gcm.Packet

// Errors of algorithms that adit does not have or cannot combine.
var (
	ErrUnsupported = errors.New("suite: unsupported algorithm")
	ErrKeyLength   = errors.New("suite: wrong key length")
	ErrNoIntegrity = errors.New("suite: encryption without integrity protection")
)

// cipherKind groups the encryption algorithms by construction.
type cipherKind uint8

const (
	kindNULL cipherKind = iota + 1
	kindCBC
	kind3DES // in CBC
	kindCTR
	kindGCM
	kindCCM
	kindGMAC
	kindChaCha
)

// cipherOf returns construction, ICV length (AEAD only), salt length (the part of
// the nonce that comes from KEYMAT, in bytes) and key length in bytes.
func cipherOf(encr Transform) (kind cipherKind, icv, salt, key int, err error) {
	switch encr.ID {
	case EncrNULL:
		kind = kindNULL
	case Encr3DESCBC:
		kind = kind3DES
	case EncrAESCBC:
		kind = kindCBC
	case EncrAESCTR:
		kind, salt = kindCTR, 4
	case EncrAESGCM8, EncrAESGCM12, EncrAESGCM16:
		kind, salt, icv = kindGCM, 4, 8+4*int(encr.ID-EncrAESGCM8)
	case EncrAESCCM8, EncrAESCCM12, EncrAESCCM16:
		kind, salt, icv = kindCCM, 3, 8+4*int(encr.ID-EncrAESCCM8)
	case EncrNULLAuthAESGMAC:
		kind, salt, icv = kindGMAC, 4, 16
	case EncrChaCha20Poly1305:
		kind, salt, icv = kindChaCha, 4, 16
	}
	switch {
	case encr.Type != TypeENCR || kind == 0:
		err = fmt.Errorf("%w: %s", ErrUnsupported, encr)
	case kind == kindNULL && encr.KeyBits == 0:
	case kind == kind3DES && encr.KeyBits == 0:
		key = 24
	case kind == kindChaCha && (encr.KeyBits == 0 || encr.KeyBits == 256):
		key = 32
	case kind != kindNULL && kind != kind3DES && kind != kindChaCha && (encr.KeyBits == 128 || encr.KeyBits == 192 || encr.KeyBits == 256):
		key = int(encr.KeyBits) / 8
	default:
		err = fmt.Errorf("%w: %s", ErrUnsupported, encr)
	}
	return kind, icv, salt, key, err
}

// KeyLengths returns how many bytes of KEYMAT (RFC 7296 §2.14, §2.17) the cipher
// and the integrity algorithm take. enc includes the salt that follows the key of
// counter modes: 4 bytes, for CCM 3 (RFC 3686 §5.1, RFC 4106 §8.1, RFC 4309 §7.1,
// RFC 7634 §2). integ is the zero Transform or NONE beside AEAD ciphers; encr is
// the zero Transform in AH.
func KeyLengths(encr, integ Transform) (enc, ing int, err error) {
	if encr != (Transform{}) {
		_, _, salt, key, err := cipherOf(encr)
		if err != nil {
			return 0, 0, err
		}
		enc = key + salt
	}
	if encr.AEAD() || integ == (Transform{}) || integ == (Transform{Type: TypeINTEG}) {
		if !encr.AEAD() {
			return 0, 0, ErrNoIntegrity
		}
		return enc, 0, nil
	}
	ing, _, err = integOf(integ)
	return enc, ing, err
}

// integOf returns key and ICV length of an integrity algorithm in bytes.
func integOf(integ Transform) (key, icv int, err error) {
	if integ.Type == TypeINTEG && integ.KeyBits == 0 {
		switch integ.ID {
		case IntegHMACMD5_96:
			return 16, 12, nil
		case IntegHMACSHA1_96:
			return 20, 12, nil
		case IntegAESXCBC96, IntegAESCMAC96:
			return 16, 12, nil
		case IntegHMACSHA2_256_128:
			return 32, 16, nil
		case IntegHMACSHA2_256_96:
			return 32, 12, nil
		case IntegHMACSHA2_384_192:
			return 48, 24, nil
		case IntegHMACSHA2_512_256:
			return 64, 32, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: %s", ErrUnsupported, integ)
}

// NewCipher returns the cipher of one direction. encKey is key and salt as
// KeyLengths counts them, integKey is empty for AEAD ciphers. The keys are
// copied or expanded: the caller zeroes its own.
func NewCipher(encr, integ Transform, encKey, integKey Key) (Cipher, error) {
	return newCipher(encr, integ, encKey, integKey, false)
}

// NewSparseCipher is NewCipher for who seals and opens little, as an IKE SA does:
// where it can it keeps the key alone, not what is expanded from it, which is
// slower by a microsecond a message and smaller by most of a kilobyte. Its Zero
// method, if it has one, forgets the key.
func NewSparseCipher(encr, integ Transform, encKey, integKey Key) (Cipher, error) {
	return newCipher(encr, integ, encKey, integKey, true)
}

func newCipher(encr, integ Transform, encKey, integKey Key, sparse bool) (Cipher, error) {
	enc, ing, err := KeyLengths(encr, integ)
	if err != nil {
		return nil, err
	}
	if encr == (Transform{}) {
		encr = Transform{Type: TypeENCR, ID: EncrNULL} // AH: a MAC alone
	}
	if len(encKey) != enc || len(integKey) != ing {
		return nil, fmt.Errorf("%w: %s with %d+%d bytes instead of %d+%d",
			ErrKeyLength, encr, len(encKey), len(integKey), enc, ing)
	}
	kind, icv, saltLen, keyLen, err := cipherOf(encr)
	if err != nil {
		return nil, err
	}
	key, salt := encKey[:keyLen], encKey[keyLen:keyLen+saltLen]
	switch kind {
	case kindGCM, kindGMAC, kindChaCha:
		return newAEAD(kind, icv, key, salt, sparse)
	case kindCCM:
		return newCCM(icv, key, salt)
	}
	return newMACCipher(kind, key, salt, integ, integKey)
}

// adjacent reports that b lies directly behind a in the same buffer.
func adjacent(a, b []byte) bool {
	return len(b) > 0 && cap(a) >= len(a)+len(b) && &a[:len(a)+1][len(a)] == &b[0]
}

// grow returns a slice of n bytes, b's array if it is large enough.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n, n+n/2)
	}
	return b[:n]
}

// badLengths is the panic of Seal: the caller broke the contract.
const badLengths = "suite: Seal with wrong lengths"
