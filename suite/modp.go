package suite

import (
	"crypto/rand"
	"encoding/hex"

	"filippo.io/bigmod"
)

// modp is a MODP group: a safe prime in hexadecimal and the length in bytes of our
// secret exponents. In groups of safe primes exponents of twice the security
// strength suffice; these are the larger estimates of RFC 3526 §8.
type modp struct {
	prime    string
	exponent int
}

var modpGroups = map[TransformID]*modp{
	KEMODP1024: {prime1024, 32},
	KEMODP1536: {prime1536, 32},
	KEMODP2048: {prime2048, 40},
	KEMODP3072: {prime3072, 53},
	KEMODP4096: {prime4096, 60},
	KEMODP6144: {prime6144, 68},
	KEMODP8192: {prime8192, 78},
}

func modpGroup(id TransformID) *modp { return modpGroups[id] }

// modpExchange computes in constant time for a given group: bigmod's time depends
// on the lengths of modulus and exponent only.
type modpExchange struct {
	p      *bigmod.Modulus
	secret Key
	public []byte
}

func newMODP(g *modp) (KeyExchange, error) {
	secret := make(Key, g.exponent)
	rand.Read(secret)
	secret[0] |= 0x80 // never small, never zero
	return newMODPFrom(g, secret)
}

func newMODPFrom(g *modp, secret Key) (*modpExchange, error) {
	prime, err := hex.DecodeString(g.prime)
	if err != nil {
		return nil, err
	}
	p, err := bigmod.NewModulus(prime)
	if err != nil {
		return nil, err
	}
	two := bigmod.NewNat().SetUint(2).ExpandFor(p)
	public := bigmod.NewNat().Exp(two, secret, p).Bytes(p)
	return &modpExchange{p, secret, public}, nil
}

func (x *modpExchange) Public() []byte { return x.public }

// Shared refuses public values that are not of the prime's length, or 0, 1, p-1 or
// above (RFC 6989 §2.1). The result has the prime's length (RFC 7296 §2.14).
func (x *modpExchange) Shared(peer []byte) (Key, error) {
	if x.secret == nil {
		return nil, ErrKeyUsed
	}
	if len(peer) != x.p.Size() {
		return nil, ErrPublicValue
	}
	y, err := bigmod.NewNat().SetBytes(peer, x.p)
	if err != nil || y.IsZero()|y.IsOne()|y.IsMinusOne(x.p) != 0 {
		return nil, ErrPublicValue
	}
	shared := bigmod.NewNat().Exp(y, x.secret, x.p).Bytes(x.p)
	x.secret.Zero()
	x.secret = nil
	return shared, nil
}
