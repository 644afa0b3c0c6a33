package sig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"
)

// Bounds of RSA keys: what is shorter can be factored; what is longer or has a
// larger exponent only costs time, here up to 3 ms a signature, and that on chains
// that nobody trusts yet. crypto/rsa has the same lower bound and crypto/tls the
// same upper one.
const (
	minRSABits           = 1024
	limitRSABits         = 8192
	limitRSAExponentBits = 31
)

// kind is a type of key as constraints name it.
type kind uint8

const (
	kindNone kind = iota
	kindAny
	kindRSA
	kindECDSA
	kindEd25519
	kindEd448
)

var kindNames = map[kind]string{kindAny: "pubkey", kindRSA: "rsa", kindECDSA: "ecdsa", kindEd25519: "ed25519", kindEd448: "ed448"}

func kindOf(pub crypto.PublicKey) (kind, int) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			return kindNone, 0
		}
		return kindRSA, k.N.BitLen()
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			return kindNone, 0
		}
		return kindECDSA, k.Curve.Params().BitSize
	case ed25519.PublicKey:
		return kindEd25519, 256
	case ed448.PublicKey:
		return kindEd448, 456
	}
	return kindNone, 0
}

// KeyKind names a key for people: "RSA", "ECDSA", "ED25519" or "ED448" ("unknown"
// for others) and its size in bits. RSA and ECDSA keys are pointers, Ed25519 and
// Ed448 (circl's) keys are not.
func KeyKind(pub crypto.PublicKey) (name string, bits int) {
	k, bits := kindOf(pub)
	switch k {
	case kindRSA:
		return "RSA", bits
	case kindECDSA:
		return "ECDSA", bits
	case kindEd25519:
		return "ED25519", bits
	case kindEd448:
		return "ED448", bits
	}
	return "unknown", 0
}

// CheckKey reports whether a key can verify signatures at all: a known type, an RSA
// modulus of 1024 to 8192 bits and an odd exponent from 3 to 2³¹-1, a point that
// lies on P-256, P-384 or P-521, the right length. The error is ErrKey.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch {
		case k == nil || k.N == nil || k.N.Sign() <= 0:
			return fmt.Errorf("%w: RSA without a modulus", ErrKey)
		case k.N.BitLen() < minRSABits || k.N.BitLen() > limitRSABits:
			return fmt.Errorf("%w: RSA modulus of %d bits, not %d to %d", ErrKey, k.N.BitLen(), minRSABits, limitRSABits)
		case k.N.Bit(0) == 0:
			return fmt.Errorf("%w: RSA modulus is even", ErrKey)
		case k.E < 3 || k.E&1 == 0 || uint64(k.E) >= 1<<limitRSAExponentBits:
			return fmt.Errorf("%w: RSA exponent %d", ErrKey, k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("%w: ECDSA on a curve other than P-256, P-384 and P-521", ErrKey)
		}
		// Making a key for ECDH checks the point, and refuses infinity.
		if _, err := k.ECDH(); err != nil {
			return fmt.Errorf("%w: ECDSA point is not on the curve", ErrKey)
		}
		return nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: Ed25519 key of %d bytes", ErrKey, len(k))
		}
		return nil
	case ed448.PublicKey:
		if len(k) != ed448.PublicKeySize {
			return fmt.Errorf("%w: Ed448 key of %d bytes", ErrKey, len(k))
		}
		return nil
	}
	return fmt.Errorf("%w: %T", ErrKey, pub)
}
