package suite

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/mlkem"
	"errors"

	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
)

// NewKeyExchangeFrom is NewKeyExchange with a given secret, for known answers.
func NewKeyExchangeFrom(id TransformID, secret []byte) (KeyExchange, error) {
	curves := map[TransformID]ecdh.Curve{
		KEECP256: ecdh.P256(), KEECP384: ecdh.P384(), KEECP521: ecdh.P521(),
	}
	if curve := curves[id]; curve != nil {
		private, err := curve.NewPrivateKey(secret)
		if err != nil {
			return nil, err
		}
		return &ecdhExchange{private, private.PublicKey().Bytes()[1:]}, nil
	}
	if id == KECurve25519 {
		x := new(x25519Exchange)
		if len(secret) != len(x.secret) {
			return nil, errors.New("secret length")
		}
		copy(x.secret[:], secret)
		x.derive()
		return x, nil
	}
	if id == KECurve448 {
		x := new(x448Exchange)
		if len(secret) != len(x.secret) {
			return nil, errors.New("secret length")
		}
		copy(x.secret[:], secret)
		x.derive()
		return x, nil
	}
	return newMODPFrom(modpGroup(id), append(Key(nil), secret...))
}

// NewMLKEMFrom makes a key pair from FIPS 203's seed d || z.
func NewMLKEMFrom(id TransformID, seed []byte) (KeyExchange, error) {
	switch id {
	case KEMLKEM768:
		k, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			return nil, err
		}
		return &mlkemExchange{k, k.EncapsulationKey().Bytes(), mlkem.CiphertextSize768}, nil
	case KEMLKEM1024:
		k, err := mlkem.NewDecapsulationKey1024(seed)
		if err != nil {
			return nil, err
		}
		return &mlkemExchange{k, k.EncapsulationKey().Bytes(), mlkem.CiphertextSize1024}, nil
	}
	public, private := mlkem512.NewKeyFromSeed(seed)
	b := make([]byte, mlkem512.PublicKeySize)
	public.Pack(b)
	return &mlkemExchange{circl512{private}, b, mlkem512.CiphertextSize}, nil
}

// MODPPrime returns the constant of a group in hexadecimal.
func MODPPrime(id TransformID) string { return modpGroup(id).prime }

// PlainCBC makes the CBC that is used when Go's own cannot change its IV.
func PlainCBC(block cipher.Block, decrypt bool) interface {
	cipher.BlockMode
	SetIV([]byte)
} {
	return &plainCBC{block: block, decrypt: decrypt}
}

// KnownKeywords lists every accepted keyword with its transform.
func KnownKeywords() map[string]Transform {
	m := make(map[string]Transform)
	for _, k := range keywords {
		m[k.name] = k.t
	}
	return m
}
