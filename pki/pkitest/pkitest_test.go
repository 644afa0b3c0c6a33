package pkitest_test

import (
	"bytes"
	"crypto"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"adit/pki"
	"adit/pki/pkitest"
)

var kinds = []pkitest.KeyKind{pkitest.P256, pkitest.P384, pkitest.P521, pkitest.RSA2048,
	pkitest.RSAPSS2048, pkitest.Ed25519, pkitest.Ed448}

// TestOpenSSLAgrees has OpenSSL verify what is made, of every kind of key: then our
// own verification is tested with good material.
func TestOpenSSLAgrees(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			ca := pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
			sub := ca.IssueCA(pkitest.Spec{Name: "sub", Key: kind, MaxPathLen: -1})
			leaf := sub.Issue(pkitest.Spec{Name: "leaf", Key: kind, DNS: []string{"leaf.example"}, IPs: []string{"192.0.2.1"}})
			ca.WriteFiles(dir, "ca")
			sub.WriteFiles(dir, "sub")
			crt, key := leaf.WriteFiles(dir, "leaf")
			crl := filepath.Join(dir, "crl.pem")
			if err := os.WriteFile(crl, pkitest.CRLPEM(sub.CRL(pkitest.List{})), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"verify", "-x509_strict", "-crl_check", "-CAfile", filepath.Join(dir, "ca.crt"), "-untrusted", filepath.Join(dir, "sub.crt"), "-CRLfile", crl, crt},
				{"pkey", "-check", "-noout", "-in", key},
			} {
				if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", args, err, out)
				}
			}
			certs, err := pki.ParseCertificates(leaf.ChainPEM())
			if err != nil || len(certs) != 2 || !certs[1].Equal(sub.Cert) {
				t.Fatalf("chain: %v, %v", certs, err)
			}
			signer, err := pki.ParsePrivateKey(leaf.KeyPEM(), nil)
			if err != nil || !leaf.Cert.Matches(signer) {
				t.Fatalf("key doesn't match: %v", err)
			}
		})
	}
}

// TestMarkedHash checks that broken hashes can be made, for others to refuse.
func TestMarkedHash(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Key: pkitest.RSA2048})
	weak := ca.Issue(pkitest.Spec{Hash: crypto.MD5})
	if !bytes.Contains(weak.Cert.DER(), []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4}) {
		t.Fatal("not marked as signed with MD5")
	}
}
