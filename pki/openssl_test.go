package pki_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"adit/pki"
	"adit/pki/pkitest"
)

// tool is a program that must be there for root; others skip.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getuid() == 0 {
		t.Fatal(err)
	}
	t.Skipf("%v, and not root, whose machines have it", err)
	return ""
}

func write(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRFC6960_OpenSSLResponder has OpenSSL read our requests and answer them, nonce
// included: neither side is our own twin then.
func TestRFC6960_OpenSSLResponder(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.RSA2048} {
		for _, state := range []string{"V", "R", "unknown"} {
			for _, delegated := range []bool{false, true} {
				t.Run(fmt.Sprint(kind, state, delegated), func(t *testing.T) {
					sc := newScene(t, kind, nil, []string{ocspURL})
					dir := t.TempDir()
					signer := sc.ca
					if delegated {
						signer = sc.ca.Issue(pkitest.Spec{Name: "ocsp", Key: kind, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
					}
					ca := write(t, dir, "ca.crt", sc.ca.PEM())
					crt, key := write(t, dir, "s.crt", signer.PEM()), write(t, dir, "s.key", signer.KeyPEM())
					revoked := ""
					if state == "R" {
						revoked = "251001000000Z,keyCompromise"
					}
					index := ""
					if state != "unknown" {
						index = fmt.Sprintf("%s\t491231235959Z\t%s\t%s\tunknown\t/CN=leaf\n", state, revoked, strings.ToUpper(sc.leaf.Cert.Serial()))
					}
					idx := write(t, dir, "index.txt", []byte(index))
					sc.net.answer[ocspURL] = func(q pki.FetchRequest) ([]byte, error) {
						req, resp := write(t, dir, "req", q.Body), filepath.Join(dir, "resp")
						out, err := exec.Command(openssl, "ocsp", "-index", idx, "-CA", ca, "-rsigner", crt, "-rkey", key,
							"-reqin", req, "-respout", resp, "-nmin", "5", "-text").CombinedOutput()
						if err != nil || !strings.Contains(string(out), "OCSP Nonce") {
							t.Errorf("openssl: %v\n%s", err, out)
						}
						return os.ReadFile(resp)
					}
					switch state {
					case "V":
						accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
					case "R":
						refused(t, sc.store, sc.request(pki.Strict), pki.Revoked, "2025-10-01T00:00:00Z, reason: keyCompromise")
					default:
						refused(t, sc.store, sc.request(pki.Strict), pki.RevocationUnknown, "doesn't know")
					}
				})
			}
		}
	}
}

// then is args with tail behind.
func then(tail []string, args ...string) []string { return append(args, tail...) }

// TestRFC5280_StrongSwanPKI reads keys, certificates, CRLs and delta CRLs that
// strongSwan's pki makes.
func TestRFC5280_StrongSwanPKI(t *testing.T) {
	pkiTool := tool(t, "pki")
	for _, kind := range []string{"ecdsa", "ed25519", "ed448", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			padding := []string{"--rsa-padding", "pss"}
			if kind != "rsa" {
				padding = nil
			}
			run := func(name string, args ...string) string {
				cmd := exec.Command(pkiTool, args...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("pki %v: %v\n%s", args, err, stderr.String())
				}
				return write(t, dir, name, out)
			}
			load := func(path string) []byte {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			caKey, key := run("ca.key", "--gen", "--type", kind, "--outform", "pem"), run("key", "--gen", "--type", kind)
			ca := run("ca.crt", then(padding, "--self", "--ca", "--in", caKey, "--dn", "C=CH, O=strongSwan, CN=Root", "--outform", "pem")...)
			issue := func(name string) string {
				return run(name, then(padding, "--issue", "--cacert", ca, "--cakey", caKey, "--in", key, "--type", "priv",
					"--dn", "CN="+name, "--san", name+".example", "--flag", "ikeIntermediate")...)
			}
			good, bad := issue("good"), issue("bad")
			base := run("crl", then(padding, "--signcrl", "--cacert", ca, "--cakey", caKey)...)
			delta := run("delta", then(padding, "--signcrl", "--cacert", ca, "--cakey", caKey, "--lastcrl", base, "--basecrl", base, "--reason", "key-compromise", "--cert", bad)...)
			certs := map[string]*pki.Certificate{}
			for _, path := range []string{ca, good, bad} {
				list, err := pki.ParseCertificates(load(path))
				if err != nil {
					t.Fatal(err)
				}
				certs[path] = list[0]
			}
			for file, cert := range map[string]string{key: good, caKey: ca} {
				signer, err := pki.ParsePrivateKey(load(file), nil)
				if err != nil || !certs[cert].Matches(signer) {
					t.Fatalf("key: %v", err)
				}
			}
			root := strings.TrimPrefix(certs[ca].Subject(), "CN=")
			forms := []string{"der", "pem", "sshkey"}
			switch kind {
			case "rsa":
				forms = append(forms, "dnskey")
			case "ed448":
				forms = forms[:2]
			}
			for _, form := range forms {
				k, err := pki.ParsePublicKey(load(run(form, "--pub", "--in", key, "--type", "priv", "--outform", form)))
				if err != nil || k.KeyHash != certs[good].KeyHash {
					t.Errorf("public key as %s: %v", form, err)
				}
			}
			s := pki.NewStore(nil)
			if err := s.Add(pki.Anchor, certs[ca]); err != nil {
				t.Fatal(err)
			}
			verify := func(path string) pki.VerifyRequest {
				return pki.VerifyRequest{Leaf: certs[path], Revocation: pki.Strict}
			}
			for _, file := range []string{base, delta} {
				l, err := pki.ParseCRL(load(file))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.AddCRL(l); err != nil {
					t.Fatal(err)
				}
				accepted(t, s, verify(good), "good "+root)
				if file == base {
					accepted(t, s, verify(bad), "bad "+root)
				}
			}
			refused(t, s, verify(bad), pki.Revoked, "keyCompromise")
		})
	}
}
