package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"adit/internal/config"
	"adit/pki/pkitest"
)

func TestACMESections(t *testing.T) {
	d, err := daemon(t, `adit { acme {
  vpn { domains = vpn.example.org
  }
  other {
    domains = VPN2.example.org, a.example.org
    directory = https://ca.example/dir
    agree_tos = yes
    email = ops@example.org
    challenge = tls-alpn-01
    listen = 192.0.2.1:8443
    key = ecdsa256
    cacert = /etc/ca.pem
    profile = shortlived
    eab_kid = k1
    eab_key = "+/8="
  }
  alpn { domains = b.example.org
    challenge = tls-alpn-01 }
} }`)
	if err != nil || len(d.Warnings) > 0 || len(d.ACME) != 3 {
		t.Fatalf("%v %v", d.Warnings, err)
	}
	a, b := d.ACME[0], d.ACME[1]
	if a.Name != "vpn" || !slices.Equal(a.Domains, []string{"vpn.example.org"}) || a.Directory != config.LetsEncrypt || a.Challenge != "http-01" || a.Listen != ":80" || a.Key != "rsa2048" || a.AgreeTOS {
		t.Errorf("%+v", a)
	}
	b.Pos, b.EABKey = a.Pos, nil
	if want := (config.ACME{Name: "other", Domains: []string{"a.example.org", "vpn2.example.org"}, Directory: "https://ca.example/dir", Email: "ops@example.org", CACert: "/etc/ca.pem",
		Challenge: "tls-alpn-01", Listen: "192.0.2.1:8443", Key: "ecdsa256", Profile: "shortlived", EABKeyID: "k1", AgreeTOS: true, Pos: a.Pos}); !reflect.DeepEqual(b, want) {
		t.Errorf("%+v", b)
	}
	if key := d.ACME[1].EABKey; len(key) != 2 || key[0] != 0xfb || key[1] != 0xff {
		t.Errorf("%d bytes of a key", len(key))
	}
	if d.ACME[2].Listen != ":443" {
		t.Errorf("%+v", d.ACME[2])
	}
	const named = "domains = a.example\n"
	for text, want := range map[string]string{
		"":                                 "adit.acme.vpn: domains is missing",
		"domains = *.a.org":                `"*.a.org" is no full name`,
		"domains = localhost":              "is no full name",
		"directory = http://a/":            "is no https URL",
		"email = ops":                      "is no e-mail address",
		"email = \"a <a@b>\"":              "is no e-mail address",
		"challenge = dns-01":               "expected one of http-01, tls-alpn-01",
		"listen = 80":                      "is not [HOST]:PORT",
		"listen = :0":                      "is not [HOST]:PORT",
		"key = ed25519":                    "expected one of rsa2048",
		"cacert = ca.pem":                  "is no absolute path",
		named + "eab_kid = x":              "eab_kid and eab_key belong together",
		named + "eab_kid = x\neab_key = ?": "expected Base64 of a key",
		"domain = x":                       "did you mean domains?",
		"sub {\n}":                         "unknown section",
		"}\nx = y\nz {":                    "a certificate is a section",
	} {
		if _, err := daemon(t, "adit { acme { vpn {\n"+text+"\n} } }"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if d, err := daemon(t, "charon { acme {\n vpn { key = rsa3072\n }\n } }"); err != nil || len(d.ACME) != 0 || len(d.Warnings) != 1 {
		t.Errorf("in section charon: %v %v", d.Warnings, err)
	}
}

// What the gateway gets by itself is seen by whoever reads the configuration, and is not
// sent to the gateway.
func TestACMECertificatesAreKnown(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "swanctl.conf")
	if err := os.WriteFile(file, []byte("connections {\n rw {\n local {\n auth = pubkey\n id = vpn.example.org\n }\n remote {\n auth = psk\n }\n }\n}\nsecrets {\n ike-1 {\n secret = 0123456789abcdef0\n }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := config.Daemon{StateDir: state, ACME: []config.ACME{{Name: "vpn", Domains: []string{"vpn.example.org"}}}}
	warned := func(m *config.Model, what string) bool {
		return slices.ContainsFunc(m.Warnings, func(w config.Warning) bool { return strings.Contains(w.Text, what) })
	}
	m, err := config.Load(file, d)
	if err != nil || !warned(m, "adit.acme.vpn: there is no certificate yet") || !warned(m, "there is no certificate for vpn.example.org") {
		t.Errorf("without a certificate: %v %v", m.Warnings, err)
	}
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := ca.IssueCA(pkitest.Spec{Name: "sub"})
	leaf := sub.Issue(pkitest.Spec{Name: "vpn", DNS: []string{"vpn.example.org"}})
	if err := os.MkdirAll(d.ACMEDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.ACMEDir(), "vpn.pem"), slices.Concat(leaf.KeyPEM(), leaf.PEM(), sub.PEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err = config.Load(file, d)
	if err != nil || len(m.Warnings) > 0 || len(m.Certs) != 2 || len(m.Keys) != 1 || !m.Certs[0].Kept || !m.Keys[0].Kept {
		t.Errorf("with one: %v %v", m.Warnings, err)
	}
	if m, err = config.Check(file, d); err != nil || warned(m, "send_cert = always") {
		t.Errorf("not for clients: %v %v", m.Warnings, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.NewReplacer("auth = psk", "auth = eap-radius\n eap_id = %any").Replace(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err = config.Check(file, d); err != nil || !warned(m, "set send_cert = always") {
		t.Errorf("for clients of an authority that systems know: %v %v", m.Warnings, err)
	}
	p, err := config.LoadPush(file, d)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		if s.Command == "load-cert" || s.Command == "load-key" {
			t.Errorf("%s is sent", s.What)
		}
	}
}
