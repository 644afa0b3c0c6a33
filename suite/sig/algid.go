package sig

import (
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// limitSalt is the longest RSA-PSS salt that is read from a peer, in bytes: that
// of the largest key (limitRSABits).
const limitSalt = limitRSABits / 8

var (
	oidPSS  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
)

// hashOIDs are the hash functions inside RSA-PSS's parameters (RFC 4055 §2.1).
var hashOIDs = []struct {
	oid  asn1.ObjectIdentifier
	hash Hash
}{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, SHA512},
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, SHA1},
}

// algorithms are the AlgorithmIdentifiers without parameters of their own: RFC
// 4055 §5 (NULL, but absence MUST be accepted), RFC 5758 §3.2 (absent; NULL is
// accepted, strongSwan does, too), RFC 8410 §3 (absent, and nothing else).
var algorithms = []struct {
	oid    asn1.ObjectIdentifier
	scheme Scheme
	null   bool // NULL is written
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Scheme{RSAPKCS1, SHA256, 0}, true},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, Scheme{RSAPKCS1, SHA384, 0}, true},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, Scheme{RSAPKCS1, SHA512, 0}, true},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, Scheme{ECDSA, SHA256, 0}, false},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, Scheme{ECDSA, SHA384, 0}, false},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, Scheme{ECDSA, SHA512, 0}, false},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, Scheme{Ed25519, Identity, 0}, false},
	{asn1.ObjectIdentifier{1, 3, 101, 113}, Scheme{Ed448, Identity, 0}, false},
	// Named only to be refused with the right reason.
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Scheme{RSAPKCS1, SHA1, 0}, true},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, Scheme{ECDSA, SHA1, 0}, false},
}

// ParseAlgorithm reads the DER of an AlgorithmIdentifier as RFC 7427 §3 has it in
// front of the signature. The errors are ErrMalformed, ErrAlgorithm, ErrWeakHash
// and ErrPSS.
func ParseAlgorithm(der []byte) (Scheme, error) {
	in := cryptobyte.String(der)
	var body cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() || !body.ReadASN1ObjectIdentifier(&oid) {
		return Scheme{}, fmt.Errorf("%w: no AlgorithmIdentifier", ErrMalformed)
	}
	if oid.Equal(oidPSS) {
		return parsePSS(body)
	}
	for _, a := range algorithms {
		if !oid.Equal(a.oid) {
			continue
		}
		if a.scheme.Hash == SHA1 {
			return Scheme{}, ErrWeakHash
		}
		if !body.Empty() && (a.scheme.Hash == Identity || !isNull(body)) {
			return Scheme{}, fmt.Errorf("%w: unexpected parameters of %v", ErrMalformed, a.scheme)
		}
		return a.scheme, nil
	}
	return Scheme{}, fmt.Errorf("%w: object identifier %.100s", ErrAlgorithm, oid)
}

func isNull(s cryptobyte.String) bool { return len(s) == 2 && s[0] == 5 && s[1] == 0 }

// parsePSS reads RSASSA-PSS-params (RFC 4055 §3.1). What is absent has the default
// SHA-1 and is refused for that. An explicit trailerField of 1 is no DER, but RFC
// 7427 appendix A.4 itself writes it. Peer quirk (FortiGate): it always comes.
func parsePSS(params cryptobyte.String) (Scheme, error) {
	var seq cryptobyte.String
	if params.Empty() || isNull(params) {
		return Scheme{}, fmt.Errorf("%w: no parameters", ErrPSS)
	}
	if !params.ReadASN1(&seq, cbasn1.SEQUENCE) || !params.Empty() {
		return Scheme{}, fmt.Errorf("%w: malformed", ErrPSS)
	}
	var field [4]cryptobyte.String
	var has [4]bool
	for i := range field {
		if !seq.ReadOptionalASN1(&field[i], &has[i], cbasn1.Tag(i).ContextSpecific().Constructed()) {
			return Scheme{}, fmt.Errorf("%w: malformed field %d", ErrPSS, i)
		}
	}
	if !seq.Empty() {
		return Scheme{}, fmt.Errorf("%w: unknown, doubled or disordered fields", ErrPSS)
	}
	if !has[0] {
		return Scheme{}, fmt.Errorf("%w (RSA-PSS without a hash algorithm)", ErrWeakHash)
	}
	s := Scheme{Algorithm: RSAPSS, Salt: 20}
	var ok bool
	if s.Hash, ok = readHash(&field[0]); !ok || !field[0].Empty() {
		return Scheme{}, fmt.Errorf("%w: unknown hash algorithm", ErrPSS)
	}
	if s.Hash == SHA1 {
		return Scheme{}, fmt.Errorf("%w (RSA-PSS)", ErrWeakHash)
	}
	if !has[1] {
		return Scheme{}, fmt.Errorf("%w: no mask generation function, so that MGF1 with SHA-1 is meant", ErrPSS)
	}
	if h, err := readMGF1(field[1]); err != nil {
		return Scheme{}, err
	} else if h != s.Hash {
		return Scheme{}, fmt.Errorf("%w: MGF1 with %v where the hash is %v", ErrPSS, h, s.Hash)
	}
	if has[2] {
		var n int64
		if !field[2].ReadASN1Int64WithTag(&n, cbasn1.INTEGER) || !field[2].Empty() || n < 0 || n > limitSalt {
			return Scheme{}, fmt.Errorf("%w: the salt's length is negative, larger than %d or malformed", ErrPSS, limitSalt)
		}
		s.Salt = int(n)
	}
	if has[3] {
		var n int64
		if !field[3].ReadASN1Int64WithTag(&n, cbasn1.INTEGER) || !field[3].Empty() || n != 1 {
			return Scheme{}, fmt.Errorf("%w: trailer field is not 1", ErrPSS)
		}
	}
	return s, nil
}

