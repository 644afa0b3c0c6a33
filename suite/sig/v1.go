package sig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
)

// Signatures of IKEv1: HASH_I or HASH_R is signed as it is, without a hash of its own
// and for RSA without naming one (RFC 2409 §5.1, RFC 4754 §4).

// Methods of phase 1 (RFC 2409 appendix A, RFC 4754 §6).
const (
	V1RSA      uint16 = 3
	V1ECDSA256 uint16 = 9
	V1ECDSA384 uint16 = 10
	V1ECDSA521 uint16 = 11
)

// V1Method is the method that a key signs with in IKEv1, 0: none.
func V1Method(pub crypto.PublicKey) uint16 {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return V1RSA
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return V1ECDSA256
		case 384:
			return V1ECDSA384
		case 521:
			return V1ECDSA521
		}
	}
	return 0
}

// SignV1 signs the hash by the method.
func SignV1(key crypto.Signer, method uint16, hash []byte) ([]byte, error) {
	if m := V1Method(key.Public()); m == 0 || m != method {
		return nil, fmt.Errorf("%w: method %d of IKEv1", ErrWrongKey, method)
	}
	signature, err := key.Sign(rand.Reader, hash, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	if len(signature) == 0 {
		return nil, ErrEmpty
	}
	if k, ok := key.Public().(*ecdsa.PublicKey); ok {
		return rawFromDER(signature, (k.Curve.Params().BitSize+7)/8)
	}
	return signature, nil
}

// VerifyV1 checks a signature of the hash by the method.
func VerifyV1(pub crypto.PublicKey, method uint16, signature, hash []byte) error {
	if len(signature) == 0 {
		return ErrEmpty
	}
	if err := CheckKey(pub); err != nil {
		return err
	}
	if m := V1Method(pub); m == 0 || m != method {
		return fmt.Errorf("%w: method %d of IKEv1", ErrWrongKey, method)
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(k, crypto.Hash(0), hash, signature) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		der, err := derFromRaw(signature, (k.Curve.Params().BitSize+7)/8)
		if err == nil && ecdsa.VerifyASN1(k, hash, der) {
			return nil
		}
	}
	return fmt.Errorf("%w (method %d of IKEv1)", ErrSignature, method)
}
