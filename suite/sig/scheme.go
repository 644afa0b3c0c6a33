package sig

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// The reasons of refusals. Errors of this package wrap one of them and add what
// was found and what was wanted.
var (
	ErrMalformed   = errors.New("malformed signature authentication data")
	ErrMethod      = errors.New("unknown authentication method for signatures")
	ErrAlgorithm   = errors.New("unknown signature algorithm")
	ErrWeakHash    = errors.New("signatures with SHA-1 are refused")
	ErrPSS         = errors.New("unacceptable RSA-PSS parameters")
	ErrWrongKey    = errors.New("signature algorithm does not fit the key")
	ErrKey         = errors.New("unacceptable public key")
	ErrEmpty       = errors.New("empty signature")
	ErrSignature   = errors.New("signature is wrong")
	ErrConstraints = errors.New("not acceptable to the configured constraints")
)

// The authentication methods of IKEv2 that carry signatures (RFC 7296 §3.8,
// RFC 4754 §3, RFC 7427 §3).
const (
	MethodRSA       uint8 = 1
	MethodECDSA256  uint8 = 9
	MethodECDSA384  uint8 = 10
	MethodECDSA521  uint8 = 11
	MethodSignature uint8 = 14
)

// Algorithm is what a signature is made with, apart from the hash.
type Algorithm uint8

// The algorithms. ECDSA is the pair of integers in DER, ECDSARaw the fixed-length
// r|s of RFC 4754, where the curve decides the hash.
const (
	RSAPKCS1 Algorithm = iota + 1
	RSAPSS
	ECDSA
	ECDSARaw
	Ed25519
	Ed448
)

// Scheme is a complete signature scheme. Salt is the length of RSA-PSS's salt in
// bytes and 0 for all others. MGF1's hash is always the same as Hash. Schemes are
// comparable.
type Scheme struct {
	Algorithm Algorithm
	Hash      Hash
	Salt      int
}

// PSS is RSA-PSS with the usual salt, as long as the hash.
func PSS(h Hash) Scheme { return Scheme{RSAPSS, h, h.size()} }

// String names the scheme as strongSwan's logs do: RSA_EMSA_PKCS1_SHA2_256,
// RSA_EMSA_PSS_SHA2_256_SALT_32, ECDSA_WITH_SHA256_DER, ECDSA-256, ED25519.
func (s Scheme) String() string {
	switch s.Algorithm {
	case RSAPKCS1:
		return "RSA_EMSA_PKCS1_" + hashes[s.Hash].scheme
	case RSAPSS:
		return fmt.Sprintf("RSA_EMSA_PSS_%s_SALT_%d", hashes[s.Hash].scheme, s.Salt)
	case ECDSA:
		return fmt.Sprintf("ECDSA_WITH_SHA%d_DER", 8*s.Hash.size())
	case ECDSARaw:
		if s.Hash == SHA512 {
			return "ECDSA-521"
		}
		return fmt.Sprintf("ECDSA-%d", 8*s.Hash.size())
	case Ed25519:
		return "ED25519"
	case Ed448:
		return "ED448"
	}
	return "unknown signature scheme"
}

// kind is the type of key that makes signatures of this scheme.
func (s Scheme) kind() kind {
	switch s.Algorithm {
	case RSAPKCS1, RSAPSS:
		return kindRSA
	case ECDSA, ECDSARaw:
		return kindECDSA
	case Ed25519:
		return kindEd25519
	case Ed448:
		return kindEd448
	}
	return kindNone
}

// fixedSchemes are the schemes of the methods from before RFC 7427.
var fixedSchemes = map[uint8]Scheme{
	MethodRSA:      {Algorithm: RSAPKCS1, Hash: SHA1},
	MethodECDSA256: {Algorithm: ECDSARaw, Hash: SHA256},
	MethodECDSA384: {Algorithm: ECDSARaw, Hash: SHA384},
	MethodECDSA521: {Algorithm: ECDSARaw, Hash: SHA512},
}

var certificateSchemes = map[x509.SignatureAlgorithm]Scheme{
	x509.SHA1WithRSA:      {Algorithm: RSAPKCS1, Hash: SHA1},
	x509.SHA256WithRSA:    {Algorithm: RSAPKCS1, Hash: SHA256},
	x509.SHA384WithRSA:    {Algorithm: RSAPKCS1, Hash: SHA384},
	x509.SHA512WithRSA:    {Algorithm: RSAPKCS1, Hash: SHA512},
	x509.SHA256WithRSAPSS: PSS(SHA256),
	x509.SHA384WithRSAPSS: PSS(SHA384),
	x509.SHA512WithRSAPSS: PSS(SHA512),
	x509.ECDSAWithSHA1:    {Algorithm: ECDSA, Hash: SHA1},
	x509.ECDSAWithSHA256:  {Algorithm: ECDSA, Hash: SHA256},
	x509.ECDSAWithSHA384:  {Algorithm: ECDSA, Hash: SHA384},
	x509.ECDSAWithSHA512:  {Algorithm: ECDSA, Hash: SHA512},
	x509.PureEd25519:      {Algorithm: Ed25519, Hash: Identity},
}

// CertificateScheme is the scheme that a certificate was signed with, for
// Constraints.CheckChain. The error is ErrAlgorithm.
func CertificateScheme(a x509.SignatureAlgorithm) (Scheme, error) {
	if s, ok := certificateSchemes[a]; ok {
		return s, nil
	}
	return Scheme{}, fmt.Errorf("%w: %v", ErrAlgorithm, a)
}