// readHash reads the AlgorithmIdentifier of a hash function; its parameters are
// NULL or absent (RFC 4055 §2.1).
func readHash(in *cryptobyte.String) (Hash, bool) {
	var body cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1ObjectIdentifier(&oid) || !body.Empty() && !isNull(body) {
		return 0, false
	}
	for _, h := range hashOIDs {
		if oid.Equal(h.oid) {
			return h.hash, true
		}
	}
	return 0, false
}

func readMGF1(in cryptobyte.String) (Hash, error) {
	var body cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() || !body.ReadASN1ObjectIdentifier(&oid) {
		return 0, fmt.Errorf("%w: malformed mask generation function", ErrPSS)
	}
	if !oid.Equal(oidMGF1) {
		return 0, fmt.Errorf("%w: the mask generation function is not MGF1", ErrPSS)
	}
	if body.Empty() {
		return 0, fmt.Errorf("%w: MGF1 without a hash algorithm", ErrPSS)
	}
	h, ok := readHash(&body)
	if !ok || !body.Empty() {
		return 0, fmt.Errorf("%w: MGF1 with an unknown hash algorithm", ErrPSS)
	}
	return h, nil
}

// AppendAlgorithm appends the DER of the scheme's AlgorithmIdentifier, as in RFC
// 7427 appendix A; RSA-PSS's trailer field, whose value is the default, is left
// out as DER wants it. The error is ErrAlgorithm for schemes that method 14 must
// not carry: ECDSARaw and everything with SHA-1.
func AppendAlgorithm(dst []byte, s Scheme) ([]byte, error) {
	b := cryptobyte.NewBuilder(dst)
	if s.Algorithm == RSAPSS {
		for _, h := range hashOIDs {
			if h.hash == s.Hash && s.Hash != SHA1 && s.Salt >= 0 && s.Salt <= limitSalt {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addPSS(b, h.oid, s.Salt) })
				return b.Bytes()
			}
		}
		return nil, fmt.Errorf("%w: %v", ErrAlgorithm, s)
	}
	for _, a := range algorithms {
		if a.scheme != s || s.Hash == SHA1 {
			continue
		}
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			if a.null {
				b.AddASN1NULL()
			}
		})
		return b.Bytes()
	}
	return nil, fmt.Errorf("%w: %v cannot be used with RFC 7427", ErrAlgorithm, s)
}

func addPSS(b *cryptobyte.Builder, hash asn1.ObjectIdentifier, salt int) {
	hashIdentifier := func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(hash)
			b.AddASN1NULL()
		})
	}
	explicit := func(i int) cbasn1.Tag { return cbasn1.Tag(i).ContextSpecific().Constructed() }
	b.AddASN1ObjectIdentifier(oidPSS)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), hashIdentifier)
		b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidMGF1)
				hashIdentifier(b)
			})
		})
		if salt != 20 {
			b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(salt)) })
		}
	})
}

// ParseAuth takes apart the AUTH data of method 14 (RFC 7427 §3): a length, the
// AlgorithmIdentifier, the signature, which is not copied.
//
//	| len (8) | AlgorithmIdentifier (len bytes) | signature (the rest) |
//
// The errors are ParseAlgorithm's and ErrEmpty.
func ParseAuth(data []byte) (s Scheme, signature []byte, err error) {
	if len(data) == 0 || len(data) < 1+int(data[0]) {
		return Scheme{}, nil, fmt.Errorf("%w: shorter than its AlgorithmIdentifier", ErrMalformed)
	}
	n := 1 + int(data[0])
	if s, err = ParseAlgorithm(data[1:n]); err != nil {
		return Scheme{}, nil, err
	}
	if len(data) == n {
		return Scheme{}, nil, ErrEmpty
	}
	return s, data[n:], nil
}

// AppendAuth appends the AUTH data of method 14 for a signature that was made
// elsewhere. The error is AppendAlgorithm's.
func AppendAuth(dst []byte, s Scheme, signature []byte) ([]byte, error) {
	der, err := AppendAlgorithm(nil, s)
	if err != nil {
		return nil, err
	}
	return append(append(append(dst, byte(len(der))), der...), signature...), nil
}
