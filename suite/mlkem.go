package suite

import (
	"crypto/mlkem"
	"crypto/rand"

	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
)

// ML-KEM (FIPS 203) in the KE payloads of IKEv2 (draft-ietf-ipsecme-ikev2-mlkem): the
// initiator's value is the encapsulation key, the responder's the ciphertext, the
// shared secret 32 bytes. Go's own code has 768 and 1024, circl the 512.

// decapsulator is the secret of either code.
type decapsulator interface {
	Decapsulate(ciphertext []byte) ([]byte, error)
}

// mlkemExchange is the initiator's half.
type mlkemExchange struct {
	secret decapsulator
	public []byte
	answer int // bytes of the ciphertext
}

func newMLKEM(id TransformID) (KeyExchange, error) {
	switch id {
	case KEMLKEM768:
		k, err := mlkem.GenerateKey768()
		if err != nil {
			return nil, err
		}
		return &mlkemExchange{k, k.EncapsulationKey().Bytes(), mlkem.CiphertextSize768}, nil
	case KEMLKEM1024:
		k, err := mlkem.GenerateKey1024()
		if err != nil {
			return nil, err
		}
		return &mlkemExchange{k, k.EncapsulationKey().Bytes(), mlkem.CiphertextSize1024}, nil
	}
	public, private, err := mlkem512.GenerateKeyPair(rand.Reader)
	if err != nil {
		return nil, err
	}
	b := make([]byte, mlkem512.PublicKeySize)
	public.Pack(b)
	return &mlkemExchange{circl512{private}, b, mlkem512.CiphertextSize}, nil
}

func (x *mlkemExchange) Public() []byte { return x.public }

// Shared decapsulates. A ciphertext of the right length never fails: a wrong one
// gives a secret that nobody else has (FIPS 203 §6.3), so that it is the integrity
// of the next message that tells.
func (x *mlkemExchange) Shared(ciphertext []byte) (Key, error) {
	if x.secret == nil {
		return nil, ErrKeyUsed
	}
	if len(ciphertext) != x.answer {
		return nil, ErrPublicValue
	}
	shared, err := x.secret.Decapsulate(ciphertext)
	if err != nil {
		return nil, ErrPublicValue
	}
	x.secret = nil
	return shared, nil
}

// circl512 gives ML-KEM-512 the shape of Go's own.
type circl512 struct{ k *mlkem512.PrivateKey }

func (s circl512) Decapsulate(ciphertext []byte) ([]byte, error) {
	shared := make([]byte, mlkem512.SharedKeySize)
	s.k.DecapsulateTo(shared, ciphertext)
	return shared, nil
}

// encapsulate is the responder's half. The encapsulation key passes the checks of
// FIPS 203 §7.2: its length, and that each coefficient is below the modulus.
func encapsulate(id TransformID, key []byte) (ciphertext []byte, shared Key, err error) {
	switch id {
	case KEMLKEM768:
		k, err := mlkem.NewEncapsulationKey768(key)
		if err != nil {
			return nil, nil, ErrPublicValue
		}
		s, c := k.Encapsulate()
		return c, s, nil
	case KEMLKEM1024:
		k, err := mlkem.NewEncapsulationKey1024(key)
		if err != nil {
			return nil, nil, ErrPublicValue
		}
		s, c := k.Encapsulate()
		return c, s, nil
	}
	var k mlkem512.PublicKey
	if err := k.Unpack(key); err != nil {
		return nil, nil, ErrPublicValue
	}
	seed := make(Key, mlkem512.EncapsulationSeedSize)
	defer seed.Zero()
	rand.Read(seed)
	ciphertext, shared = make([]byte, mlkem512.CiphertextSize), make(Key, mlkem512.SharedKeySize)
	k.EncapsulateTo(ciphertext, shared, seed)
	return ciphertext, shared, nil
}
