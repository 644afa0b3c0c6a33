package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
)

// PEM is the certificate in PEM (RFC 7468 §5).
func (c *Certificate) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER()})
}

// KeyPEM is a private key as PKCS#8 in PEM (RFC 7468 §10); the caller overwrites it.
func KeyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
