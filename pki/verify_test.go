package pki_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/pki"
	"adit/pki/pkitest"
	"adit/suite/sig"
)

// storeOf is a store with anchors that fetches nothing.
func storeOf(t *testing.T, anchors ...*pkitest.Entity) *pki.Store {
	t.Helper()
	s := pki.NewStore(nil)
	for _, a := range anchors {
		if err := s.Add(pki.Anchor, a.Cert); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// request is what a peer with e sends.
func request(e *pkitest.Entity) pki.VerifyRequest {
	return pki.VerifyRequest{Leaf: e.Cert, Intermediates: e.Intermediates()}
}

// accepted wants a chain of names, the leaf first.
func accepted(t *testing.T, s *pki.Store, r pki.VerifyRequest, want string) {
	t.Helper()
	var lines []string
	r.Trace = func(l string) { lines = append(lines, l) }
	chain, err := s.Verify(context.Background(), r)
	if err != nil {
		t.Fatalf("refused: %v\n%s", err, strings.Join(lines, "\n"))
	}
	var names []string
	for _, c := range chain {
		names = append(names, strings.TrimPrefix(c.Subject(), "CN="))
	}
	if got := strings.Join(names, " "); got != want {
		t.Fatalf("chain is %q, want %q", got, want)
	}
	if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "trusted") {
		t.Fatalf("trace: %q", lines)
	}
}

// refused wants a reason, and text in the error.
func refused(t *testing.T, s *pki.Store, r pki.VerifyRequest, want pki.Reason, text string) *pki.VerifyError {
	t.Helper()
	var lines []string
	r.Trace = func(l string) { lines = append(lines, l) }
	chain, err := s.Verify(context.Background(), r)
	var ve *pki.VerifyError
	if err == nil || !errors.As(err, &ve) || ve.Reason != want || !strings.Contains(err.Error(), text) {
		t.Fatalf("chain %v, error %v; want %q with %q\n%s", chain, err, want, text, strings.Join(lines, "\n"))
	}
	if chain != nil {
		t.Fatal("a chain beside the error")
	}
	if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], err.Error()) {
		t.Fatalf("trace doesn't end in the reason: %q", lines)
	}
	return ve
}

var allKinds = []pkitest.KeyKind{pkitest.P256, pkitest.P384, pkitest.P521, pkitest.RSA2048, pkitest.RSAPSS2048, pkitest.Ed25519, pkitest.Ed448}

// TestRFC5280_6_1_EveryKindOfKey verifies chains root-sub-leaf of every kind, and mixed.
func TestRFC5280_6_1_EveryKindOfKey(t *testing.T) {
	var roots []*pkitest.Entity
	for _, kind := range allKinds {
		roots = append(roots, pkitest.NewCA(t, pkitest.Spec{Name: "root " + string(kind), Key: kind}))
	}
	s := storeOf(t, roots...)
	stranger := storeOf(t, pkitest.NewCA(t, pkitest.Spec{Name: "stranger"}))
	for i, kind := range allKinds {
		for _, under := range []*pkitest.Entity{roots[i], roots[(i+1)%len(roots)]} {
			sub := under.IssueCA(pkitest.Spec{Name: "sub", Key: kind, MaxPathLen: -1})
			leaf := sub.Issue(pkitest.Spec{Name: "leaf", Key: kind, DNS: []string{"a.example"}})
			accepted(t, s, request(leaf), "leaf sub "+strings.TrimPrefix(under.Cert.Subject(), "CN="))
			refused(t, stranger, request(leaf), pki.Untrusted, under.Cert.Subject())
		}
	}
}

// TestRFC8017_PSSSignatures verifies certificates signed with RSASSA-PSS.
func TestRFC8017_PSSSignatures(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: pkitest.RSA2048, PSS: true})
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		accepted(t, storeOf(t, ca), request(ca.Issue(pkitest.Spec{Name: "leaf", PSS: true, Hash: h})), "leaf root")
	}
	// A key marked for PSS must not verify PKCS#1 v1.5.
	marked := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: pkitest.RSAPSS2048})
	unmarked := pkitest.NewCA(t, pkitest.Spec{Name: "root", Signer: marked.Key, Key: pkitest.RSA2048})
	refused(t, storeOf(t, marked), request(unmarked.Issue(pkitest.Spec{Name: "leaf"})), pki.BadSignature, "marked for RSASSA-PSS")
}

