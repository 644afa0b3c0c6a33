package pki

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// EncodePKCS12 makes a PKCS#12 file (RFC 7292) of a private key, its certificate and
// those of its CAs. legacy takes 3DES and SHA-1, which all versions of Windows, macOS
// and iOS read and which protect next to nothing: the passphrase must be as long as a
// key, or the file must not be left about. Otherwise it is PBES2 with AES-256.
func EncodePKCS12(key crypto.Signer, c *Certificate, cas []*Certificate, passphrase string, legacy bool) ([]byte, error) {
	if !c.Matches(key) {
		return nil, fmt.Errorf("pki: PKCS#12: the key is not that of %q", c.Subject())
	}
	chain := make([]*x509.Certificate, len(cas))
	for i, ca := range cas {
		chain[i] = ca.X509
	}
	encoder := pkcs12.Modern2023
	if legacy {
		encoder = pkcs12.LegacyDES
	}
	b, err := encoder.Encode(key, c.X509, chain, passphrase)
	if err != nil {
		return nil, fmt.Errorf("pki: PKCS#12: %w", err)
	}
	return b, nil
}
