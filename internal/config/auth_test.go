package config_test

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/pki/pkitest"
)

// authority is a small PKI with its files beside a swanctl.conf in dir.
type authority struct {
	dir              string
	root, sub, sun   *pkitest.Entity
	moon             *pkitest.Entity
	chain, sunPublic []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.root = pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: pkitest.P256})
	a.sub = a.root.IssueCA(pkitest.Spec{Name: "sub", Key: pkitest.P256})
	a.sun = a.sub.Issue(pkitest.Spec{Name: "sun.example", DNS: []string{"sun.example"}, Key: pkitest.P256})
	a.moon = a.root.Issue(pkitest.Spec{Name: "moon.example", DNS: []string{"moon.example"}, Key: pkitest.Ed25519})
	a.chain, a.sunPublic = a.sun.ChainPEM(), a.sun.PublicPEM()
	a.write(t, "x509/fullchain.pem", a.chain)
	a.write(t, "x509/sun.der", a.sun.Cert.DER())
	a.write(t, "x509ca/root.pem", a.root.PEM())
	a.write(t, "pubkey/sun.pem", a.sunPublic)
	return a
}

func (a *authority) write(t *testing.T, name string, b []byte) string {
	t.Helper()
	name = filepath.Join(a.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (a *authority) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(a.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) load(t *testing.T, text string) (*config.Model, error) {
	t.Helper()
	d, err := config.LoadDaemon("")
	if err != nil {
		t.Fatal(err)
	}
	return config.Load(a.write(t, "swanctl.conf", []byte(text)), d)
}

// gateway is a connection with the given local and remote sections.
func gateway(local, remote string) string {
	return "connections {\n gw {\n  local {\n" + local + "\n  }\n  remote {\n" + remote + "\n  }\n }\n}\n"
}

func TestAuth(t *testing.T) {
	for _, c := range []struct {
		name, local, remote string
		check               func(l, r ike.AuthRound) bool
	}{
		{"nothing is pubkey", "", "", func(l, r ike.AuthRound) bool {
			return l.Method == ike.AuthPubkey && r.Method == ike.AuthPubkey && l.Constraints == nil && r.ID.IsAny()
		}},
		{"pubkey", "auth = pubkey", "auth = PubKey", func(l, r ike.AuthRound) bool { return r.Method == ike.AuthPubkey && r.Constraints == nil }},
		{"strength", "auth = rsa-2048-sha256", "auth = rsa-3072-sha384-ecdsa-256-sha256", func(l, r ike.AuthRound) bool {
			return slices.Equal(l.Constraints, []string{"rsa-2048-sha256"}) && slices.Equal(r.Constraints, []string{"rsa-3072-sha384-ecdsa-256-sha256"})
		}},
		{"schemes of IKE alone", "auth = ike:rsa/pss-sha256-sha384", "auth = ed25519", func(l, r ike.AuthRound) bool {
			return l.Method == ike.AuthPubkey && slices.Equal(l.Constraints, []string{"ike:rsa/pss-sha256-sha384"}) && slices.Equal(r.Constraints, []string{"ed25519"})
		}},
		{"any", "auth = psk", "auth = any", func(l, r ike.AuthRound) bool { return l.Method == ike.AuthPSK && r.Method == ike.AuthAny }},
		{"eap", "auth = eap", "auth = eap-mschapv2\n eap_id = %any", func(l, r ike.AuthRound) bool {
			return l.Method == ike.AuthEAP && l.EAP == ike.EAPAny && r.EAP == ike.EAPMSCHAPv2 && r.EAPAsk && r.EAPID.IsAny()
		}},
		{"eap as a client", "auth = eap-ttls\n eap_id = alice\n aaa_id = aaa.example", "auth = pubkey", func(l, r ike.AuthRound) bool {
			return l.EAP == ike.EAPTTLS && l.EAPID == (ike.Identity{Type: ike.IDFQDN, Data: "alice"}) && l.AAAID.Data == "aaa.example" && !l.EAPAsk
		}},
		{"eap with constraints", "auth = pubkey", "auth = eap-tls:ecdsa-384-sha384\n eap_id = *@example", func(l, r ike.AuthRound) bool {
			return r.EAP == ike.EAPTLS && slices.Equal(r.Constraints, []string{"ecdsa-384-sha384"}) && r.EAPAsk && r.EAPID.Data == "*@example"
		}},
		{"eap-dynamic", "auth = pubkey", "auth = eap-dynamic", func(l, r ike.AuthRound) bool { return r.EAP == ike.EAPDynamic }},
		{"eap-radius and groups", "auth = pubkey", "auth = eap-radius\n groups = staff, admins", func(l, r ike.AuthRound) bool {
			return r.EAP == ike.EAPRadius && slices.Equal(r.Groups, []string{"staff", "admins"})
		}},
		{"revocation and policies", "", "revocation = strict\n cert_policy = 1.3.6.1.4.1.36906.1.1.1, 2.5.29.32.0", func(l, r ike.AuthRound) bool {
			return r.Revocation == ike.RevocationStrict && slices.Equal(r.CertPolicies, []string{"1.3.6.1.4.1.36906.1.1.1", "2.5.29.32.0"})
		}},
		{"ifuri", "", "revocation = IfURI", func(l, r ike.AuthRound) bool { return r.Revocation == ike.RevocationIfURI }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := decode(t, gateway(c.local, c.remote))
			if err != nil {
				t.Fatal(err)
			}
			p := m.Peers[0]
			if len(p.Local) != 1 || len(p.Remote) != 1 || !c.check(p.Local[0], p.Remote[0]) {
				t.Errorf("%+v\n%+v", p.Local, p.Remote)
			}
		})
	}
}

func TestAuthErrors(t *testing.T) {
	a := newAuthority(t)
	a.write(t, "x509ca/leaf.pem", a.sun.PEM())
	a.write(t, "x509/garbage.pem", []byte("no certificate at all"))
	a.write(t, "x509/empty.pem", nil)
	for _, c := range []struct{ name, local, remote, want string }{
		{"misspelt", "auth = pubky", "", `swanctl.conf:4: connections.gw.local.auth: unknown authentication "pubky"; did you mean pubkey?`},
		{"xauth", "", "auth = xauth-generic", "XAuth belongs to IKEv1"},
		{"xauth of a plugin", "", "auth = xauth-pam", "adit checks XAuth against its secrets"},
		{"any of our own", "auth = any", "", "any is for the remote side only"},
		{"EAP method misspelt", "auth = eap-mschpv2", "", "did you mean mschapv2?"},
		{"EAP method not built", "", "auth = eap-sim", `adit does not support the EAP method "sim"`},
		{"EAP by vendor", "", "auth = eap-7-36906", "adit does not support the EAP method"},
		{"EAP method of a server", "auth = eap-radius", "", "eap-radius is for the side that asks"},
		{"constraints of a password", "", "auth = eap-md5:rsa-2048", "constraints of certificates mean nothing for eap-md5"},
		{"a weak hash", "auth = rsa-2048-md5", "", "rsa signatures with md5 are not supported"},
		{"an odd constraint", "auth = rsa-2048-sah256", "", `unknown element "sah256"`},
		{"bliss", "auth = bliss", "", "bliss signatures are not supported"},
		{"revocation", "", "revocation = strickt", "did you mean strict?"},
		{"policy", "", "cert_policy = 1.2.x", `"1.2.x" is no object identifier`},
		{"policy that is none", "", "cert_policy = 7.1", "no object identifier"},
		{"no file", "certs = other.pem", "", "swanctl.conf:4: connections.gw.local.certs: open " + a.dir + "/x509/other.pem: no such file"},
		{"garbage", "certs = garbage.pem", "", "connections.gw.local.certs: " + a.dir + "/x509/garbage.pem: no certificate in the file"},
		{"empty", "certs = empty.pem", "", "empty.pem: the file is empty"},
		{"no CA", "", "cacerts = leaf.pem", "is no CA certificate: it lacks the basic constraint"},
		{"no key", "", "pubkeys = ../x509/garbage.pem", "garbage.pem: no public key"},
		{"hex", "certs = 0xzz", "", "0x is not followed by hexadecimal digits"},
		{"a token", "cert1 {\n handle = 0815\n }", "", "cert1.handle: adit does not support tokens"},
		{"relative path in a section", "", "cacert {\n file = root.pem\n }", `cacert.file: "root.pem" is no absolute path`},
		{"a section without a file", "", "cert {\n }", "connections.gw.remote.cert: there is no file in it"},
		{"a section's option misspelt", "", "cert {\n fiel = x\n }", "did you mean file?"},
		{"a missing file in a section", "", "cacert-a {\n file = /nowhere/x.pem\n }", "cacert-a.file: open /nowhere/x.pem: no such file"},
		{"a device", "", "cacert-a {\n file = /dev/zero\n }", "not a regular file"},
		{"too many groups", "", "groups = a" + strings.Repeat(", b", 64), "more than 64 groups"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.load(t, gateway(c.local, c.remote))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got error %v, want it to contain %q", err, c.want)
			}
		})
	}
}

