package config_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adit/internal/config"
	"adit/pki/pkitest"
)

// What belongs together and does not is said with its place.
func TestAdvice(t *testing.T) {
	const secret = "secrets {\n ike {\n secret = a-secret-that-is-long-enough\n }\n}\n"
	old := time.Now().Add(-48 * time.Hour)
	for _, c := range []struct {
		name, text, want string
		prepare          func(t *testing.T, a *authority)
	}{
		{"all is well", gateway("certs = fullchain.pem", "id = moon.example"), "", func(t *testing.T, a *authority) { a.write(t, "private/sun.pem", a.sun.KeyPEM()) }},
		{"found by its name", gateway("id = sun.example", "id = moon.example"), "", func(t *testing.T, a *authority) { a.write(t, "private/sun.pem", a.sun.KeyPEM()) }},
		{"a raw public key", gateway("pubkeys = sun.pem", "pubkeys = sun.pem"), "", func(t *testing.T, a *authority) { a.write(t, "private/sun.pem", a.sun.KeyPEM()) }},
		{"no key", gateway("certs = fullchain.pem", ""), "swanctl.conf:3: connections.gw.local: none of its certificates and public keys has its private key", nil},
		{"no certificate of that name", gateway("id = mars.example", ""), "connections.gw.local: auth = pubkey, but there is no certificate for mars.example with its private key",
			func(t *testing.T, a *authority) { a.write(t, "private/sun.pem", a.sun.KeyPEM()) }},
		{"no certificate at all", "connections { gw {\n children {\n net {\n }\n }\n } }", "connections.gw.local: auth = pubkey, but there is no certificate with its private key", nil},
		{"another's name", gateway("certs = fullchain.pem\n id = mars.example", ""), "connections.gw.local: id mars.example is neither the subject nor a subjectAltName of certificate CN=sun.example",
			func(t *testing.T, a *authority) { a.write(t, "private/sun.pem", a.sun.KeyPEM()) }},
		{"another's name at the peer", gateway("certs = fullchain.pem", "certs = sun.der\n id = mars.example"), "connections.gw.remote: id mars.example is neither the subject nor a subjectAltName of certificate CN=sun.example: the peer cannot",
			func(t *testing.T, a *authority) { a.write(t, "private/sun.pem", a.sun.KeyPEM()) }},
		{"expired", "", "x509/old.pem:1: certificate CN=old has expired on " + old.UTC().Format("2006-01-02"),
			func(t *testing.T, a *authority) {
				a.write(t, "x509/old.pem", a.root.Issue(pkitest.Spec{Name: "old", NotBefore: old.Add(-time.Hour), NotAfter: old}).PEM())
			}},
		{"not valid yet", "", "certificate CN=new is not valid before", func(t *testing.T, a *authority) {
			a.write(t, "x509/new.pem", a.root.Issue(pkitest.Spec{Name: "new", NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}).PEM())
		}},
		{"expired where it is named", gateway("", "certs = /old"), "connections.gw.remote: certificate CN=old has expired", func(t *testing.T, a *authority) {
			a.write(t, "old", a.root.Issue(pkitest.Spec{Name: "old", NotBefore: old.Add(-time.Hour), NotAfter: old}).PEM())
		}},
		{"nothing to believe", gateway("auth = psk", "auth = pubkey") + secret, "swanctl.conf:6: connections.gw.remote: no certificate can be believed", func(t *testing.T, a *authority) {
			a.remove(t, "x509ca/root.pem")
			a.remove(t, "x509/fullchain.pem")
			a.remove(t, "x509/sun.der")
			a.remove(t, "pubkey/sun.pem")
		}},
		{"no pool", strings.Replace(gateway("auth = psk", "auth = psk"), "remote {", "pools = v4\n remote {", 1) + secret, "connections.gw: there is no pool v4 in pools", nil},
		{"no password", gateway("auth = eap-mschapv2\n eap_id = alice", "certs = sun.der") + "secrets {\n eap-1 {\n id = bob\n secret = x\n }\n}", "connections.gw.local: there is no secret of alice for EAP", nil},
		{"a password, once", gateway("auth = eap-mschapv2\n eap_id = alice", "certs = sun.der") + "secrets {\n eap-1 {\n id = alice\n secret = x\n }\n}", "", nil},
		{"no pre-shared key", gateway("auth = psk", "auth = psk"), "swanctl.conf:3: connections.gw.local: auth = psk, but there is no section secrets.ike* for these identities", nil},
		{"another's pre-shared key", gateway("auth = psk\n id = a", "auth = psk\n id = b") + strings.Replace(secret, "ike {", "ike {\n id-1 = c\n id-2 = d", 1), "connections.gw.local: auth = psk, but there is no section", nil},
		{"a pre-shared key", gateway("auth = psk\n id = a", "auth = psk\n id = b") + strings.Replace(secret, "ike {", "ike {\n id = b", 1), "", nil},
		{"a pre-shared key for a pattern", gateway("auth = psk\n id = a", "auth = psk\n id = *.b") + strings.Replace(secret, "ike {", "ike {\n id = x.b", 1), "", nil},
		{"no passwords", gateway("auth = psk", "auth = eap-mschapv2") + secret, "connections.gw.remote: auth = eap-mschapv2, but there is no password in secrets.eap*", nil},
		{"a password of all", gateway("auth = eap-ttls\n id = alice", "certs = sun.der") + "secrets {\n ntlm-1 {\n secret = 0x00112233445566778899aabbccddeeff\n }\n}", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAuthority(t)
			if c.prepare != nil {
				c.prepare(t, a)
			}
			m, err := a.load(t, strings.ReplaceAll(c.text, "/old", a.dir+"/old"))
			if err != nil {
				t.Fatal(err)
			}
			all := ""
			for _, w := range m.Warnings {
				all += w.Pos.String() + ": " + w.Text + "\n"
			}
			if c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("want %q, got\n%s", c.want, all)
			}
			if n := strings.Count(all, "\n"); c.want != "" && c.prepare != nil && n != 1 && !slices.Contains([]string{"expired where it is named", "no certificate of that name"}, c.name) {
				t.Errorf("%d warnings:\n%s", n, all)
			}
		})
	}
}

func TestRFC4945_CertIdentities(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "ca"})
	e := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example", "*.example"}, Emails: []string{"gw@example.org"}, IPs: []string{"192.0.2.1", "fd00::1"}})
	var got []string
	for _, id := range config.CertIdentities(e.Cert) {
		got = append(got, id.String())
	}
	for _, want := range []string{"CN=gw", "gw.example", "*.example", "gw@example.org", "192.0.2.1", "fd00::1"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
}
