package gateway

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
	"adit/pki/pkitest"
	"adit/suite/sig"
)

// believer is a trust with a CA and what it issued.
func believer(t *testing.T, ca *pkitest.Entity, own ...*pkitest.Entity) *trust {
	t.Helper()
	tr := &trust{}
	tr.init(nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if ca != nil {
		must(tr.load(config.Cert{Kind: config.CertX509, Flag: "CA", DER: ca.Cert.DER()}, FromVICI))
	}
	for _, e := range own {
		must(tr.load(config.Cert{Kind: config.CertX509, Flag: "NONE", DER: e.Cert.DER()}, FromVICI))
		must(tr.loadKey(config.Key{Signer: e.Key}, FromVICI))
	}
	return tr
}

func fqdn(s string) ike.Identity { return ike.Identity{Type: ike.IDFQDN, Data: s} }

func pubkeyPeer(f func(local, remote *ike.AuthRound)) *ike.Peer {
	p := &ike.Peer{Name: "gw", Local: []ike.AuthRound{{Name: "local", Method: ike.AuthPubkey}}, Remote: []ike.AuthRound{{Name: "remote", Method: ike.AuthPubkey}}, SendCert: ike.SendAlways}
	if f != nil {
		f(&p.Local[0], &p.Remote[0])
	}
	return p
}

var octets = []byte("what RFC 7296 section 2.15 has signed")

// prove has one side sign and the other verify.
func prove(t *testing.T, signer, verifier *trust, id ike.Identity, hashes []uint16, peers ...*ike.Peer) (*ike.Verdict, *ike.Signature, error) {
	t.Helper()
	s, err := signer.sign(ike.SignAuth{Peer: peers[0], ID: id, Octets: octets, Hashes: hashes, Requested: true})
	if err != nil {
		return nil, nil, err
	}
	v, err := verifier.verify(context.Background(), readProof(ike.VerifyAuth{Peers: peers, ID: id, Certs: s.Certs, Method: s.Method, Data: s.Data, Octets: octets}))
	return v, s, err
}

var allHashes = []uint16{2, 3, 4, 5}

func TestRFC7427_SignaturesOfEveryKey(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.RSA2048, pkitest.P256, pkitest.P384, pkitest.P521, pkitest.Ed25519, pkitest.Ed448, pkitest.RSAPSS2048} {
		t.Run(string(kind), func(t *testing.T) {
			ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
			gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: kind})
			v, s, err := prove(t, believer(t, ca, gw), believer(t, ca), fqdn("gw.example"), allHashes, pubkeyPeer(nil))
			if err != nil || v.Why[0] != "" || s.Method != wire.AuthMethod(14) {
				t.Fatalf("%+v %+v %v", v, s, err)
			}
			if _, _, err := prove(t, believer(t, ca, gw), believer(t, ca), fqdn("other.example"), allHashes, pubkeyPeer(nil)); err == nil {
				t.Fatal("signed as somebody else")
			}
		})
	}
}

func TestRFC7296_3_8_MethodsFromBeforeRFC7427(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	for kind, method := range map[pkitest.KeyKind]uint8{pkitest.RSA2048: 1, pkitest.P256: 9, pkitest.P384: 10, pkitest.P521: 11} {
		gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: kind})
		v, s, err := prove(t, believer(t, ca, gw), believer(t, ca), fqdn("gw.example"), nil, pubkeyPeer(nil))
		if err != nil || v.Why[0] != "" || uint8(s.Method) != method {
			t.Fatalf("%s: %+v %+v %v", kind, v, s, err)
		}
	}
}

