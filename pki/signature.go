package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"
)

// Signature says how a certificate, CRL or OCSP response is signed.
type Signature struct {
	// Key is "rsa", "rsa-pss", "ecdsa", "ed25519" or "ed448".
	Key string
	// Hash is the hash that was signed; 0 with EdDSA.
	Hash crypto.Hash
}

// String is the signature for people, as in "ecdsa with SHA-256".
func (s Signature) String() string {
	if s.Hash == 0 {
		return s.Key
	}
	return s.Key + " with " + s.Hash.String()
}

var errWeakSignature = errors.New("signature with a broken hash")

// algorithms are the signature algorithms by OID: RFC 4055 §5, RFC 5758 §3.2,
// RFC 8410 §3. MD5 and SHA-1 stand here to be refused by name.
var algorithms = []struct {
	oid asn1.ObjectIdentifier
	sig Signature
	alg x509.SignatureAlgorithm
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, Signature{"rsa", crypto.MD5}, 0},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Signature{"rsa", crypto.SHA1}, 0},
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 29}, Signature{"rsa", crypto.SHA1}, 0},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, Signature{"ecdsa", crypto.SHA1}, 0},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Signature{"rsa", crypto.SHA256}, x509.SHA256WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, Signature{"rsa", crypto.SHA384}, x509.SHA384WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, Signature{"rsa", crypto.SHA512}, x509.SHA512WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, Signature{"ecdsa", crypto.SHA256}, x509.ECDSAWithSHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, Signature{"ecdsa", crypto.SHA384}, x509.ECDSAWithSHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, Signature{"ecdsa", crypto.SHA512}, x509.ECDSAWithSHA512},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, Signature{"ed25519", 0}, x509.PureEd25519},
	{oidEd448, Signature{"ed448", 0}, 0},
}

// pssParams are RSASSA-PSS-params (RFC 4055 §3.1).
type pssParams struct {
	Hash         pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
	MGF          pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
	SaltLength   int                      `asn1:"explicit,tag:2"`
	TrailerField int                      `asn1:"optional,explicit,tag:3,default:1"`
}

// pssHashes are the hashes of RSASSA-PSS by OID, with crypto/x509's names. Only
// parameters whose hash, MGF1 hash and salt length agree are accepted, as in
// crypto/x509; SHA-1, their default, is refused.
var pssHashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
	alg  x509.SignatureAlgorithm
}{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256, x509.SHA256WithRSAPSS},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384, x509.SHA384WithRSAPSS},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512, x509.SHA512WithRSAPSS},
}

// identify names the signature that ai stands for, and crypto/x509's name of it (0:
// it has none, or it must not be used).
func identify(ai pkix.AlgorithmIdentifier) (Signature, x509.SignatureAlgorithm, error) {
	for _, a := range algorithms {
		if !a.oid.Equal(ai.Algorithm) {
			continue
		}
		if a.sig.Hash == crypto.MD5 || a.sig.Hash == crypto.SHA1 {
			return a.sig, 0, fmt.Errorf("%w: %v", errWeakSignature, a.sig)
		}
		return a.sig, a.alg, nil
	}
	if !ai.Algorithm.Equal(oidRSAPSS) {
		return Signature{}, 0, fmt.Errorf("unknown signature algorithm %v", ai.Algorithm)
	}
	var p pssParams
	if rest, err := asn1.Unmarshal(ai.Parameters.FullBytes, &p); err != nil || len(rest) > 0 {
		return Signature{Key: "rsa-pss"}, 0, errors.New("malformed parameters of RSASSA-PSS, or its default SHA-1")
	}
	var mgf pkix.AlgorithmIdentifier
	if rest, err := asn1.Unmarshal(p.MGF.Parameters.FullBytes, &mgf); err != nil || len(rest) > 0 {
		return Signature{Key: "rsa-pss"}, 0, errors.New("malformed mask generation function of RSASSA-PSS")
	}
	for _, h := range pssHashes {
		if h.oid.Equal(p.Hash.Algorithm) && h.oid.Equal(mgf.Algorithm) &&
			p.SaltLength == h.hash.Size() && p.TrailerField == 1 {
			return Signature{"rsa-pss", h.hash}, h.alg, nil
		}
	}
	return Signature{Key: "rsa-pss"}, 0, errors.New("parameters of RSASSA-PSS that nobody should use")
}

// signed is the outer shape of certificates, CRLs and OCSP responses: what is signed,
// how, and the signature.
type signed struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// signatureOf says how c is signed.
func signatureOf(c *Certificate) (Signature, error) {
	var s signed
	if _, err := asn1.Unmarshal(c.X509.Raw, &s); err != nil {
		return Signature{}, err
	}
	sig, _, err := identify(s.Algorithm)
	return sig, err
}

// checkSignedBy checks that c carries a signature by issuer's key. Names, validity
// and the right to sign are the caller's.
func checkSignedBy(c, issuer *Certificate) error {
	return checkSignature(c.X509.Raw, issuer)
}

// checkSignature checks the signature of a DER certificate or CRL by issuer's key.
func checkSignature(der []byte, issuer *Certificate) error {
	var s signed
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return err
	}
	return verify(issuer, s.Algorithm, s.TBS.FullBytes, s.Signature.RightAlign())
}

// verify checks sig over tbs with the key of by. Odd algorithms and hashes that are
// broken are refused.
func verify(by *Certificate, ai pkix.AlgorithmIdentifier, tbs, sig []byte) error {
	how, alg, err := identify(ai)
	if err != nil {
		return err
	}
	switch key := by.PublicKey.(type) {
	case *rsa.PublicKey:
		if how.Key != "rsa-pss" && (how.Key != "rsa" || by.PSSOnly) {
			return fmt.Errorf("signature %v by a key of %s", how, keyName(key, by.PSSOnly))
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
		if how.Key != keyName(key, false) {
			return fmt.Errorf("signature %v by a key of %s", how, keyName(key, false))
		}
	case ed448.PublicKey:
		if how.Key != "ed448" {
			return fmt.Errorf("signature %v by a key of ed448", how)
		}
		if len(sig) != ed448.SignatureSize || !ed448.Verify(key, tbs, sig, "") {
			return errors.New("signature is wrong")
		}
		return nil
	default:
		return fmt.Errorf("keys of type %T verify nothing", key)
	}
	// A bare certificate lends crypto/x509's verification to keys marked for PSS.
	lend := x509.Certificate{PublicKey: by.PublicKey}
	if err := lend.CheckSignature(alg, tbs, sig); err != nil {
		return fmt.Errorf("signature is wrong: %w", err)
	}
	return nil
}

// keyName is the kind of a public key as in [Signature].
func keyName(pub crypto.PublicKey, pssOnly bool) string {
	switch pub.(type) {
	case *rsa.PublicKey:
		if pssOnly {
			return "rsa-pss"
		}
		return "rsa"
	case *ecdsa.PublicKey:
		return "ecdsa"
	case ed25519.PublicKey:
		return "ed25519"
	case ed448.PublicKey:
		return "ed448"
	}
	return fmt.Sprintf("%T", pub)
}
