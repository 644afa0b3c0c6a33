package pki

import (
	"bytes"
	"crypto"
	"crypto/sha1" // RFC 7296 §3.7: keys are named by their SHA-1, which nobody trusts
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// Certificate is an X.509 certificate with what crypto/x509 leaves out. It is
// immutable.
type Certificate struct {
	// X509 is the certificate as crypto/x509 parsed it. Its PublicKey is nil for the
	// keys that crypto/x509 doesn't know: use PublicKey below.
	X509 *x509.Certificate
	// PublicKey is *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or Ed448's
	// ed448.PublicKey of circl.
	PublicKey crypto.PublicKey
	// PSSOnly says that the key is marked for RSASSA-PSS alone (RFC 4055 §1.2).
	PSSOnly bool
	// KeyHash is the SHA-1 of the whole subjectPublicKeyInfo, which CERTREQ carries
	// (RFC 7296 §3.7).
	KeyHash [20]byte
	// KeyID is the SHA-1 of the bits of subjectPublicKey (RFC 5280 §4.2.1.2 (1)), which
	// identities of type key id and OCSP use.
	KeyID [20]byte
	// Fingerprint is the SHA-256 of the certificate.
	Fingerprint [32]byte
}

// NewCertificate reads one DER certificate. It refuses keys outside of the limits
// (RSA below 1024 or above 8192 bits) and kinds of keys it doesn't know.
func NewCertificate(der []byte) (*Certificate, error) {
	if len(der) > maxCertBytes {
		return nil, fmt.Errorf("pki: certificate of %d bytes, at most %d are read", len(der), maxCertBytes)
	}
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pki: certificate: %w", err)
	}
	return wrap(x)
}

// wrap adds to x what crypto/x509 leaves out.
func wrap(x *x509.Certificate) (*Certificate, error) {
	pub, err := parseSPKI(x.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, fmt.Errorf("pki: certificate of %q: %w", x.Subject, err)
	}
	c := &Certificate{
		X509: x, PublicKey: pub.key, PSSOnly: pub.pss,
		KeyHash:     sha1.Sum(x.RawSubjectPublicKeyInfo),
		KeyID:       sha1.Sum(pub.bits),
		Fingerprint: sha256.Sum256(x.Raw),
	}
	return c, nil
}

// DER is the certificate's encoding; it must not be changed.
func (c *Certificate) DER() []byte { return c.X509.Raw }

// Subject is the subject's distinguished name, for people, in the order in which
// identities are configured; an overlong one is cut.
func (c *Certificate) Subject() string { return nameText(c.X509.RawSubject, c.X509.Subject) }

// Issuer is the issuer's distinguished name, for people; an overlong one is cut.
func (c *Certificate) Issuer() string { return nameText(c.X509.RawIssuer, c.X509.Issuer) }

// Serial is the serial number in hexadecimal, for people.
func (c *Certificate) Serial() string { return hex.EncodeToString(c.X509.SerialNumber.Bytes()) }

// IsCA says whether the certificate may issue others by its basicConstraints. A
// version 1 certificate can't say; it counts as a CA if it is self-issued.
func (c *Certificate) IsCA() bool {
	if c.X509.BasicConstraintsValid {
		return c.X509.IsCA
	}
	return c.X509.Version < 3 && c.SelfIssued()
}

// SelfIssued says whether subject and issuer are the same (RFC 5280 §3.2); the
// signature is not looked at.
func (c *Certificate) SelfIssued() bool {
	return bytes.Equal(c.X509.RawSubject, c.X509.RawIssuer)
}

// SelfSigned says whether the certificate is signed with its own key.
func (c *Certificate) SelfSigned() bool {
	return c.SelfIssued() && checkSignedBy(c, c) == nil
}

// Equal says whether both are the same certificate.
func (c *Certificate) Equal(o *Certificate) bool {
	return c != nil && o != nil && c.Fingerprint == o.Fingerprint
}

// String is the subject.
func (c *Certificate) String() string { return c.Subject() }

// ParseCertificates reads all certificates of a file: every CERTIFICATE block of PEM
// (fullchain.pem: what stands around is skipped), or one or more DER certificates
// back to back. The order is kept. A file without a certificate is an error, and so
// is one certificate in it that can't be read: the error says which.
func ParseCertificates(b []byte) ([]*Certificate, error) {
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("pki: file of %d bytes, at most %d are read", len(b), maxFileBytes)
	}
	ders, err := certificateBlocks(b)
	if err != nil {
		return nil, err
	}
	certs := make([]*Certificate, 0, len(ders))
	for i, der := range ders {
		c, err := NewCertificate(der)
		if err != nil {
			if len(ders) > 1 {
				err = fmt.Errorf("certificate %d of %d in the file: %w", i+1, len(ders), err)
			}
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// certificateBlocks are the encodings of the certificates of a file.
func certificateBlocks(b []byte) (ders [][]byte, err error) {
	if looksDER(b) {
		for len(b) > 0 {
			var raw asn1.RawValue
			rest, err := asn1.Unmarshal(b, &raw)
			if err != nil {
				return nil, fmt.Errorf("pki: certificate %d in the file is not DER: %w", len(ders)+1, err)
			}
			if len(ders) == maxFileCerts {
				return nil, errTooManyCerts
			}
			ders, b = append(ders, raw.FullBytes), rest
		}
		return ders, nil
	}
	var other string
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			if len(ders) == maxFileCerts {
				return nil, errTooManyCerts
			}
			ders = append(ders, block.Bytes)
		case "TRUSTED CERTIFICATE":
			// OpenSSL appends its trust settings to the certificate: cut them off.
			var raw asn1.RawValue
			if _, err := asn1.Unmarshal(block.Bytes, &raw); err == nil && len(ders) < maxFileCerts {
				ders = append(ders, raw.FullBytes)
			}
		default:
			other = block.Type
		}
	}
	switch {
	case len(ders) > 0:
		return ders, nil
	case other != "":
		return nil, fmt.Errorf("pki: no certificate in the file, but %s", printable(other))
	}
	return nil, errors.New("pki: no certificate in the file: neither PEM nor DER")
}

var errTooManyCerts = fmt.Errorf("pki: more than %d certificates in a file", maxFileCerts)

// looksDER says whether b begins like a DER SEQUENCE. Text may begin with '0', the
// octet of its tag, too: so the length must be of the long form, which isn't ASCII, or
// fit exactly.
func looksDER(b []byte) bool {
	return len(b) > 2 && b[0] == 0x30 && (b[1] > 0x80 || int(b[1]) == len(b)-2)
}

// printable bounds and quotes text of a file that goes into an error.
func printable(s string) string { return fmt.Sprintf("%q", cut(s, 64)) }

// cut bounds text that others wrote.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// sha1Hex is the SHA-1 of the certificate, which hash-and-URL names it by.
func (c *Certificate) sha1Hex() string {
	h := sha1.Sum(c.X509.Raw)
	return hex.EncodeToString(h[:])
}
