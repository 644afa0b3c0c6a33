package pki_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"adit/pki"
	"adit/pki/pkitest"
)

// TestPinned believes what is loaded, without a CA and whatever its usages; and only
// what is asked for, if something is.
func TestPinned(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		unknown := pkitest.NewCA(t, pkitest.Spec{Name: "unknown", Key: kind})
		leaf := unknown.Issue(pkitest.Spec{Name: "leaf", Key: kind, KeyUsage: x509.KeyUsageKeyAgreement})
		self := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "self", Key: kind})
		s := storeOf(t, pkitest.NewCA(t, pkitest.Spec{Name: "root"}))
		pinned := func(e *pkitest.Entity, certs ...*pkitest.Entity) pki.VerifyRequest {
			r := request(e)
			for _, c := range certs {
				r.Pinned = append(r.Pinned, c.Cert)
			}
			return r
		}
		accepted(t, s, pinned(leaf, self, leaf), "leaf")
		accepted(t, s, pinned(self, self, leaf), "self")
		refused(t, s, pinned(leaf, self), pki.WrongCertificate, "")
		refused(t, s, request(leaf), pki.KeyUsage, "digitalSignature")
		refused(t, s, request(unknown.Issue(pkitest.Spec{})), pki.Untrusted, "unknown")
		// In the store it is trusted for all.
		if err := s.Add(pki.Trusted, leaf.Cert); err != nil {
			t.Fatal(err)
		}
		accepted(t, s, request(leaf), "leaf")
		refused(t, s, pinned(leaf, self), pki.WrongCertificate, "")
		// Other constraints hold nevertheless.
		r := pinned(leaf, leaf)
		r.At = time.Now().AddDate(2, 0, 0)
		refused(t, s, r, pki.Expired, "")
		r = pinned(leaf, leaf)
		r.Revocation = pki.Strict
		refused(t, s, r, pki.RevocationUnknown, "issuer isn't known")
		r = pinned(self, self)
		r.Revocation = pki.Strict
		accepted(t, s, r, "self")
		r = pinned(leaf, leaf)
		r.Anchors = []*pki.Certificate{unknown.Cert}
		refused(t, s, r, pki.WrongCA, "")
		// With its CA known it can be revoked.
		if err := s.Add(pki.Anchor, unknown.Cert); err != nil {
			t.Fatal(err)
		}
		accepted(t, s, r, "leaf unknown")
		l, err := pki.ParseCRL(unknown.CRL(pkitest.List{Revoked: []*pki.Certificate{leaf.Cert}}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddCRL(l); err != nil {
			t.Fatal(err)
		}
		refused(t, s, r, pki.Revoked, "")
	}
}

// TestPinnedTwinRefused doesn't take another certificate of the same name for it.
func TestPinnedTwinRefused(t *testing.T) {
	a := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "gw", Serial: 1})
	b := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "gw", Serial: 1})
	r := request(b)
	r.Pinned = []*pki.Certificate{a.Cert}
	refused(t, storeOf(t), r, pki.WrongCertificate, "")
}

// TestAnchorsConstraint wants one of the CAs asked for, anchor or intermediate, in the
// chain, and takes another chain if that has it.
func TestAnchorsConstraint(t *testing.T) {
	a, b := pkitest.NewCA(t, pkitest.Spec{Name: "a"}), pkitest.NewCA(t, pkitest.Spec{Name: "b"})
	sub := a.IssueCA(pkitest.Spec{Name: "sub"})
	cross := b.IssueCA(pkitest.Spec{Name: "sub", Signer: sub.Key})
	leaf := sub.Issue(pkitest.Spec{Name: "leaf"})
	s := storeOf(t, a, b)
	r := pki.VerifyRequest{Leaf: leaf.Cert, Intermediates: []*pki.Certificate{sub.Cert, cross.Cert}}
	for _, tc := range []struct {
		anchor *pkitest.Entity
		want   string
	}{{a, "leaf sub a"}, {b, "leaf sub b"}, {sub, "leaf sub a"}, {cross, "leaf sub b"}} {
		r.Anchors = []*pki.Certificate{tc.anchor.Cert}
		accepted(t, s, r, tc.want)
	}
	r.Anchors = []*pki.Certificate{pkitest.NewCA(t, pkitest.Spec{Name: "c"}).Cert}
	refused(t, s, r, pki.WrongCA, "")
}

