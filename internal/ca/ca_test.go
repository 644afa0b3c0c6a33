package ca_test

import (
	"context"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/internal/ca"
	"adit/pki"
)

func authority(t *testing.T, kind string) (*ca.CA, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	c, err := ca.Init(dir, "Test CA", kind, 3650)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, dir
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// What clients insist on, seen by openssl: EKUs, names, purposes, the chain.
func TestGatewayCertificate(t *testing.T) {
	c, dir := authority(t, ca.P256)
	i, err := c.Gateway([]string{"vpn.example.org", "192.0.2.2"}, ca.RSA2048, 365, []string{"http://192.0.2.2/ca.crl"})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "gw.pem")
	if err := os.WriteFile(name, i.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl(t, "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "vpn.example.org", "-CAfile", filepath.Join(dir, "ca.pem"), name)
	text := openssl(t, "x509", "-in", name, "-noout", "-text")
	for _, want := range []string{"TLS Web Server Authentication", "1.3.6.1.5.5.8.2.2", "DNS:vpn.example.org", "DNS:192.0.2.2", "IP Address:192.0.2.2",
		"CN = vpn.example.org", "Digital Signature", "http://192.0.2.2/ca.crl", "Public-Key: (2048 bit)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("ca.key: %v %v", fi, err)
	}
	for _, bad := range [][]string{nil, {"vpn"}, {"*.example.org"}, {"vpn..org"}, {"a b.org"}, {"vpn.example.org\x00.evil"}} {
		if _, err := c.Gateway(bad, ca.P256, 365, nil); err == nil {
			t.Errorf("%q was issued", bad)
		}
	}
	if _, err := c.Gateway([]string{"vpn.example.org"}, ca.P256, 826, nil); err == nil {
		t.Error("826 days")
	}
}

// PKCS#12 of both kinds is read by openssl and by our own reader.
func TestUserPKCS12(t *testing.T) {
	c, dir := authority(t, ca.P256)
	for _, kind := range []string{ca.RSA2048, ca.P256} {
		i, err := c.User("alice@example.org", kind, 365, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e := i.Cert.X509; len(e.EmailAddresses) != 1 || e.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || e.IsCA {
			t.Errorf("%+v", e)
		}
		for _, legacy := range []bool{false, true} {
			b, err := pki.EncodePKCS12(i.Key, i.Cert, []*pki.Certificate{c.Cert}, "open sesame", legacy)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, "alice.p12")
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"pkcs12", "-in", name, "-passin", "pass:open sesame", "-nodes", "-info"}
			if legacy {
				args = append(args, "-legacy")
			}
			out := openssl(t, args...)
			if want := map[bool]string{false: "PBES2", true: "pbeWithSHA1And3-KeyTripleDES-CBC"}[legacy]; !strings.Contains(out, want) || strings.Count(out, "BEGIN CERTIFICATE") != 2 || !strings.Contains(out, "PRIVATE KEY") {
				t.Errorf("%s, legacy %v:\n%s", kind, legacy, out)
			}
			key, leaf, rest, err := pki.ParsePKCS12(b, "open sesame")
			if err != nil || !leaf.Equal(i.Cert) || len(rest) != 1 || !leaf.Matches(key) {
				t.Errorf("%v %v", leaf, err)
			}
		}
	}
	for _, bad := range []string{"", "a b", "alice\n", "al*", strings.Repeat("a", 65), "álice"} {
		if _, err := c.User(bad, ca.P256, 365, nil); err == nil {
			t.Errorf("%q was issued", bad)
		}
	}
}

// Renewed certificates have the same names and another key; revoked ones are on the
// CRL, and a store that has it refuses them. The directory holds all of that.
func TestRenewAndRevoke(t *testing.T) {
	c, dir := authority(t, ca.P256)
	first, err := c.User("bob", ca.P256, 100, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err = ca.Open(dir); err != nil {
		t.Fatal(err)
	}
	second, kind, err := c.Renew("bob")
	if err != nil || kind != ca.KindUser || second.Cert.X509.DNSNames[0] != "bob" || second.Cert.KeyHash == first.Cert.KeyHash {
		t.Fatalf("%v %v", second, err)
	}
	if life := second.Cert.X509.NotAfter.Sub(second.Cert.X509.NotBefore); life < 100*24*time.Hour || life > 101*24*time.Hour {
		t.Errorf("lifetime %v", life)
	}
	if list, err := c.Revoke(first.Cert.Serial(), "key-compromise"); err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	crl, err := c.CRL(30)
	if err != nil {
		t.Fatal(err)
	}
	store := pki.NewStore(nil)
	if err := store.Add(pki.Anchor, c.Cert); err != nil {
		t.Fatal(err)
	}
	l, err := pki.ParseCRL(crl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.AddCRL(l); err != nil {
		t.Fatal(err)
	}
	check := func(cert *pki.Certificate) error {
		_, err := store.Verify(context.Background(), pki.VerifyRequest{Leaf: cert})
		return err
	}
	if err := check(first.Cert); err == nil || !strings.Contains(err.Error(), "keyCompromise") {
		t.Errorf("the revoked one: %v", err)
	}
	if err := check(second.Cert); err != nil {
		t.Errorf("the new one: %v", err)
	}
	name := filepath.Join(dir, "crl.pem")
	if err := os.WriteFile(name, crl, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := openssl(t, "crl", "-in", name, "-CAfile", filepath.Join(dir, "ca.pem"), "-noout", "-text"); !strings.Contains(out, "verify OK") || !strings.Contains(out, "Key Compromise") {
		t.Errorf("openssl: %s", out)
	}
	if _, err := c.Revoke("nobody", "unspecified"); err == nil {
		t.Error("nobody was revoked")
	}
	c.Close() // others wait for the lock
	if _, err := ca.Init(dir, "again", ca.P256, 10); err == nil {
		t.Error("the authority was made twice")
	}
	if _, err := ca.Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "adit pki init") {
		t.Errorf("%v", err)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("4a01 user bob 2027-01-01T00:00:00Z - -\n4a02 gateway vpn.example.org 2027-01-01T00:00:00Z 2026-01-01T00:00:00Z superseded\n"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ca.ParseList(b) })
}
