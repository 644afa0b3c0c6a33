package sig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Choice is how to sign: the authentication method of the AUTH payload and the
// scheme in it.
type Choice struct {
	Method uint8
	Scheme Scheme
}

// Choose lists how a key can sign for a peer, best first; an empty list means that
// the two have nothing in common. peer are the hash algorithms of the peer's
// SIGNATURE_HASH_ALGORITHMS, nil if it sent none: then only the methods from
// before RFC 7427 are left, RSA with SHA-1 and ECDSA on its curve, and Ed25519 and
// Ed448 have none. want are the configured IKE signature schemes (Constraints.IKE):
// they decide, in their order. Without them the hash follows the key's size, with
// longer ones after it, and RSA-PSS isn't used, as strongSwan does by default.
func Choose(pub crypto.PublicKey, peer []Hash, want []Constraint) []Choice {
	k, bits := kindOf(pub)
	if CheckKey(pub) != nil {
		return nil
	}
	var list []Choice
	add := func(method uint8, s Scheme) {
		c := Choice{method, s}
		if fits(pub, s) && !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	if peer == nil {
		for _, m := range []uint8{MethodRSA, MethodECDSA256, MethodECDSA384, MethodECDSA521} {
			if s := fixedSchemes[m]; s.kind() == k && (len(want) == 0 || permitted(want, s)) {
				add(m, s)
			}
		}
		return list
	}
	for _, s := range preferred(k, bits, want) {
		if slices.Contains(peer, s.Hash) && s.Hash != SHA1 {
			add(MethodSignature, s)
		}
	}
	return list
}

// preferred are the schemes of method 14 for a kind of key, best first.
func preferred(k kind, bits int, want []Constraint) []Scheme {
	var list []Scheme
	for _, c := range want {
		for _, a := range []Algorithm{RSAPKCS1, RSAPSS, ECDSA, Ed25519, Ed448} {
			s := Scheme{Algorithm: a, Hash: c.hash}
			if a == RSAPSS {
				s = PSS(c.hash)
			}
			if s.kind() == k && c.permits(s) {
				list = append(list, s)
			}
		}
	}
	if len(want) > 0 {
		return list
	}
	switch k {
	case kindRSA:
		order := []Hash{SHA256, SHA384, SHA512}
		if bits > 7680 {
			order = []Hash{SHA512, SHA384, SHA256}
		} else if bits > 3072 {
			order = []Hash{SHA384, SHA512, SHA256}
		}
		for _, h := range order {
			list = append(list, Scheme{Algorithm: RSAPKCS1, Hash: h})
		}
	case kindECDSA:
		for _, h := range []Hash{SHA256, SHA384, SHA512} {
			if 8*h.size() >= bits || h == SHA512 {
				list = append(list, Scheme{Algorithm: ECDSA, Hash: h})
			}
		}
	case kindEd25519:
		list = []Scheme{{Algorithm: Ed25519, Hash: Identity}}
	case kindEd448:
		list = []Scheme{{Algorithm: Ed448, Hash: Identity}}
	}
	return list
}

// fits reports whether a key can make signatures of a scheme: the type, a hash or,
// for Edwards curves, none, the room in RSA's modulus (RFC 8017 §9.1.1), the curve
// of the fixed methods (RFC 4754 §3).
func fits(pub crypto.PublicKey, s Scheme) bool {
	k, bits := kindOf(pub)
	if edwards := k == kindEd25519 || k == kindEd448; s.kind() != k || k == kindNone || edwards != (s.Hash == Identity) || edwards == (s.Hash.size() > 0) {
		return false
	}
	switch s.Algorithm {
	case RSAPSS:
		return s.Salt >= 0 && (bits-1+7)/8 >= s.Hash.size()+s.Salt+2
	case ECDSARaw:
		return map[int]Hash{256: SHA256, 384: SHA384, 521: SHA512}[bits] == s.Hash
	}
	return true
}

// Sign makes the AUTH data: the signature alone for the old methods, with its
// AlgorithmIdentifier before it for method 14. octets are what RFC 7296 §2.15 has
// signed. Signing costs up to milliseconds, with keys in hardware more. The errors
// are ErrWrongKey, ErrMethod, ErrAlgorithm and the key's own.
func Sign(key crypto.Signer, c Choice, octets []byte) ([]byte, error) {
	s := c.Scheme
	if fixed, ok := fixedSchemes[c.Method]; ok && fixed != s || !ok && c.Method != MethodSignature {
		return nil, fmt.Errorf("%w: %d with %v", ErrMethod, c.Method, s)
	}
	if !fits(key.Public(), s) {
		name, bits := KeyKind(key.Public())
		return nil, fmt.Errorf("%w: %v with %s-%d", ErrWrongKey, s, name, bits)
	}
	if c.Method == MethodSignature {
		if _, err := AppendAlgorithm(nil, s); err != nil {
			return nil, err
		}
	}
	var opts crypto.SignerOpts = hashes[s.Hash].fn
	if s.Algorithm == RSAPSS {
		if s.Salt == 0 {
			// crypto/rsa takes 0 for "as long as fits".
			return nil, fmt.Errorf("%w: no salt", ErrPSS)
		}
		opts = &rsa.PSSOptions{SaltLength: s.Salt, Hash: hashes[s.Hash].fn}
	}
	signature, err := key.Sign(rand.Reader, s.Hash.digest(octets), opts)
	if err != nil {
		return nil, err
	}
	if len(signature) == 0 {
		return nil, ErrEmpty
	}
	switch {
	case s.Algorithm == ECDSARaw:
		return rawFromDER(signature, (key.Public().(*ecdsa.PublicKey).Curve.Params().BitSize+7)/8)
	case c.Method == MethodSignature:
		return AppendAuth(nil, s, signature)
	}
	return signature, nil
}

// Verify checks the AUTH data of a peer against its key and returns the scheme
// that was used. allow are the permitted schemes (Constraints.IKE), all if empty;
// method 14 never allows SHA-1. Only a nil error means that the octets were signed
// by the key's owner. The errors wrap this package's reasons; a peer must not be
// told which.
func Verify(pub crypto.PublicKey, method uint8, authData, octets []byte, allow []Constraint) (Scheme, error) {
	s, fixed := fixedSchemes[method]
	signature := authData
	switch {
	case method == MethodSignature:
		var err error
		if s, signature, err = ParseAuth(authData); err != nil {
			return Scheme{}, err
		}
	case !fixed:
		return Scheme{}, fmt.Errorf("%w: %d", ErrMethod, method)
	case len(signature) == 0:
		return Scheme{}, ErrEmpty
	}
	if err := CheckKey(pub); err != nil {
		return Scheme{}, err
	}
	if !fits(pub, s) {
		name, bits := KeyKind(pub)
		if s.Algorithm == RSAPSS && name == "RSA" {
			return Scheme{}, fmt.Errorf("%w: a salt of %d bytes is too long for a key of %d bits", ErrPSS, s.Salt, bits)
		}
		return Scheme{}, fmt.Errorf("%w: %v with %s-%d", ErrWrongKey, s, name, bits)
	}
	if len(allow) > 0 && !permitted(allow, s) {
		return Scheme{}, fmt.Errorf("%w: IKE signature %v, wanted is %s", ErrConstraints, s, constraintList(allow))
	}
	if !verify(pub, s, signature, octets) {
		return Scheme{}, fmt.Errorf("%w (%v)", ErrSignature, s)
	}
	return s, nil
}

// verify runs the scheme; the key was checked and fits.
func verify(pub crypto.PublicKey, s Scheme, signature, octets []byte) bool {
	fn, digest := hashes[s.Hash].fn, s.Hash.digest(octets)
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch {
		case s.Algorithm == RSAPKCS1:
			return rsa.VerifyPKCS1v15(k, fn, digest, signature) == nil
		case s.Salt == 0:
			return verifySaltless(k, fn, digest, signature)
		}
		return rsa.VerifyPSS(k, fn, digest, signature, &rsa.PSSOptions{SaltLength: s.Salt, Hash: fn}) == nil
	case *ecdsa.PublicKey:
		if s.Algorithm == ECDSARaw {
			var err error
			if signature, err = derFromRaw(signature, (k.Curve.Params().BitSize+7)/8); err != nil {
				return false
			}
		}
		return ecdsa.VerifyASN1(k, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, octets, signature)
	case ed448.PublicKey:
		return ed448.Verify(k, octets, signature, "")
	}
	return false
}