// Which of the candidates fit is told one by one; equal constraints cost once.
func TestConstraintsOfCandidates(t *testing.T) {
	ca, other := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"}), pkitest.NewCA(t, pkitest.Spec{Name: "Other CA"})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: pkitest.P256})
	psk := pubkeyPeer(func(_, r *ike.AuthRound) { r.Method = ike.AuthPSK })
	v, _, err := prove(t, believer(t, ca, gw), believer(t, ca), fqdn("gw.example"), allHashes,
		pubkeyPeer(nil),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.CACerts = [][]byte{other.Cert.DER()} }),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.Constraints = []string{"rsa-2048"} }),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.Certs = [][]byte{other.Cert.DER()} }),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.CertPolicies = []string{"1.2.3.4"} }),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.Revocation = ike.RevocationStrict }),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.Certs = [][]byte{gw.Cert.DER()} }),
		pubkeyPeer(func(_, r *ike.AuthRound) { r.Pubkeys = [][]byte{gw.Cert.X509.RawSubjectPublicKeyInfo} }),
		psk)
	if err != nil {
		t.Fatal(err)
	}
	for i, fits := range []bool{true, false, false, false, false, false, true, true, false} {
		if (v.Why[i] == "") != fits {
			t.Errorf("candidate %d: %q", i, v.Why[i])
		}
	}
}

// A certificate that was renewed lies beside the one that has expired.
func TestRenewedCertificate(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	now := time.Now()
	old := ca.Issue(pkitest.Spec{Name: "old", DNS: []string{"gw.example"}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)})
	next := ca.Issue(pkitest.Spec{Name: "next", DNS: []string{"gw.example"}, NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	v, _, err := prove(t, believer(t, ca, old, next, gw), believer(t, ca), fqdn("gw.example"), allHashes, pubkeyPeer(nil))
	if err != nil || v.Why[0] != "" || v.Subject != "CN=gw" {
		t.Errorf("%+v %v", v, err)
	}
}

// certs and pubkeys of a remote section stand side by side: either will do.
func TestCertsOrPubkeys(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	gw, other := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}}), ca.Issue(pkitest.Spec{Name: "other", DNS: []string{"other.example"}})
	for _, c := range []struct {
		cert, key *pkitest.Entity
		want      bool
	}{{gw, other, true}, {other, gw, true}, {other, other, false}} {
		p := pubkeyPeer(func(_, remote *ike.AuthRound) {
			remote.Certs = [][]byte{c.cert.Cert.DER()}
			remote.Pubkeys = [][]byte{c.key.Cert.X509.RawSubjectPublicKeyInfo}
		})
		v, _, err := prove(t, believer(t, ca, gw), believer(t, ca), fqdn("gw.example"), allHashes, p)
		if err != nil || (v.Why[0] == "") != c.want {
			t.Errorf("%s, %s: %+v %v", c.cert.Cert.Subject(), c.key.Cert.Subject(), v, err)
		}
	}
}

// RSA keys of 1024 bits are taken only where the configuration names that strength.
func TestWeakRSAKeys(t *testing.T) {
	strong := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA", Key: pkitest.RSA2048})
	weak := pkitest.NewCA(t, pkitest.Spec{Name: "Weak CA", Key: pkitest.RSA1024})
	for _, c := range []struct {
		ca   *pkitest.Entity
		key  pkitest.KeyKind
		auth []string
		want bool
	}{
		{strong, pkitest.RSA1024, nil, false},
		{strong, pkitest.RSA1024, []string{"rsa"}, false},
		{strong, pkitest.RSA1024, []string{"rsa-1024"}, true},
		{strong, pkitest.RSA2048, nil, true},
		{weak, pkitest.RSA2048, nil, false},
		{weak, pkitest.RSA2048, []string{"rsa-1024"}, true},
	} {
		gw := c.ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: c.key})
		p := pubkeyPeer(func(_, remote *ike.AuthRound) { remote.Constraints = c.auth })
		v, _, err := prove(t, believer(t, c.ca, gw), believer(t, c.ca), fqdn("gw.example"), allHashes, p)
		if err != nil || (v.Why[0] == "") != c.want || !c.want && !strings.Contains(v.Why[0], "1024") {
			t.Errorf("%s below %s with %v: %+v %v", c.key, c.ca.Cert.Subject(), c.auth, v, err)
		}
	}
}

