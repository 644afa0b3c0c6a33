package pki_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"golang.org/x/crypto/ssh"

	"adit/pki/pkitest"
)

// publicForms are the forms of one RSA key.
func publicForms(t *testing.T) map[string][]byte {
	t.Helper()
	e := pkitest.NewSelfSigned(t, pkitest.Spec{Key: pkitest.RSA2048})
	pub := e.Cert.PublicKey.(*rsa.PublicKey)
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	p1 := x509.MarshalPKCS1PublicKey(pub)
	dns := append([]byte{3, 1, 0, 1}, pub.N.Bytes()...)
	return map[string][]byte{
		"SPKI":       e.Cert.X509.RawSubjectPublicKeyInfo,
		"PKCS#1":     p1,
		"PKCS#1 PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: p1}),
		"ssh":        ssh.MarshalAuthorizedKey(line),
		"DNS":        []byte("0s" + base64.StdEncoding.EncodeToString(dns)),
	}
}
