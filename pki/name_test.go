package pki_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"adit/pki/pkitest"
)

// Names print in the order in which identities are configured, and without what
// could forge a line of a log.
func TestNamesForPeople(t *testing.T) {
	e := pkitest.NewSelfSigned(t, pkitest.Spec{Subject: pkix.Name{Country: []string{"CH"}, Organization: []string{"Adit\nfake"}, CommonName: "gw",
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: "x"}}}})
	const want = "C=CH, O=Adit?fake, CN=gw, 1.3.6.1.4.1.99999.1=x"
	if got := e.Cert.Subject(); got != want || e.Cert.Issuer() != want {
		t.Errorf("%q and %q, want %q", got, e.Cert.Issuer(), want)
	}
}