func TestRFC7296_3_6_IntermediatesAreSent(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "Root"})
	sub := root.IssueCA(pkitest.Spec{Name: "Sub"})
	gw := sub.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	signer := believer(t, root, gw)
	full := pubkeyPeer(func(l, _ *ike.AuthRound) { l.Certs = [][]byte{gw.Cert.DER(), sub.Cert.DER()} }) // fullchain.pem
	v, s, err := prove(t, signer, believer(t, root), fqdn("gw.example"), allHashes, full, pubkeyPeer(nil))
	if err != nil || v.Why[1] != "" || len(s.Certs) != 2 {
		t.Fatalf("%+v %d certificates %v", v, len(s.Certs), err)
	}
	if v, _, _ := prove(t, signer, believer(t, root), fqdn("gw.example"), allHashes, pubkeyPeer(nil)); v.Why[0] == "" || !strings.Contains(v.Why[0], "Sub") {
		t.Fatalf("without the intermediate: %q", v.Why)
	}
}

// A certificate that is loaded is trusted without a CA; one that only was sent is not.
func TestPeerWithoutCertificatePayload(t *testing.T) {
	gw := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	never := pubkeyPeer(func(_, r *ike.AuthRound) {})
	never.SendCert = ike.SendNever
	if v, s, err := prove(t, believer(t, nil, gw), believer(t, nil, gw), fqdn("gw.example"), allHashes, never); err != nil || v.Why[0] != "" || len(s.Certs) != 0 {
		t.Fatalf("%+v %v", v, err)
	}
	if v, _, err := prove(t, believer(t, nil, gw), believer(t, nil), fqdn("gw.example"), allHashes, pubkeyPeer(nil)); err == nil && v.Why[0] == "" {
		t.Fatal("a self-signed certificate from nowhere was believed")
	}
}

func TestRFC7670_RawPublicKey(t *testing.T) {
	gw := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "gw", Key: pkitest.Ed25519})
	spki := gw.Cert.X509.RawSubjectPublicKeyInfo
	p := pubkeyPeer(func(l, r *ike.AuthRound) { l.Pubkeys, r.Pubkeys = [][]byte{spki}, [][]byte{spki} })
	signer := &trust{}
	signer.init(nil)
	if err := signer.loadKey(config.Key{Signer: gw.Key}, FromVICI); err != nil {
		t.Fatal(err)
	}
	v, s, err := prove(t, signer, believer(t, nil), fqdn("gw.example"), allHashes, p, pubkeyPeer(nil))
	if err != nil || v.Why[0] != "" || v.Why[1] == "" || len(s.Certs) != 1 || s.Certs[0].Encoding != wire.CertRawPublicKey {
		t.Fatalf("%+v %+v %v", v, s, err)
	}
	p.SendCert = ike.SendNever
	if v, _, err := prove(t, signer, believer(t, nil), fqdn("gw.example"), allHashes, p); err != nil || v.Why[0] != "" {
		t.Fatalf("without a CERT payload: %+v %v", v, err)
	}
}