// TestRFC5280_4_1_2_5_Validity refuses what is expired or not yet valid, anywhere.
func TestRFC5280_4_1_2_5_Validity(t *testing.T) {
	now := time.Now()
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		old := pkitest.Spec{Name: "old", Key: kind, NotBefore: now.AddDate(-2, 0, 0), NotAfter: now.AddDate(-1, 0, 0)}
		early := pkitest.Spec{Name: "early", Key: kind, NotBefore: now.AddDate(1, 0, 0), NotAfter: now.AddDate(2, 0, 0)}
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		s := storeOf(t, ca)
		if ve := refused(t, s, request(ca.Issue(old)), pki.Expired, "valid until"); ve.Cert.Subject() != "CN=old" {
			t.Fatalf("about %v", ve.Cert)
		}
		refused(t, s, request(ca.Issue(early)), pki.NotYetValid, "valid from")
		refused(t, s, request(ca.IssueCA(old).Issue(pkitest.Spec{})), pki.Expired, `"CN=old"`)
		refused(t, s, request(ca.IssueCA(early).Issue(pkitest.Spec{})), pki.NotYetValid, `"CN=early"`)
		expired := pkitest.NewCA(t, old)
		refused(t, storeOf(t, expired), request(expired.Issue(pkitest.Spec{})), pki.Expired, `"CN=old"`)
		// The request's time counts, not the clock.
		r := request(expired.Issue(pkitest.Spec{Name: "leaf", NotBefore: now.AddDate(-2, 0, 0)}))
		r.At = now.AddDate(-2, 6, 0)
		accepted(t, storeOf(t, expired), r, "leaf old")
	}
}

// TestWrongCA refuses other CAs: unknown ones, one of the same name with another key,
// and a chain that lacks its intermediate.
func TestWrongCA(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		twin := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		s := storeOf(t, ca)
		refused(t, s, request(twin.Issue(pkitest.Spec{Name: "leaf"})), pki.BadSignature, "")
		sub := ca.IssueCA(pkitest.Spec{Name: "sub", Key: kind})
		leaf := sub.Issue(pkitest.Spec{Name: "leaf", Key: kind})
		ve := refused(t, s, pki.VerifyRequest{Leaf: leaf.Cert}, pki.Untrusted, `issuer "CN=sub" is needed`)
		if ve.MissingIssuer != "CN=sub" {
			t.Fatalf("missing %q", ve.MissingIssuer)
		}
		// A stored intermediate helps, without being an anchor itself.
		if err := s.Add(pki.Intermediate, sub.Cert); err != nil {
			t.Fatal(err)
		}
		accepted(t, s, pki.VerifyRequest{Leaf: leaf.Cert}, "leaf sub root")
		only := storeOf(t, sub)
		refused(t, only, pki.VerifyRequest{Leaf: leaf.Cert}, pki.Untrusted, `issuer "CN=root" is needed`)
		// Nor is the root of the peer.
		self := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "self", Key: kind})
		refused(t, s, request(self), pki.Untrusted, "self-signed")
		refused(t, s, pki.VerifyRequest{Leaf: twin.Issue(pkitest.Spec{Name: "leaf"}).Cert, Intermediates: []*pki.Certificate{twin.Cert}}, pki.Untrusted, "")
	}
}

// TestRFC5280_4_2_1_9_NotCA refuses end entities as issuers, and CAs without the right
// to sign (the class of CVE-2002-0862).
func TestRFC5280_4_2_1_9_NotCA(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		s := storeOf(t, ca)
		user := ca.Issue(pkitest.Spec{Name: "user", Key: kind, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign})
		refused(t, s, request(user.Issue(pkitest.Spec{Name: "forged"})), pki.NotCA, `"CN=user"`)
		bare := ca.Issue(pkitest.Spec{Name: "bare", Key: kind, NoKeyUsage: true})
		refused(t, s, request(bare.Issue(pkitest.Spec{Name: "forged"})), pki.NotCA, `"CN=bare"`)
		crl := ca.IssueCA(pkitest.Spec{Name: "crl only", Key: kind, KeyUsage: x509.KeyUsageCRLSign})
		refused(t, s, request(crl.Issue(pkitest.Spec{Name: "forged"})), pki.KeyUsage, "keyCertSign")
	}
}

