package gateway

import (
	"bytes"
	"strings"
	"testing"

	"adit/ike"
	"adit/internal/config"
	"adit/pki"
	"adit/pki/pkitest"
)

// A certificate that the gateway keeps for itself is what the next signature is made
// with, from the moment it comes; loading, unloading and clearing by others leave it.
func TestKeptCertificate(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "sub"})
	g := &Gateway{}
	g.trust.init(nil)
	tr := &g.trust
	client := believer(t, root)
	id := fqdn("vpn.example.org")
	shown := func() (*ike.Signature, error) {
		t.Helper()
		_, s, err := prove(t, tr, client, id, nil, pubkeyPeer(nil))
		return s, err
	}
	is := func(what string, want *pkitest.Entity) {
		t.Helper()
		s, err := shown()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(s.Certs) != 2 || !bytes.Equal(s.Certs[0].Data, want.Cert.DER()) || !bytes.Equal(s.Certs[1].Data, sub.Cert.DER()) {
			t.Errorf("%s: %d certificates, or others", what, len(s.Certs))
		}
	}
	keep := func(name string, e *pkitest.Entity) {
		t.Helper()
		if err := g.KeepCert(name, []*pki.Certificate{e.Cert, sub.Cert}, config.Key{Signer: e.Key, Kept: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := shown(); err == nil || !strings.Contains(err.Error(), "secrets.private*") {
		t.Errorf("without a certificate: %v", err)
	}
	g.MissCert([]string{"VPN.example.org"}, "the authority is dead")
	if _, err := shown(); err == nil || !strings.Contains(err.Error(), "(adit.acme: the authority is dead)") {
		t.Errorf("without a certificate: %v", err)
	}
	spec := pkitest.Spec{Name: "vpn", DNS: []string{"vpn.example.org"}}
	first, second, other := sub.Issue(spec), sub.Issue(spec), sub.Issue(pkitest.Spec{Name: "other", DNS: []string{"other.example.org"}})
	keep("vpn", first)
	keep("other", other)
	is("the first", first)
	keep("vpn", second)
	is("the second", second)
	g.ForgetCert("other") // the intermediate is the first one's, too
	is("without the other", second)

	if err := tr.replace(&config.Model{Certs: []config.Cert{{Kind: config.CertX509, Flag: "NONE", DER: second.Cert.DER()}, {Kind: config.CertX509, Flag: "NONE", DER: first.Cert.DER(), Kept: true}}}); err != nil {
		t.Fatal(err)
	}
	is("after a reload", second)
	if err := tr.replace(&config.Model{}); err != nil {
		t.Fatal(err)
	}
	is("after another", second)
	if ids := g.KeyIDs(); len(ids) != 0 {
		t.Errorf("keys to unload: %q", ids)
	}
	if gone := g.RetainCerts(nil, false); len(gone) != 0 {
		t.Errorf("unloaded: %q", gone)
	}
	is("after unloading", second)
	g.ClearCredentials()
	is("after clearing", second)
	g.ForgetCert("vpn")
	if _, err := shown(); err == nil || len(tr.certs) != 0 || len(tr.keys) != 0 || len(tr.store.List(pki.Trusted)) != 0 || len(tr.store.List(pki.Intermediate)) != 0 {
		t.Errorf("forgotten: %v, %d certificates and %d keys are left", err, len(tr.certs), len(tr.keys))
	}
}