// The identity of AUTH must be in the certificate, whoever signed.
func TestIdentityBinding(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, IPs: []string{"192.0.2.1"}})
	verifier := believer(t, ca)
	s, err := believer(t, ca, gw).sign(ike.SignAuth{Peer: pubkeyPeer(nil), ID: fqdn("gw.example"), Octets: octets, Hashes: allHashes})
	if err != nil {
		t.Fatal(err)
	}
	for id, ok := range map[ike.Identity]bool{fqdn("gw.example"): true, fqdn("GW.example"): true, fqdn("*.example"): false, fqdn("gw"): false,
		ike.IdentityFromAddr(netip.MustParseAddr("192.0.2.1")): true, ike.IdentityFromAddr(netip.MustParseAddr("192.0.2.2")): false} {
		v, err := verifier.verify(context.Background(), readProof(ike.VerifyAuth{Peers: []*ike.Peer{pubkeyPeer(nil)}, ID: id, Certs: s.Certs, Method: s.Method, Data: s.Data, Octets: octets}))
		if got := err == nil && v.Why[0] == ""; got != ok {
			t.Errorf("%s: %v %v", id, v, err)
		}
	}
	if v, err := verifier.verify(context.Background(), readProof(ike.VerifyAuth{Peers: []*ike.Peer{pubkeyPeer(nil)}, ID: fqdn("gw.example"), Certs: s.Certs, Method: s.Method, Data: s.Data, Octets: octets[1:]})); err == nil {
		t.Errorf("other octets: %+v", v)
	}
	if v, err := verifier.verify(context.Background(), readProof(ike.VerifyAuth{ID: fqdn("gw.example"), Certs: s.Certs, Method: s.Method, Data: s.Data, Octets: octets})); err != nil || len(v.Why) != 0 {
		t.Errorf("without candidates: %+v %v", v, err)
	}
}

// A constraint that cannot be read matches nobody, it does not vanish.
func TestUnreadableConstraintFailsClosed(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	for name, spoil := range map[string]func(r *ike.AuthRound){
		"certs":   func(r *ike.AuthRound) { r.Certs = [][]byte{{0x30, 0x00}} },
		"cacerts": func(r *ike.AuthRound) { r.CACerts = [][]byte{{0x30, 0x00}} },
	} {
		v, _, err := prove(t, believer(t, ca, gw), believer(t, ca), fqdn("gw.example"), allHashes, pubkeyPeer(nil), pubkeyPeer(func(_, r *ike.AuthRound) { spoil(r) }))
		if err != nil || v.Why[0] != "" || v.Why[1] == "" {
			t.Errorf("%s: %+v %v", name, v, err)
		}
	}
}

// A key that is marked for RSASSA-PSS signs nothing else (RFC 4055 §1.2).
func TestRFC4055_1_2_PSSOnlyKey(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}, Key: pkitest.RSAPSS2048})
	data, err := sig.Sign(gw.Key, sig.Choice{Method: sig.MethodSignature, Scheme: sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}}, octets)
	if err != nil {
		t.Fatal(err)
	}
	q := ike.VerifyAuth{Peers: []*ike.Peer{pubkeyPeer(nil)}, ID: fqdn("gw.example"), Method: wire.AuthMethod(14), Data: data, Octets: octets,
		Certs: []ike.CertPayload{{Encoding: wire.CertX509Signature, Data: gw.Cert.DER()}}}
	if v, err := believer(t, ca).verify(context.Background(), readProof(q)); err == nil {
		t.Fatalf("PKCS#1 v1.5 by a key for PSS: %+v", v)
	}
}

// A shared key that is gone lets nobody back in by a ticket.
func TestTicketWithoutItsSharedKey(t *testing.T) {
	g := examinee(t)
	q := ike.StillTrusted{Peer: &ike.Peer{Remote: []ike.AuthRound{{Method: ike.AuthPSK}}}, LocalID: ident(t, "gw.example"), RemoteID: ident(t, "client.example"),
		Rounds: []ike.ProvedRound{{Method: ike.AuthPSK, ID: ident(t, "client.example")}}}
	if err := g.stillTrusted(t.Context(), q); err == nil || !strings.Contains(err.Error(), "no shared key") {
		t.Errorf("without it: %v", err)
	}
	g.secret(t, config.SecretIKE, []byte("what both know"), "client.example")
	if err := g.stillTrusted(t.Context(), q); err != nil {
		t.Errorf("with it: %v", err)
	}
	q.Rounds = append(q.Rounds, q.Rounds[0])
	if err := g.stillTrusted(t.Context(), q); err == nil {
		t.Error("another number of rounds is let in")
	}
}
