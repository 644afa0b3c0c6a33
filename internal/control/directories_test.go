package control_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"adit/conf"
	"adit/internal/config"
	"adit/pki"
	"adit/pki/pkitest"
	"adit/vici"
)

// What adit reads out of each directory beside swanctl.conf is what Debian's swanctl
// sends of it: which files, as what, and with which flag. The one difference is what adit
// refuses: attribute certificates.
func TestDirectoriesAsSwanctlSendsThem(t *testing.T) {
	if _, err := exec.LookPath("swanctl"); err != nil {
		if os.Getuid() == 0 {
			t.Fatal("swanctl is missing: scripts/setup.sh installs it")
		}
		t.Skip("swanctl is not installed: " + err.Error())
	}
	dir := t.TempDir()
	file := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openssl := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
	}
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	issue := func(name string, kind pkitest.KeyKind) *pkitest.Entity {
		return root.Issue(pkitest.Spec{Name: name, Key: kind})
	}
	one, two, three, four, five := issue("one", pkitest.P256), issue("two", pkitest.RSA2048), issue("three", pkitest.P384), issue("four", pkitest.Ed25519), issue("five", pkitest.P256)
	for name, b := range map[string][]byte{
		"x509ca/root.pem": root.PEM(), "x509/one.pem": one.PEM(), "x509/two.der": two.Cert.DER(), "x509ocsp/ocsp.pem": issue("ocsp", pkitest.P256).PEM(),
		"x509aa/aa.pem": issue("aa", pkitest.P256).PEM(), "x509ac/ac.pem": one.PEM(), "x509crl/root.crl": root.CRL(pkitest.List{}), "pubkey/three.pem": three.PublicPEM(),
		"private/one.pem": one.KeyPEM(), "rsa/two.pem": two.KeyPEM(), "ecdsa/three.pem": three.KeyPEM(), "five.pem": five.KeyPEM(), "five.crt": five.PEM(),
		"strongswan.conf": nil, "four.pem": four.KeyPEM(),
		"swanctl.conf": []byte("include conf.d/*.conf\n"), "conf.d/keys.conf": []byte("secrets {\n pkcs8-a {\n file = four.pem\n secret = sesame\n }\n pkcs12-a {\n file = five.p12\n secret = sesame\n }\n ike-a {\n secret = 0123456789abcdef\n id = a\n }\n}\n"),
	} {
		file(name, b)
	}
	for _, d := range []string{"bliss", "pkcs8", "pkcs12"} { // swanctl 5.9 complains without the first
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", dir+"/four.pem", "-out", dir+"/pkcs8/four.pem", "-passout", "pass:sesame")
	openssl("pkcs12", "-export", "-inkey", dir+"/five.pem", "-in", dir+"/five.crt", "-out", dir+"/pkcs12/five.p12", "-passout", "pass:sesame")

	theirs := swanctlSends(t, dir)
	p, err := config.LoadPush(filepath.Join(dir, "swanctl.conf"), config.Daemon{})
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]int{}
	for _, s := range p.Steps {
		ours[sent(t, s.Command, s.Body)]++
	}
	for _, w := range slices.Sorted(maps.Keys(theirs)) {
		if strings.HasPrefix(w, "load-cert x509_ac") {
			delete(theirs, w)
		}
	}
	if len(theirs) < 13 || !maps.Equal(ours, theirs) {
		t.Errorf("ours:\n%s\nswanctl's:\n%s", strings.Join(slices.Sorted(maps.Keys(ours)), "\n"), strings.Join(slices.Sorted(maps.Keys(theirs)), "\n"))
	}
}

// swanctlSends runs `swanctl --load-creds` against a daemon that writes down what comes.
func swanctlSends(t *testing.T, dir string) map[string]int {
	t.Helper()
	ln, err := vici.Listen("unix://" + filepath.Join(dir, "vici"))
	if err != nil {
		t.Fatal(err)
	}
	srv := vici.NewServer(vici.Options{})
	var mu sync.Mutex
	got := map[string]int{}
	ok := func(*vici.Request) *conf.Section {
		answer := conf.New("")
		answer.Set("success", "yes")
		return answer
	}
	for _, name := range []string{"load-cert", "load-key", "load-shared", "load-token"} {
		srv.Handle(name, func(_ context.Context, r *vici.Request) (*conf.Section, error) {
			mu.Lock()
			defer mu.Unlock()
			got[sent(t, name, r.Msg)]++
			return ok(r), nil
		})
	}
	for _, name := range []string{"get-keys", "get-shared", "unload-key", "unload-shared", "clear-creds", "version"} {
		srv.Handle(name, func(_ context.Context, r *vici.Request) (*conf.Section, error) { return ok(r), nil })
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	cmd := exec.Command("swanctl", "--load-creds", "--noprompt", "--uri", "unix://"+filepath.Join(dir, "vici"))
	cmd.Env = append(os.Environ(), "SWANCTL_DIR="+dir, "STRONGSWAN_CONF="+filepath.Join(dir, "strongswan.conf"))
	out, err := cmd.CombinedOutput()
	srv.Close()
	<-done
	if err != nil {
		t.Logf("swanctl: %v\n%s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	return got
}

// sent is a request in words: keys by the key itself, since their forms differ.
func sent(t *testing.T, command string, body *conf.Section) string {
	t.Helper()
	data := []byte(body.Text("data"))
	switch command {
	case "load-key":
		if key, err := pki.ParsePrivateKey(data, nil); err == nil {
			id, err := pki.KeyID(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			data = id[:]
		}
		return fmt.Sprintf("%s %x", command, data)
	case "load-cert":
		if certs, err := pki.ParseCertificates(data); err == nil {
			data = certs[0].DER()
		}
	}
	sum := sha256.Sum256(data)
	return strings.ToLower(fmt.Sprintf("%s %s %s %v %x", command, body.Text("type"), body.Text("flag"), owners(body), sum[:4]))
}

func owners(body *conf.Section) []string {
	v, _ := body.Get("owners")
	return v.Strings()
}