// verifySaltless verifies RSA-PSS with an empty salt, where the encoded message is
// determined by the digest (RFC 8017 §9.1.2). crypto/rsa can't be asked for it: 0
// makes it accept any length. All values are public.
func verifySaltless(k *rsa.PublicKey, fn crypto.Hash, digest, signature []byte) bool {
	if len(signature) != k.Size() {
		return false
	}
	x := new(big.Int).SetBytes(signature)
	if x.Cmp(k.N) >= 0 {
		return false
	}
	x.Exp(x, big.NewInt(int64(k.E)), k.N)
	emBits := k.N.BitLen() - 1
	emLen := (emBits + 7) / 8
	h := fn.New()
	h.Write(make([]byte, 8))
	h.Write(digest)
	sum := h.Sum(nil)
	db := make([]byte, emLen-len(sum)-1)
	db[len(db)-1] = 1
	mask := make([]byte, 0, len(db)+fn.Size())
	for i := uint32(0); len(mask) < len(db); i++ {
		h.Reset()
		h.Write(sum)
		h.Write([]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
		mask = h.Sum(mask)
	}
	for i := range db {
		db[i] ^= mask[i]
	}
	db[0] &= 0xff >> (8*emLen - emBits)
	em := append(append(db, sum...), 0xbc)
	return new(big.Int).SetBytes(em).Cmp(x) == 0
}

var errInteger = errors.New("malformed ECDSA signature")

// rawFromDER turns SEQUENCE{r, s} into r|s of size bytes each (RFC 4754 §7).
func rawFromDER(der []byte, size int) ([]byte, error) {
	in := cryptobyte.String(der)
	var body cryptobyte.String
	r, s := new(big.Int), new(big.Int)
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() || !body.ReadASN1Integer(r) || !body.ReadASN1Integer(s) || !body.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*size || s.BitLen() > 8*size {
		return nil, errInteger
	}
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

func derFromRaw(raw []byte, size int) ([]byte, error) {
	if len(raw) != 2*size {
		return nil, errInteger
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 2*size+16))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:size]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[size:]))
	})
	return b.Bytes()
}