// TestRFC5280_4_2_1_9_PathLength bounds the CAs below one.
func TestRFC5280_4_2_1_9_PathLength(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		for limit, good := range map[int]int{-1: 0, 1: 1, 2: 2} {
			ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind, MaxPathLen: limit})
			s := storeOf(t, ca)
			by := ca
			names := "root"
			for n := 0; n <= good+1; n++ {
				leaf := by.Issue(pkitest.Spec{Name: "leaf", Key: kind})
				if n <= good {
					accepted(t, s, request(leaf), "leaf "+names)
				} else {
					refused(t, s, request(leaf), pki.PathLength, `"CN=root"`)
				}
				name := fmt.Sprint("sub", n)
				by, names = by.IssueCA(pkitest.Spec{Name: name, Key: kind}), name+" "+names
			}
		}
	}
}

// TestChainTooLong refuses chains longer than the limit, however well signed.
func TestChainTooLong(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		by := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		s := storeOf(t, by)
		for i := range 12 {
			by = by.IssueCA(pkitest.Spec{Name: fmt.Sprint("sub", i), Key: kind})
		}
		refused(t, s, request(by.Issue(pkitest.Spec{Name: "leaf"})), pki.PathLength, "at most 10")
	}
}

// TestCVE2026_35331_NameConstraints refuses names outside of the constraints of any CA
// above, and constraints that can't be evaluated.
func TestCVE2026_35331_NameConstraints(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	s := storeOf(t, ca)
	sub := ca.IssueCA(pkitest.Spec{Name: "sub", PermittedDNS: []string{"good.example"}, ExcludedDNS: []string{"bad.good.example"},
		PermittedIPs: []string{"192.0.2.0/24"}, PermittedEmails: []string{"good.example"}})
	below := sub.IssueCA(pkitest.Spec{Name: "below"})
	for _, by := range []*pkitest.Entity{sub, below} {
		for _, good := range []pkitest.Spec{
			{DNS: []string{"a.good.example"}}, {IPs: []string{"192.0.2.9"}}, {Emails: []string{"a@good.example"}},
		} {
			if _, err := s.Verify(context.Background(), request(by.Issue(good))); err != nil {
				t.Errorf("%v: %v", good, err)
			}
		}
		for _, bad := range []pkitest.Spec{
			{DNS: []string{"evil.example"}}, {DNS: []string{"a.bad.good.example"}}, {DNS: []string{"a.good.example", "evil.example"}},
			{DNS: []string{"xgood.example"}}, {IPs: []string{"198.51.100.1"}}, {IPs: []string{"2001:db8::1"}}, {Emails: []string{"a@evil.example"}},
			{DNS: []string{"good.example.evil"}},
		} {
			refused(t, s, request(by.Issue(bad)), pki.NameConstraint, "")
		}
	}
	// A root's constraints count as well.
	narrow := pkitest.NewCA(t, pkitest.Spec{Name: "narrow", PermittedDNS: []string{"good.example"}})
	refused(t, storeOf(t, narrow), request(narrow.Issue(pkitest.Spec{DNS: []string{"evil.example"}})), pki.NameConstraint, "")
	// In chains that crypto/x509 can't verify, constraints are never passed over.
	for _, spec := range []pkitest.Spec{{Key: pkitest.Ed448, PermittedDNS: []string{"good.example"}}, {Key: pkitest.RSAPSS2048, ExcludedDNS: []string{"evil.example"}}} {
		odd := pkitest.NewCA(t, spec)
		refused(t, storeOf(t, odd), request(odd.Issue(pkitest.Spec{DNS: []string{"a.good.example"}})), pki.NameConstraint, "aren't evaluated")
	}
	mixed := narrow.IssueCA(pkitest.Spec{Name: "mixed", Key: pkitest.Ed448})
	refused(t, storeOf(t, narrow), request(mixed.Issue(pkitest.Spec{DNS: []string{"a.good.example"}})), pki.NameConstraint, "aren't evaluated")
}

