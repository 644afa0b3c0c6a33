package pki

import (
	"crypto"
	"encoding/asn1"
	"fmt"

	"adit/suite/sig"
)

// signed is the outer shape of certificates, CRLs and OCSP responses: what is signed,
// how, and the signature.
type signed struct {
	TBS       asn1.RawValue
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

// signatureOf says how c is signed. Broken hashes are an error.
func signatureOf(c *Certificate) (sig.Scheme, error) {
	var s signed
	if _, err := asn1.Unmarshal(c.X509.Raw, &s); err != nil {
		return sig.Scheme{}, err
	}
	return sig.ParseAlgorithm(s.Algorithm.FullBytes)
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
	return verifySignature(issuer, s.Algorithm.FullBytes, s.TBS.FullBytes, s.Signature.RightAlign())
}

// verifySignature checks the signature over tbs with the key of by. suite/sig refuses
// broken hashes, odd parameters and algorithms that don't fit the key.
func verifySignature(by *Certificate, algorithm, tbs, signature []byte) error {
	scheme, err := sig.ParseAlgorithm(algorithm)
	if err != nil {
		return err
	}
	if by.PSSOnly && scheme.Algorithm != sig.RSAPSS {
		return fmt.Errorf("%w: %v by a key marked for RSASSA-PSS", sig.ErrWrongKey, scheme)
	}
	auth, err := sig.AppendAuth(nil, scheme, signature)
	if err != nil {
		return err
	}
	_, err = sig.Verify(by.PublicKey, sig.MethodSignature, auth, tbs, nil)
	return err
}

// checkBounds refuses keys that are broken, cost too much or verify nothing.
func checkBounds(key crypto.PublicKey) error { return sig.CheckKey(key) }