// TestRFC5280_4_2_1_4_Policies wants every policy in the whole chain.
func TestRFC5280_4_2_1_4_Policies(t *testing.T) {
	const one, two, anyPolicy = "1.2.3.1", "1.2.3.2", "2.5.29.32.0"
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	s := storeOf(t, ca)
	for name, tc := range map[string]struct {
		sub, leaf, want []string
		inhibit         bool
		bad             string
	}{
		"both":                  {sub: []string{one, two}, leaf: []string{two, one}, want: []string{one, two}},
		"one of two":            {sub: []string{one}, leaf: []string{one}, want: []string{one, two}, bad: "certificate policy missing: 1.2.3.2"},
		"leaf without":          {sub: []string{one}, want: []string{one}, bad: `"CN=leaf"`},
		"CA without":            {leaf: []string{one}, want: []string{one}, bad: `"CN=sub"`},
		"CA of others":          {sub: []string{two}, leaf: []string{one}, want: []string{one}, bad: `"CN=sub"`},
		"any in the CA":         {sub: []string{anyPolicy}, leaf: []string{one}, want: []string{one}},
		"any in the leaf":       {sub: []string{one}, leaf: []string{anyPolicy}, want: []string{one}, bad: `"CN=leaf"`},
		"any that is inhibited": {sub: []string{anyPolicy}, leaf: []string{one}, want: []string{one}, inhibit: true, bad: "certificate policy missing"},
		"prefix":                {sub: []string{"1.2.3.11"}, leaf: []string{"1.2.3.11"}, want: []string{one}, bad: "1.2.3.1"},
	} {
		t.Run(name, func(t *testing.T) {
			root, s := ca, s
			if tc.inhibit {
				root = pkitest.NewCA(t, pkitest.Spec{Name: "root", Edit: func(c *x509.Certificate) {
					c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 54}, Critical: true, Value: []byte{2, 1, 0}})
				}})
				s = storeOf(t, root)
			}
			sub := root.IssueCA(pkitest.Spec{Name: "sub", Policies: tc.sub})
			r := request(sub.Issue(pkitest.Spec{Name: "leaf", Policies: tc.leaf}))
			r.Policies = tc.want
			if tc.bad == "" {
				accepted(t, s, r, "leaf sub root")
			} else {
				refused(t, s, r, pki.PolicyMissing, tc.bad)
			}
		})
	}
}

// TestRFC5280_4_2_CriticalExtensions refuses unknown critical extensions anywhere.
func TestRFC5280_4_2_CriticalExtensions(t *testing.T) {
	odd := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		s := storeOf(t, ca)
		refused(t, s, request(ca.Issue(pkitest.Spec{Extra: odd})), pki.CriticalExtension, "1.2.3.4")
		sub := ca.IssueCA(pkitest.Spec{Name: "sub", Key: kind, Extra: odd})
		refused(t, s, request(sub.Issue(pkitest.Spec{})), pki.CriticalExtension, "1.2.3.4")
		soft := odd[0]
		soft.Critical = false
		accepted(t, s, request(ca.Issue(pkitest.Spec{Name: "leaf", Extra: []pkix.Extension{soft}})), "leaf root")
	}
}

// TestHostileChains spends little time on loops, floods and namesakes.
func TestHostileChains(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		s := storeOf(t, ca)
		// Cross-signed CAs in a ring and all with each other, without an anchor.
		var keys []*pkitest.Entity
		for i := range 6 {
			keys = append(keys, pkitest.NewCA(t, pkitest.Spec{Name: fmt.Sprint("c", i), Key: kind}))
		}
		var mesh []*pki.Certificate
		for i, by := range keys {
			for j, of := range keys {
				if i != j {
					mesh = append(mesh, by.IssueCA(pkitest.Spec{Name: fmt.Sprint("c", j), Signer: of.Key}).Cert)
				}
			}
		}
		leaf := keys[0].Issue(pkitest.Spec{Name: "leaf", Key: kind})
		// Namesakes with other keys.
		var flood []*pki.Certificate
		for range 3000 {
			flood = append(flood, mesh[len(flood)%len(mesh)])
		}
		var namesakes []*pki.Certificate
		for range 16 {
			namesakes = append(namesakes, pkitest.NewCA(t, pkitest.Spec{Name: "c0", Key: kind}).Cert)
		}
		for name, certs := range map[string][]*pki.Certificate{"mesh": mesh, "flood": flood, "namesakes": namesakes, "nil": make([]*pki.Certificate, 20)} {
			start := time.Now()
			_, err := s.Verify(context.Background(), pki.VerifyRequest{Leaf: leaf.Cert, Intermediates: certs})
			var ve *pki.VerifyError
			if !errors.As(err, &ve) || ve.Reason == pki.Revoked {
				t.Errorf("%s of %s: %v", name, kind, err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%s of %s took %v", name, kind, took)
			}
		}
		// One way out of the mesh is found.
		way := ca.IssueCA(pkitest.Spec{Name: "c0", Signer: keys[0].Key})
		r := pki.VerifyRequest{Leaf: leaf.Cert, Intermediates: append([]*pki.Certificate{way.Cert}, mesh[:12]...)}
		accepted(t, s, r, "leaf c0 root")
	}
}

