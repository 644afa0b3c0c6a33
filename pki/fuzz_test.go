package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"runtime"
	"testing"
	"time"

	"adit/pki"
	"adit/pki/pkitest"
)

// Budgets of one input of a fuzz target: what takes longer or needs more memory is an
// attack. The machine may be busy, so they are generous.
const (
	fuzzTime  = 8 * time.Second
	fuzzAlloc = 256 << 20
)

// budget runs parse within the budgets.
func budget(t *testing.T, parse func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	parse()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if took > fuzzTime {
		t.Errorf("took %v", took)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > fuzzAlloc {
		t.Errorf("allocated %d bytes", n)
	}
}

var fuzzKinds = []pkitest.KeyKind{pkitest.P256, pkitest.RSA1024, pkitest.RSAPSS2048, pkitest.Ed25519, pkitest.Ed448}

func FuzzParseCertificates(f *testing.F) {
	store := pki.NewStore(nil)
	for _, kind := range fuzzKinds {
		e := pkitest.NewCA(f, pkitest.Spec{Key: kind, PermittedDNS: []string{"example"}, MaxPathLen: 1, Policies: []string{"1.2.3"}})
		f.Add(e.PEM())
		f.Add(e.Cert.DER())
		f.Add(append(e.IssueCA(pkitest.Spec{Key: kind}).Issue(pkitest.Spec{}).ChainPEM(), e.PEM()...))
		if err := store.Add(pki.Anchor, e.Cert); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		budget(t, func() {
			certs, err := pki.ParseCertificates(b)
			if (err == nil) != (len(certs) > 0) {
				t.Errorf("%d certificates and error %v", len(certs), err)
			}
			for _, c := range certs {
				_, _ = c.IsCA(), c.SelfSigned()
			}
			if len(certs) > 0 {
				r := pki.VerifyRequest{Leaf: certs[0], Intermediates: certs[1:], Trace: func(string) {}}
				chain, err := store.Verify(t.Context(), r)
				if (err == nil) != (len(chain) > 0) {
					t.Errorf("chain %v and error %v", chain, err)
				}
			}
		})
	})
}

func FuzzParsePublicKey(f *testing.F) {
	for _, kind := range fuzzKinds {
		e := pkitest.NewCA(f, pkitest.Spec{Key: kind})
		f.Add(e.PublicPEM())
		f.Add(e.Cert.X509.RawSubjectPublicKeyInfo)
	}
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm4ZmS0Zl9kS9Yc6bVh0Rr6w1c2X4m0Wn0t4uPpV0mE a"))
	f.Add([]byte("0sAwEAAQ=="))
	f.Fuzz(func(t *testing.T, b []byte) {
		budget(t, func() {
			k, err := pki.ParsePublicKey(b)
			if err != nil {
				return
			}
			again, err := pki.NewPublicKey(k.SPKI)
			if err != nil || again.KeyHash != k.KeyHash {
				t.Errorf("its own subjectPublicKeyInfo reads differently: %v", err)
			}
		})
	})
}

func FuzzParsePrivateKey(f *testing.F) {
	for _, kind := range fuzzKinds {
		e := pkitest.NewCA(f, pkitest.Spec{Key: kind})
		f.Add(e.KeyPEM())
		f.Add(e.KeyDER())
	}
	for _, file := range encryptedKeys {
		f.Add([]byte(file.pem))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		budget(t, func() {
			if k, err := pki.ParsePrivateKey(b, func() string { return passphrase }); err == nil && k.Public() == nil {
				t.Error("a key without public key")
			}
		})
	})
}

func FuzzParsePKCS12(f *testing.F) {
	for _, file := range pkcs12Files {
		f.Add(decode64(f, file.base64))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		budget(t, func() {
			k, c, _, err := pki.ParsePKCS12(b, passphrase)
			if err == nil && (k == nil || c == nil) {
				t.Error("neither key nor error")
			}
		})
	})
}

func FuzzParseCRL(f *testing.F) {
	ca := pkitest.NewCA(f, pkitest.Spec{})
	user := ca.Issue(pkitest.Spec{})
	der := ca.CRL(pkitest.List{Revoked: []*pki.Certificate{user.Cert}, Reason: 1})
	f.Add(der)
	f.Add(pkitest.CRLPEM(der))
	f.Add(ca.CRL(pkitest.List{Extra: []pkix.Extension{pkitest.DistributionPoint("http://a.example/crl", 1)}}))
	f.Add(ca.CRL(pkitest.List{Number: 2, Extra: []pkix.Extension{pkitest.DeltaOf(1)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		budget(t, func() {
			l, err := pki.ParseCRL(b)
			if err != nil {
				return
			}
			s := pki.NewStore(nil)
			if err := s.Add(pki.Anchor, ca.Cert); err != nil {
				t.Fatal(err)
			}
			if _, err := s.AddCRL(l); err != nil {
				t.Fatal(err)
			}
			_, _ = s.Verify(t.Context(), pki.VerifyRequest{Leaf: user.Cert, Revocation: pki.Strict})
		})
	})
}

func FuzzParseOCSPResponse(f *testing.F) {
	ca := pkitest.NewCA(f, pkitest.Spec{})
	user := ca.Issue(pkitest.Spec{})
	s := pki.NewStore(nil)
	if err := s.Add(pki.Anchor, ca.Cert); err != nil {
		f.Fatal(err)
	}
	delegate := ca.Issue(pkitest.Spec{EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
	f.Add((&pkitest.Responder{CA: ca}).Staple(user.Cert))
	f.Add((&pkitest.Responder{CA: ca, Signer: delegate}).Staple(user.Cert))
	f.Add((&pkitest.Responder{CA: ca, Error: 3}).Staple(user.Cert))
	f.Fuzz(func(t *testing.T, b []byte) {
		budget(t, func() {
			_, err := pki.ParseOCSPResponse(b)
			_, verr := s.Verify(t.Context(), pki.VerifyRequest{Leaf: user.Cert, Revocation: pki.Strict, OCSP: [][]byte{b}})
			if err != nil && verr == nil {
				t.Error("a response that can't be read was believed")
			}
		})
	})
}
