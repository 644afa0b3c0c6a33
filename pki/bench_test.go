package pki_test

import (
	"testing"

	"adit/pki"
	"adit/pki/pkitest"
)

// BenchmarkVerify is a chain of three without revocation, as most set-ups have it.
func BenchmarkVerify(b *testing.B) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.RSA2048, pkitest.Ed25519, pkitest.Ed448} {
		b.Run(string(kind), func(b *testing.B) {
			ca := pkitest.NewCA(b, pkitest.Spec{Name: "root", Key: kind})
			leaf := ca.IssueCA(pkitest.Spec{Name: "sub", Key: kind}).Issue(pkitest.Spec{Name: "leaf", Key: kind, DNS: []string{"a.example"}})
			s := pki.NewStore(nil)
			if err := s.Add(pki.Anchor, ca.Cert); err != nil {
				b.Fatal(err)
			}
			r := request(leaf)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Verify(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
