package profile

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adit/internal/config"
	"adit/pki/pkitest"
)

// A certificate of an authority that systems know, as by ACME: profiles name none, but
// that for strongSwan, which does not look into the system, has its root.
func TestRootOfTheSystem(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "a public root"})
	sub := root.IssueCA(pkitest.Spec{Name: "sub"})
	gw := sub.Issue(pkitest.Spec{Name: "gw", DNS: []string{"vpn.example.org"}})
	old := systemPool
	defer func() { systemPool = old }()
	systemPool = func() (*x509.CertPool, error) {
		pool := x509.NewCertPool()
		pool.AddCert(root.Cert.X509)
		return pool, nil
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"private/gw.pem": gw.KeyPEM(), "x509/gw.pem": append(gw.PEM(), sub.PEM()...),
		"swanctl.conf": []byte("connections {\n rw {\n pools = v4\n local {\n auth = pubkey\n id = vpn.example.org\n }\n remote {\n auth = eap-mschapv2\n eap_id = %any\n }\n children {\n rw {\n local_ts = 10.0.0.0/8\n }\n }\n }\n}\npools {\n v4 {\n addrs = 10.3.0.0/24\n }\n}\n")} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := config.Load(filepath.Join(dir, "swanctl.conf"), config.Daemon{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Of(m, "", "")
	if err != nil || p.CA != nil || p.Root == nil || !p.Root.Equal(root.Cert) {
		t.Fatalf("%+v %v", p, err)
	}
	p.User = "alice"
	if _, err := p.For("ios"); err == nil || !strings.Contains(err.Error(), "send_cert = always") {
		t.Errorf("for Apple: %v", err)
	}
	p.Unasked = true
	if files, err := p.For("ios"); err != nil || strings.Contains(string(files[0].Data), "ServerCertificateIssuer") {
		t.Errorf("for Apple: %v", err)
	}
	for system, want := range map[string]int{"strongswan": 2, "adit": 1, "networkmanager": 1} {
		if files, err := p.For(system); err != nil || len(files) != want {
			t.Errorf("%s: %d files: %v", system, len(files), err)
		}
	}
}
