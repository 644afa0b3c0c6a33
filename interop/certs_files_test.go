package interop_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// keyFile is one form in which a private key and its certificate lie on a disk.
type keyFile struct {
	name    string
	files   files
	secrets string // the section that holds its passphrase
	bundle  bool   // the certificate comes with the key
}

const passphrase = "correct horse"

// openssl converts by Debian's openssl: the files of others, not our own writing.
func openssl(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(in)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, said.String())
	}
	return out
}

// keyFiles are the forms of one key.
func keyFiles(t *testing.T, e *pkitest.Entity) []keyFile {
	pem, pass := e.KeyPEM(), "pass:"+passphrase
	secret := func(kind, file string) string {
		return fmt.Sprintf("secrets {\n%s-x {\nfile = %s\nsecret = \"%s\"\n}\n}\n", kind, file, passphrase)
	}
	dir := t.TempDir()
	crt := filepath.Join(dir, "crt.pem")
	if err := os.WriteFile(crt, e.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	traditional, dirOf := "rsa", "rsa"
	if strings.HasPrefix(e.Cert.X509.PublicKeyAlgorithm.String(), "ECDSA") {
		traditional, dirOf = "ec", "ecdsa"
	}
	one := func(name, file string, b []byte, secrets string) keyFile {
		return keyFile{name, files{file: b, "x509/mine.pem": e.PEM()}, secrets, false}
	}
	legacy := []string{traditional, "-aes128", "-passout", pass}
	if traditional == "rsa" {
		legacy = append(legacy, "-traditional")
	}
	plain := []string{traditional, "-outform", "DER"}
	if traditional == "rsa" {
		plain = append(plain, "-traditional")
	}
	return []keyFile{
		one("PEM", "private/key.pem", pem, ""),
		one("PKCS#8 DER", "private/key.der", e.KeyDER(), ""),
		one("PKCS#8 AES", "private/key.pem", openssl(t, pem, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", pass), secret("private", "key.pem")),
		one("PKCS#8 in pkcs8", "pkcs8/key.pem", openssl(t, pem, "pkcs8", "-topk8", "-v2", "aes-128-cbc", "-passout", pass), secret("pkcs8", "key.pem")),
		one("traditional DER", dirOf+"/key.der", openssl(t, pem, plain...), ""),
		one("traditional PEM, encrypted", dirOf+"/key.pem", openssl(t, pem, legacy...), secret(dirOf, "key.pem")),
		{"PKCS#12", files{"pkcs12/mine.p12": openssl(t, pem, "pkcs12", "-export", "-inkey", "/dev/stdin", "-in", crt, "-passout", pass)}, secret("pkcs12", "mine.p12"), true},
		{"PKCS#12, old", files{"pkcs12/mine.p12": openssl(t, pem, "pkcs12", "-export", "-legacy", "-inkey", "/dev/stdin", "-in", crt, "-passout", pass)}, secret("pkcs12", "mine.p12"), true},
	}
}

// ends of a set-up with a key file at the left.
func (k keyFile) ends(d duo) (left, right end) {
	left = end{files: k.files.and(trusted(d.ca)), local: "auth = pubkey\nid = " + d.left.Cert.X509.DNSNames[0], remote: "auth = pubkey\nid = " + d.right.Cert.X509.DNSNames[0], top: k.secrets}
	if !k.bundle {
		left.local += "\ncerts = mine.pem"
	}
	right = end{files: owned("mine", d.right).and(trusted(d.ca)), local: "auth = pubkey\ncerts = mine.pem\nid = " + d.right.Cert.X509.DNSNames[0], remote: "auth = pubkey\nid = " + d.left.Cert.X509.DNSNames[0]}
	return left, right
}

// Private keys in every form of file, loaded by the unmodified swanctl.
func TestKeyFiles(t *testing.T) {
	t.Parallel()
	var trials []trial
	for _, kind := range []pkitest.KeyKind{pkitest.RSA2048, pkitest.P256} {
		d := issued(t, "files", kind, kind)
		for _, k := range keyFiles(t, d.left) {
			l, r := k.ends(d)
			trials = append(trials, trial{name: string(kind) + " " + k.name, left: l, right: r})
		}
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.tries(trials) })
}

// The same files as adit itself reads them, beside the configuration that it was
// started with.
func TestKeyFilesOfConfig(t *testing.T) {
	t.Parallel()
	var kinds []duo
	for _, kind := range []pkitest.KeyKind{pkitest.RSA2048, pkitest.P256} {
		kinds = append(kinds, issued(t, "files", kind, kind))
	}
	among(t, led(), settings{middle: lab.Bridge, file: true}, func(t *testing.T, p *path) {
		g, ok := p.left.(*peer.AditGateway)
		if !ok {
			return
		}
		l, r := p.ends(false)
		for i, d := range kinds {
			for n, k := range keyFiles(t, d.left) {
				le, re := k.ends(d)
				name := fmt.Sprintf("net-%d-%d", i, n)
				p.store(g, le.files)
				if err := g.Rewrite(l.with(le.top, site{name: name, local: le.local, remote: le.remote})); err != nil {
					t.Fatal(err)
				}
				if err := g.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
				p.store(p.right, re.files)
				if err := p.right.Load(r.with(re.top, site{name: name, local: re.local, remote: re.remote})); err != nil {
					t.Fatal(err)
				}
				if err := lab.Poll(5*time.Second, func() (bool, error) {
					out, err := g.Swanctl("--list-conns")
					return strings.Contains(out, name+":"), err
				}); err != nil {
					t.Fatalf("%s: not loaded: %v", k.name, err)
				}
				p.reach(t, name)
			}
		}
	})
}