// TestRFC4945_5_1_3_KeyUsage refuses end entities that may not sign, or are for other
// things than IKE and TLS.
func TestRFC4945_5_1_3_KeyUsage(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	s := storeOf(t, ca)
	for name, spec := range map[string]pkitest.Spec{
		"none":            {NoKeyUsage: true},
		"nonRepudiation":  {KeyUsage: x509.KeyUsageContentCommitment},
		"serverAuth":      {EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		"clientAuth":      {EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageClientAuth}},
		"any":             {EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}},
		"ikeIntermediate": {EKUOIDs: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 8, 2, 2}}},
		"ipsecIKE":        {EKUOIDs: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 17}}},
	} {
		spec.Name = "leaf"
		t.Run(name, func(t *testing.T) { accepted(t, s, request(ca.Issue(spec)), "leaf root") })
	}
	for name, spec := range map[string]pkitest.Spec{
		"keyEncipherment": {KeyUsage: x509.KeyUsageKeyEncipherment},
		"keyAgreement":    {KeyUsage: x509.KeyUsageKeyAgreement},
		"codeSigning":     {EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}},
		"OCSPSigning":     {EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}},
		"unknown":         {EKUOIDs: []asn1.ObjectIdentifier{{1, 2, 3, 4}}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s, request(ca.Issue(spec)), pki.KeyUsage, "") })
	}
	mail := ca.IssueCA(pkitest.Spec{Name: "mail", EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}})
	refused(t, s, request(mail.Issue(pkitest.Spec{})), pki.KeyUsage, `"CN=mail"`)
}

// TestBrokenHashesRefused refuses MD5 and SHA-1 below the anchor, whose own signature
// doesn't matter.
func TestBrokenHashesRefused(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: pkitest.RSA2048, Hash: crypto.SHA1})
	s := storeOf(t, ca)
	accepted(t, s, request(ca.Issue(pkitest.Spec{Name: "leaf"})), "leaf root")
	for _, h := range []crypto.Hash{crypto.MD5, crypto.SHA1} {
		refused(t, s, request(ca.Issue(pkitest.Spec{Hash: h})), pki.WeakSignature, "")
		refused(t, s, request(ca.IssueCA(pkitest.Spec{Name: "sub", Hash: h}).Issue(pkitest.Spec{})), pki.WeakSignature, `"CN=sub"`)
	}
	ec := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	refused(t, storeOf(t, ec), request(ec.Issue(pkitest.Spec{Hash: crypto.SHA1})), pki.WeakSignature, "SHA-1")
}

// TestStrengthConstraints asks the caller about every key and every signature below
// the anchor.
func TestStrengthConstraints(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: pkitest.RSA2048})
	sub := ca.IssueCA(pkitest.Spec{Name: "sub", Key: pkitest.P384})
	leaf := sub.Issue(pkitest.Spec{Name: "leaf", Key: pkitest.Ed25519})
	s := storeOf(t, ca)
	var seen []string
	r := request(leaf)
	r.CheckKey = func(k crypto.PublicKey, ca bool) error {
		name, bits := sig.KeyKind(k)
		seen = append(seen, fmt.Sprintf("%s%d%v", name, bits, ca))
		return nil
	}
	r.CheckSignature = func(sc sig.Scheme) error { seen = append(seen, sc.String()); return nil }
	accepted(t, s, r, "leaf sub root")
	want := "[ED25519256false ECDSA_WITH_SHA384_DER ECDSA384true RSA_EMSA_PKCS1_SHA2_256 RSA2048true]"
	if fmt.Sprint(seen) != want {
		t.Fatalf("asked %v, want %v", seen, want)
	}
	r.CheckKey = func(k crypto.PublicKey, ca bool) error {
		if _, bits := sig.KeyKind(k); bits == 2048 {
			return errors.New("at least 3072 bits")
		}
		return nil
	}
	if ve := refused(t, s, r, pki.WeakKey, "at least 3072"); ve.Cert.Subject() != "CN=root" {
		t.Fatalf("about %v", ve.Cert)
	}
	r.CheckKey = nil
	r.CheckSignature = func(sc sig.Scheme) error {
		if sc.Algorithm == sig.RSAPKCS1 {
			return errors.New("no PKCS#1")
		}
		return nil
	}
	if ve := refused(t, s, r, pki.WeakSignature, "no PKCS#1"); ve.Cert.Subject() != "CN=sub" {
		t.Fatalf("about %v", ve.Cert)
	}
}