// TestManyNames bounds the work of name constraints on certificates full of names.
func TestManyNames(t *testing.T) {
	var names, limits []string
	for i := range 1200 {
		names = append(names, fmt.Sprintf("h%d.a.example", i))
		limits = append(limits, fmt.Sprintf("x%d.example", i))
	}
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	s := storeOf(t, ca)
	sub := ca.IssueCA(pkitest.Spec{Name: "sub", ExcludedDNS: limits, PermittedDNS: append(limits, "example")})
	leaf := sub.Issue(pkitest.Spec{Name: "leaf", DNS: names})
	start := time.Now()
	_, err := s.Verify(context.Background(), request(leaf))
	if took := time.Since(start); took > 10*time.Second {
		t.Fatalf("took %v: %v", took, err)
	}
}

// TestStore adds, lists and removes, and keeps an order.
func TestStore(t *testing.T) {
	a, b := pkitest.NewCA(t, pkitest.Spec{Name: "a"}), pkitest.NewCA(t, pkitest.Spec{Name: "b", Key: pkitest.Ed448})
	renewed := pkitest.NewCA(t, pkitest.Spec{Name: "a", Signer: a.Key})
	s := storeOf(t, b, a, renewed, b)
	if got := fmt.Sprint(s.List(pki.Anchor)); got != "[CN=b CN=a CN=a]" {
		t.Fatalf("anchors %s", got)
	}
	hashes := s.Authorities()
	if len(hashes) != 2 || hashes[0] != b.Cert.KeyHash || hashes[1] != a.Cert.KeyHash {
		t.Fatalf("authorities %x", hashes)
	}
	if names := s.AuthorityNames(); len(names) != 2 || !bytes.Equal(names[0], b.Cert.X509.RawSubject) || !bytes.Equal(names[1], a.Cert.X509.RawSubject) {
		t.Fatalf("names of authorities %q", names)
	}
	leaf := a.Issue(pkitest.Spec{Name: "leaf"})
	accepted(t, s, request(leaf), "leaf a")
	if !s.Remove(pki.Anchor, a.Cert) || s.Remove(pki.Anchor, a.Cert) {
		t.Fatal("remove")
	}
	accepted(t, s, request(leaf), "leaf a") // by the renewed one
	s.Remove(pki.Anchor, renewed.Cert)
	refused(t, s, request(leaf), pki.Untrusted, `issuer "CN=a" is needed`)
	if err := s.Add(pki.Anchor, leaf.Cert); !errors.Is(err, pki.ErrNotCA) {
		t.Fatalf("end entity as anchor: %v", err)
	}
	if err := s.SetAuthority(pki.Authority{Name: "x"}); err == nil {
		t.Fatal("authority without CA")
	}
	k, err := pki.ParsePublicKey(leaf.PublicPEM())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.AddKey(k); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Keys()) != 1 || !s.RemoveKey(k) || s.RemoveKey(k) || len(s.Keys()) != 0 {
		t.Fatal("raw keys")
	}
	s.Flush()
	if len(s.List(pki.Anchor))+len(s.Authorities())+len(s.CRLs()) != 0 {
		t.Fatal("not flushed")
	}
}

// TestStoreConcurrent changes the store while it verifies (with -race).
func TestStoreConcurrent(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	leaf := ca.Issue(pkitest.Spec{Name: "leaf"})
	l, err := pki.ParseCRL(ca.CRL(pkitest.List{}))
	if err != nil {
		t.Fatal(err)
	}
	s := storeOf(t, ca)
	others := []*pkitest.Entity{pkitest.NewCA(t, pkitest.Spec{Name: "root"}), pkitest.NewCA(t, pkitest.Spec{Name: "root"})}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := s.Verify(t.Context(), request(leaf)); err != nil {
					t.Error(err)
				}
				s.Authorities()
			}
		})
		wg.Go(func() {
			for i := range 100 {
				o := others[i%2].Cert
				_ = s.Add(pki.Anchor, o)
				_, _ = s.AddCRL(l)
				_ = s.SetAuthority(pki.Authority{Name: "x", CA: o})
				s.Remove(pki.Anchor, o)
				s.FlushCRLs()
				s.List(pki.Anchor)
			}
		})
	}
	wg.Wait()
}