// Options of the connection that issue 4 brings, with strongSwan's defaults.
func TestPeerOptions(t *testing.T) {
	peer := func(body string) *ike.Peer {
		t.Helper()
		m, err := decode(t, "connections {\n gw {\n"+body+"\n }\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		return m.Peers[0]
	}
	p := peer("")
	if p.SendCert != ike.SendIfAsked || !p.SendCertReq || p.Fragmentation != ike.FragmentYes || p.Childless != ike.ChildlessAllow || p.VIPs != nil || p.Pools != nil {
		t.Errorf("defaults: %+v", p)
	}
	p = peer("send_cert = always\n send_certreq = no\n fragmentation = accept\n childless = force\n vips = 0.0.0.0, ::, 10.3.0.7\n pools = v4, v6\n ocsp = never\n mobike = no")
	if p.SendCert != ike.SendAlways || p.SendCertReq || p.Fragmentation != ike.FragmentAccept || p.Childless != ike.ChildlessForce ||
		len(p.VIPs) != 3 || p.VIPs[2].String() != "10.3.0.7" || !slices.Equal(p.Pools, []string{"v4", "v6"}) {
		t.Errorf("%+v", p)
	}
	if p = peer("send_cert = never\n fragmentation = disabled\n childless = prefer"); p.SendCert != ike.SendNever || p.Fragmentation != ike.FragmentNo || p.Childless != ike.ChildlessPrefer {
		t.Errorf("%+v", p)
	}
	if p = peer("fragmentation = force\n childless = never"); p.Fragmentation != ike.FragmentForce || p.Childless != ike.ChildlessNever {
		t.Errorf("%+v", p)
	}
	m, err := decode(t, "connections {\n gw {\n children {\n net {\n ipcomp = yes\n }\n }\n }\n}\n")
	if err != nil || len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0].Text, "net.ipcomp has no effect: IPComp is never negotiated") || m.Warnings[0].Pos.Line != 5 {
		t.Errorf("%v %v", m, err)
	}
	for body, want := range map[string]string{"vips = 10.0.0.0/8": "is no address", "fragmentation = perhaps": "expected one of yes, no, accept, force", "childless = maybe": "expected one of",
		"vips = 1.1.1.1" + strings.Repeat(", 1.1.1.1", 16): "more than 16 addresses", "pools = a" + strings.Repeat(", a", 64): "more than 64 pools", "send_cert = allways": "did you mean always?"} {
		if _, err := decode(t, "connections {\n gw {\n"+body+"\n }\n}\n"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "test.conf:3") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// Rounds are ordered by their number, then by their place (RFC 4739).
func TestRFC4739_Rounds(t *testing.T) {
	m, err := decode(t, "connections { gw {\n remote-b {\n round = 2\n auth = eap\n }\n remote-a {\n round = 1\n }\n local1 {\n auth = psk\n }\n local2 {\n }\n local3 {\n auth = eap-gtc\n }\n } }")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range append(m.Peers[0].Local, m.Peers[0].Remote...) {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "local1 local2 local3 remote-a remote-b" {
		t.Error(got)
	}
	text := "connections {\n gw {\n"
	for i := range 9 {
		text += "local" + string(rune('a'+i)) + " {\n }\n"
	}
	if _, err := decode(t, text+"}\n}\n"); err == nil || !strings.Contains(err.Error(), "gw.locali: more than 8 rounds") {
		t.Error(err)
	}
}

// Certificates come from files beside swanctl.conf, by absolute names, from
// sections, or as bytes; every one of a file is read.
func TestCertificatesOfConnections(t *testing.T) {
	a := newAuthority(t)
	abs := a.write(t, "elsewhere.pem", a.moon.PEM())
	m, err := a.load(t, gateway("certs = fullchain.pem, "+abs+"\n cert-x {\n file = "+abs+"\n }",
		"certs = fullchain.pem, 0s"+base64.StdEncoding.EncodeToString(a.moon.Cert.DER())+"\n cacerts = root.pem, 0x"+hex.EncodeToString(a.sub.Cert.DER())+"\n pubkeys = sun.pem"))
	if err != nil {
		t.Fatal(err)
	}
	sun, sub, moon, root := a.sun.Cert.DER(), a.sub.Cert.DER(), a.moon.Cert.DER(), a.root.Cert.DER()
	l, r := m.Peers[0].Local[0], m.Peers[0].Remote[0]
	if !reflect.DeepEqual(l.Certs, [][]byte{sun, sub, moon, moon}) {
		t.Errorf("%d local certificates", len(l.Certs))
	}
	// The intermediate is no certificate of the peer's.
	if !reflect.DeepEqual(r.Certs, [][]byte{sun, moon}) || !reflect.DeepEqual(r.CACerts, [][]byte{root, sub}) {
		t.Errorf("%d certificates and %d CAs of the remote side", len(r.Certs), len(r.CACerts))
	}
	if !reflect.DeepEqual(r.Pubkeys, [][]byte{a.sun.Cert.X509.RawSubjectPublicKeyInfo}) {
		t.Errorf("%d public keys", len(r.Pubkeys))
	}
	// Without id it is the subject of the first certificate.
	for _, round := range []ike.AuthRound{l, r} {
		if round.ID != (ike.Identity{Type: ike.IDDERASN1DN, Data: string(a.sun.Cert.X509.RawSubject)}) {
			t.Errorf("identity %v", round.ID)
		}
	}
	// An id that says %any stays so.
	m, err = a.load(t, gateway("certs = fullchain.pem\n id = %any", "certs = fullchain.pem\n id = %any"))
	if err != nil || !m.Peers[0].Local[0].ID.IsAny() || !m.Peers[0].Remote[0].ID.IsAny() {
		t.Errorf("%v %v", m, err)
	}
	m, err = a.load(t, gateway("certs = fullchain.pem\n id = sun.example", "cacerts = root.pem"))
	if err != nil || m.Peers[0].Local[0].ID.String() != "sun.example" || !m.Peers[0].Remote[0].ID.IsAny() {
		t.Errorf("%v %v", m, err)
	}
}

// VICI brings the bytes: PEM with several certificates, or DER with any byte.
func TestCertificatesByVICI(t *testing.T) {
	a := newAuthority(t)
	body := conf.New("")
	local, remote := body.Add("local"), body.Add("remote")
	local.SetList("certs", string(a.chain), string(a.moon.Cert.DER()))
	remote.SetList("cacerts", string(a.root.Cert.DER()))
	remote.SetList("pubkeys", string(a.sunPublic))
	d, _ := config.LoadDaemon("")
	p, err := config.DecodeConn("gw", body, d)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Local[0].Certs) != 3 || len(p.Remote[0].CACerts) != 1 || len(p.Remote[0].Pubkeys) != 1 {
		t.Errorf("%+v", p)
	}
	body = conf.New("")
	body.Add("local").Set("certs", string(a.moon.Cert.DER()))
	if p, err = config.DecodeConn("gw", body, d); err != nil || len(p.Local[0].Certs) != 1 {
		t.Error(err)
	}
	body = conf.New("")
	body.Add("remote").SetList("cacerts", "0815")
	if _, err = config.DecodeConn("gw", body, d); err == nil || !strings.Contains(err.Error(), "remote.cacerts: number 1: no certificate in the file") {
		t.Error(err)
	}
}

// What has no effect where it stands is said.
func TestAuthWarnings(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct{ local, remote, want string }{
		{"auth = psk\n certs = sun.der", "auth = psk", "connections.gw.local: certificates and keys mean nothing for auth = psk"},
		{"groups = a", "", "connections.gw.local: groups, cacerts, ca_id and cert_policy are constraints on the remote side"},
		{"", "eap_id = %any", "connections.gw.remote: eap_id and aaa_id have no effect"},
		{"", "auth = eap-radius", "strongswan.conf has no charon.plugins.eap-radius server"},
	} {
		m, err := a.load(t, gateway(c.local, c.remote))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(m.Warnings, func(w config.Warning) bool { return strings.Contains(w.Text, c.want) }) {
			t.Errorf("%q %q: %v", c.local, c.remote, m.Warnings)
		}
	}
}
