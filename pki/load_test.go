package pki_test

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"adit/pki"
	"adit/pki/pkitest"
)

func decode64(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), "\n", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestFullchain reads every certificate of a PEM file, whatever stands around.
func TestFullchain(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "sub", Key: pkitest.Ed25519})
	leaf := sub.Issue(pkitest.Spec{Name: "leaf", Key: pkitest.Ed448})
	file := "subject=CN = leaf\nissuer: …\n" + string(leaf.KeyPEM()) + string(leaf.PEM()) + "\n\ntext\r\n" +
		strings.ReplaceAll(string(sub.PEM()), "\n", "\r\n") + string(root.PEM()) + "trailing"
	certs, err := pki.ParseCertificates([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(certs) != "[CN=leaf CN=sub CN=root]" {
		t.Fatalf("got %v", certs)
	}
	both := append(append([]byte{}, leaf.Cert.DER()...), root.Cert.DER()...)
	if certs, err = pki.ParseCertificates(both); err != nil || len(certs) != 2 {
		t.Fatalf("DER back to back: %v, %v", certs, err)
	}
	if certs[0].KeyHash != leaf.Cert.KeyHash || certs[0].KeyHash == certs[0].KeyID {
		t.Fatal("key hashes are wrong")
	}
}

// TestCertificateFilesRefused wants errors that say what was wrong.
func TestCertificateFilesRefused(t *testing.T) {
	e := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	broken := append([]byte{}, e.Cert.DER()...)
	broken = broken[:len(broken)-3]
	for name, tc := range map[string]struct {
		file []byte
		want string
	}{
		"empty":         {nil, "neither PEM nor DER"},
		"a key":         {e.KeyPEM(), `no certificate in the file, but "PRIVATE KEY"`},
		"cut DER":       {broken, "not DER"},
		"second broken": {append(e.PEM(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: broken})...), "certificate 2 of 2"},
		"too large":     {make([]byte, 5<<20), "at most"},
		"too many":      {[]byte(strings.Repeat(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{48, 0}})), 1025)), "more than 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := pki.ParseCertificates(tc.file); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestRFC8017_RFC5915_RFC5958_PrivateKeys reads every form of a clear key, PEM and DER.
func TestRFC8017_RFC5915_RFC5958_PrivateKeys(t *testing.T) {
	for _, f := range clearKeys {
		t.Run(f.name, func(t *testing.T) {
			ask := func() string { t.Error("a passphrase was asked for"); return "" }
			key, err := pki.ParsePrivateKey([]byte(f.pem), ask)
			if err != nil || fmt.Sprintf("%T", key) != f.kind {
				t.Fatalf("got %T, %v", key, err)
			}
			block, _ := pem.Decode([]byte(f.pem))
			der, err := pki.ParsePrivateKey(block.Bytes, ask)
			if err != nil {
				t.Fatal(err)
			}
			a, err1 := pki.KeyHash(key.Public())
			b, err2 := pki.KeyHash(der.Public())
			if err1 != nil || err2 != nil || a != b {
				t.Fatalf("DER differs from PEM: %v %v", err1, err2)
			}
		})
	}
}

// TestRFC8018_EncryptedKeys decrypts what OpenSSL encrypted, and refuses the wrong
// passphrase by name.
func TestRFC8018_EncryptedKeys(t *testing.T) {
	for _, f := range encryptedKeys {
		t.Run(f.name, func(t *testing.T) {
			key, err := pki.ParsePrivateKey([]byte(f.pem), func() string { return passphrase })
			if err != nil || fmt.Sprintf("%T", key) != f.kind {
				t.Fatalf("got %T, %v", key, err)
			}
			if _, err := pki.ParsePrivateKey([]byte(f.pem), func() string { return "wrong" }); !errors.Is(err, pki.ErrPassphrase) {
				t.Fatalf("wrong passphrase: %v", err)
			}
			if _, err := pki.ParsePrivateKey([]byte(f.pem), nil); !errors.Is(err, pki.ErrPassphrase) {
				t.Fatalf("no passphrase: %v", err)
			}
		})
	}
	if _, err := pki.ParsePrivateKey([]byte(pbes1Key), func() string { return passphrase }); err == nil || !strings.Contains(err.Error(), "only PBES2") {
		t.Fatalf("PBES1: %v", err)
	}
}

// TestRFC7292_PKCS12 reads OpenSSL's files, new and old.
func TestRFC7292_PKCS12(t *testing.T) {
	for _, f := range pkcs12Files {
		t.Run(f.name, func(t *testing.T) {
			b := decode64(t, f.base64)
			key, leaf, more, err := pki.ParsePKCS12(b, passphrase)
			if err != nil || leaf.Subject() != "CN=leaf" || len(more) != 1 || more[0].Subject() != "CN=root" || !leaf.Matches(key) {
				t.Fatalf("got %v %v %v", leaf, more, err)
			}
			if _, _, _, err := pki.ParsePKCS12(b, "wrong"); !errors.Is(err, pki.ErrPassphrase) {
				t.Fatalf("wrong passphrase: %v", err)
			}
		})
	}
}

// TestRFC7670_RawPublicKeys reads every form of a public key to the same key.
func TestRFC7670_RawPublicKeys(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.P384, pkitest.RSA2048, pkitest.RSAPSS2048, pkitest.Ed25519, pkitest.Ed448} {
		e := pkitest.NewSelfSigned(t, pkitest.Spec{Key: kind})
		for name, b := range map[string][]byte{"PEM": e.PublicPEM(), "DER": e.Cert.X509.RawSubjectPublicKeyInfo, "certificate": e.PEM()} {
			k, err := pki.ParsePublicKey(b)
			if err != nil || k.KeyHash != e.Cert.KeyHash || k.PSSOnly != (kind == pkitest.RSAPSS2048) {
				t.Errorf("%s as %s: %v", kind, name, err)
			}
		}
	}
	// One key in ssh's form, in that of DNS (RFC 3110) and as PKCS#1 and SPKI.
	forms := publicForms(t)
	want, err := pki.ParsePublicKey(forms["SPKI"])
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range forms {
		if k, err := pki.ParsePublicKey(b); err != nil || k.KeyHash != want.KeyHash {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string]string{"empty": "", "short DNS": "0sAwEAAQ==", "DNS without exponent": "0sAAAAAAAA", "ssh": "ssh-rsa AAAA", "text": "hello"} {
		if _, err := pki.ParsePublicKey([]byte(b)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}