// TestMalformedRequest answers requests without a certificate.
func TestMalformedRequest(t *testing.T) {
	refused(t, storeOf(t), pki.VerifyRequest{}, pki.Untrusted, "there is no certificate")
}

// TestAnchorAsLeaf judges an anchor that a peer authenticates with like any other.
func TestAnchorAsLeaf(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		refused(t, storeOf(t, ca), request(ca), pki.KeyUsage, "digitalSignature")
		both := pkitest.NewCA(t, pkitest.Spec{Name: "both", Key: kind, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature})
		accepted(t, storeOf(t, both), request(both), "both")
	}
}

// giant is an RSA key whose verifications are as slow as they can be.
type giant struct{ crypto.Signer }

func (giant) Public() crypto.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 16383)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(12345)), E: 1<<31 - 1}
}

// fatal is a pkitest.TB that tells of what can't be made.
type fatal struct{}

func (fatal) Helper()                           {}
func (fatal) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// TestGiantKeys reads no certificate whose RSA key only costs time.
func TestGiantKeys(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "unacceptable public key") {
			t.Fatalf("got %v", r)
		}
	}()
	evil := pkitest.NewCA(fatal{}, pkitest.Spec{Name: "evil", Key: pkitest.RSA2048})
	evil.IssueCA(pkitest.Spec{Name: "sub", Signer: giant{}})
}

// TestLongNames cuts what goes into errors and traces.
func TestLongNames(t *testing.T) {
	e := pkitest.NewCA(t, pkitest.Spec{Name: strings.Repeat("x\n", 5000)})
	_, err := storeOf(t).Verify(t.Context(), request(e.Issue(pkitest.Spec{Name: "a\nb"})))
	if err == nil || len(err.Error()) > 2000 || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
}

// TestChainsRemembered verifies again what is remembered: times, constraints,
// revocation, and the store as it is now.
func TestChainsRemembered(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
		sub := ca.IssueCA(pkitest.Spec{Name: "sub", Key: kind, NotAfter: time.Now().Add(time.Hour)})
		leaf := sub.Issue(pkitest.Spec{Name: "leaf"})
		s := storeOf(t, ca)
		r := request(leaf)
		accepted(t, s, r, "leaf sub root")
		accepted(t, s, r, "leaf sub root")
		late := r
		late.At = time.Now().Add(2 * time.Hour)
		refused(t, s, late, pki.Expired, `"CN=sub"`)
		// What the peer sent is part of it.
		refused(t, s, pki.VerifyRequest{Leaf: leaf.Cert}, pki.Untrusted, "CN=sub")
		twin := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind}).IssueCA(pkitest.Spec{Name: "sub", Key: kind})
		refused(t, s, pki.VerifyRequest{Leaf: twin.Issue(pkitest.Spec{Name: "leaf"}).Cert, Intermediates: r.Intermediates}, pki.BadSignature, "")
		strict := r
		strict.Anchors = []*pki.Certificate{twin.Cert}
		refused(t, s, strict, pki.WrongCA, "")
		l, err := pki.ParseCRL(ca.CRL(pkitest.List{Revoked: []*pki.Certificate{sub.Cert}}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddCRL(l); err != nil {
			t.Fatal(err)
		}
		refused(t, s, r, pki.Revoked, `"CN=sub"`)
		s.FlushCRLs()
		accepted(t, s, r, "leaf sub root")
		// A chain that is added later is found, though another is remembered.
		other := pkitest.NewCA(t, pkitest.Spec{Name: "other", Key: kind})
		cross := other.IssueCA(pkitest.Spec{Name: "sub", Signer: sub.Key})
		if err := errors.Join(s.Add(pki.Anchor, other.Cert), s.Add(pki.Intermediate, cross.Cert)); err != nil {
			t.Fatal(err)
		}
		strict.Anchors = []*pki.Certificate{other.Cert}
		accepted(t, s, strict, "leaf sub other")
		s.Remove(pki.Anchor, other.Cert)
		refused(t, s, strict, pki.WrongCA, "")
		s.Remove(pki.Anchor, ca.Cert)
		refused(t, s, r, pki.Untrusted, "")
	}
}
