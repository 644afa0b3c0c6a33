package pkitest

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"time"

	"adit/pki"
)

// List says what a CRL says. The zero List revokes nobody and is valid from an hour
// ago for a week.
type List struct {
	Revoked    []*pki.Certificate
	RevokedAt  time.Time // zero: ThisUpdate
	Reason     int       // of all, RFC 5280 §5.3.1
	Number     int64
	ThisUpdate time.Time
	NextUpdate time.Time
	Extra      []pkix.Extension
	Issuer     *pki.Certificate // whose name stands there instead of the signer's
}

// CRL makes a CRL (DER) signed by e.
func (e *Entity) CRL(l List) []byte {
	e.tb.Helper()
	if l.ThisUpdate.IsZero() {
		l.ThisUpdate = time.Now().Add(-time.Hour)
	}
	if l.NextUpdate.IsZero() {
		l.NextUpdate = l.ThisUpdate.AddDate(0, 0, 7)
	}
	if l.RevokedAt.IsZero() {
		l.RevokedAt = l.ThisUpdate
	}
	if l.Number == 0 {
		l.Number = 1
	}
	name := e.Cert.X509
	if l.Issuer != nil {
		name = l.Issuer.X509
	}
	t := &x509.RevocationList{Number: big.NewInt(l.Number), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, ExtraExtensions: l.Extra}
	for _, c := range l.Revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: c.X509.SerialNumber, RevocationTime: l.RevokedAt, ReasonCode: l.Reason})
	}
	by := &x509.Certificate{RawSubject: name.RawSubject, SubjectKeyId: e.Cert.X509.SubjectKeyId, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateRevocationList(rand.Reader, t, by, placeholder)
	if err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	return e.resign(der, 1, -1, nil, 0, false) // version, signature, …
}

// CRLPEM is der as PEM.
func CRLPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// DistributionPoint is the critical extension issuingDistributionPoint (RFC 5280
// §5.2.5) for CRLs of a part: uri is the point's name ("": none), and flag one of its
// booleans by tag (1 onlyUser, 2 onlyCA, 4 indirectCRL, 5 onlyAttribute; 0: none).
func DistributionPoint(uri string, flag int) pkix.Extension {
	var body []byte
	if uri != "" {
		body = der(0xa0, der(0xa0, der(0x86, []byte(uri))))
	}
	if flag != 0 {
		body = append(body, 0x80|byte(flag), 1, 0xff)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: der(0x30, body)}
}

// DeltaOf is the critical extension deltaCRLIndicator (RFC 5280 §5.2.4).
func DeltaOf(base byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, base & 0x7f}}
}
