package config_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"adit/conf"
	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
	"adit/pki"
	"adit/pki/pkitest"
)

func keyID(t *testing.T, e *pkitest.Entity) string {
	t.Helper()
	id, err := pki.KeyID(e.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(id[:])
}

// The directories beside swanctl.conf are read as swanctl does; what cannot be read
// is a warning with its name, and the rest counts.
func TestDirectories(t *testing.T) {
	a := newAuthority(t)
	rsa := a.root.Issue(pkitest.Spec{Name: "rsa", Key: pkitest.RSA2048})
	a.write(t, "x509ca/bundle.pem", append(a.sub.PEM(), a.root.PEM()...))
	a.write(t, "x509ca/leaf.pem", a.sun.PEM())
	a.write(t, "x509/ca.pem", a.sub.PEM())
	a.write(t, "x509/.hidden.pem", []byte("nothing"))
	a.write(t, "x509/broken.pem", []byte("-----BEGIN CERTIFICATE-----\nnothing"))
	a.write(t, "x509ocsp/ocsp.der", a.moon.Cert.DER())
	a.write(t, "x509crl/root.crl", a.root.CRL(pkitest.List{}))
	a.write(t, "x509crl/root.pem", pkitest.CRLPEM(a.root.CRL(pkitest.List{})))
	a.write(t, "x509crl/cert.pem", a.sun.PEM())
	a.write(t, "x509ac/ac.pem", a.sun.PEM())
	a.write(t, "private/sun.pem", a.sun.KeyPEM())
	a.write(t, "private/again.der", a.sun.KeyDER())
	a.write(t, "rsa/rsa.pem", a.write1(rsa))
	a.write(t, "rsa/moon.pem", a.moon.KeyPEM())
	a.write(t, "ecdsa/empty.pem", nil)
	a.write(t, "pkcs8/moon.pem", a.moon.KeyPEM())
	if err := os.Mkdir(filepath.Join(a.dir, "private/sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(a.dir, "private/sun.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	m, err := a.load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range m.Certs {
		name, _ := filepath.Rel(a.dir, c.Pos.File)
		got = append(got, name+" "+string(c.Kind)+" "+c.Flag)
	}
	want := []string{"x509/ca.pem X509 CA", "x509/fullchain.pem X509 NONE", "x509/fullchain.pem X509 NONE", "x509/sun.der X509 NONE",
		"x509ca/bundle.pem X509 CA", "x509ca/bundle.pem X509 CA", "x509ca/root.pem X509 CA", "x509ocsp/ocsp.der X509 OCSP",
		"x509crl/root.crl X509_CRL NONE", "x509crl/root.pem X509_CRL NONE", "pubkey/sun.pem PUBKEY NONE"}
	if !slices.Equal(got, want) {
		t.Errorf("certificates:\n%s", strings.Join(got, "\n"))
	}
	for i, e := range []*pkitest.Entity{a.sub, a.sun, a.sub, a.sun} {
		if !bytes.Equal(m.Certs[i].DER, e.Cert.DER()) {
			t.Errorf("certificate %d is another", i)
		}
	}
	var ids []string
	for _, k := range m.Keys {
		ids = append(ids, k.ID)
	}
	if !slices.Equal(ids, []string{keyID(t, a.sun), keyID(t, rsa), keyID(t, a.moon)}) {
		t.Errorf("keys %v", ids)
	}
	warnings := ""
	for _, w := range m.Warnings {
		warnings += w.Pos.String() + ": " + w.Text + "\n"
	}
	for _, want := range []string{
		"x509/broken.pem:1: not loaded: ", "x509ca/leaf.pem:1: not loaded: ca certificate lacks CA basic constraint, rejected: CN=sun.example",
		"x509crl/cert.pem:1: not loaded: no CRL in the file", "x509ac/ac.pem:1: not loaded: adit does not support attribute certificates", "rsa/moon.pem:1: not loaded: this is no RSA key",
		"ecdsa/empty.pem:1: not loaded: the file is empty", "private/sun.pem:1: this file has secrets and others may read it",
	} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no %q in\n%s", want, warnings)
		}
	}
	if len(m.Warnings) != 7 {
		t.Errorf("warnings:\n%s", warnings)
	}
}

// write1 is the key of an RSA entity in the old PKCS#1 form.
func (a *authority) write1(e *pkitest.Entity) []byte {
	k, err := x509.ParsePKCS8PrivateKey(e.KeyDER())
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func openssl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
}

// Passphrases open the files that they name, several are tried, and a file without
// one is a warning that says which section it wants. Passphrases are in no message.
func TestPassphrases(t *testing.T) {
	a := newAuthority(t)
	key, crt, ca := a.write(t, "k.pem", a.sun.KeyPEM()), a.write(t, "c.pem", a.sun.PEM()), a.write(t, "ca.pem", append(a.sub.PEM(), a.root.PEM()...))
	for _, dir := range []string{"private", "pkcs12"} {
		if err := os.Mkdir(filepath.Join(a.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(a.dir, name) }
	openssl(t, "pkcs8", "-topk8", "-in", key, "-out", at("private/sun.pem"), "-v2", "aes-256-cbc", "-passout", "pass:0xOpenSesame")
	openssl(t, "pkcs8", "-topk8", "-in", key, "-out", at("private/other.pem"), "-v2", "aes-256-cbc", "-passout", "pass:0xOpenSesame")
	openssl(t, "pkcs12", "-export", "-inkey", key, "-in", crt, "-certfile", ca, "-out", at("pkcs12/Sun.p12"), "-passout", "pass:TwelveSesames")
	for _, f := range []string{"private/sun.pem", "private/other.pem", "pkcs12/Sun.p12"} {
		if err := os.Chmod(at(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := func(m *config.Model) string {
		out := ""
		for _, w := range m.Warnings {
			out += w.Pos.String() + ": " + w.Text + "\n"
		}
		if strings.Contains(out, "Sesame") {
			t.Errorf("a passphrase is in a message:\n%s", out)
		}
		return out
	}
	m, err := a.load(t, "")
	if err != nil || len(m.Keys) != 0 {
		t.Fatalf("%v, %d keys", err, len(m.Keys))
	}
	for _, want := range []string{"private/sun.pem:1: not loaded: it is encrypted, and there is no section secrets.private* with file = sun.pem",
		"pkcs12/Sun.p12:1: not loaded: it is encrypted, and there is no section secrets.pkcs12* with file = Sun.p12"} {
		if !strings.Contains(text(m), want) {
			t.Errorf("no %q in\n%s", want, text(m))
		}
	}
	m, err = a.load(t, "secrets {\n private-1 {\n file = sun.pem\n secret = NoSesame\n secret-2 = 0xOpenSesame\n }\n private-2 {\n file = other.pem\n secret = NoSesame\n }\n pkcs12 {\n file = sun.p12\n secret = TwelveSesames\n }\n rsa {\n file = none.pem\n secret = NoSesame\n }\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Keys) != 1 || m.Keys[0].ID != keyID(t, a.sun) {
		t.Errorf("keys: %v\n%s", m.Keys, text(m))
	}
	var flags []string
	for _, c := range m.Certs {
		if strings.HasSuffix(c.Pos.File, ".p12") {
			flags = append(flags, c.Flag)
		}
	}
	if slices.Sort(flags); !slices.Equal(flags, []string{"CA", "CA", "NONE"}) {
		t.Errorf("certificates of the PKCS#12 file: %v", flags)
	}
	for _, want := range []string{"private/other.pem:1: not loaded: the passphrase is wrong", "swanctl.conf:15: secrets.rsa: there is no file none.pem in " + at("rsa")} {
		if !strings.Contains(text(m), want) {
			t.Errorf("no %q in\n%s", want, text(m))
		}
	}
	if len(m.Warnings) != 2 {
		t.Error(text(m))
	}
}

func TestSecrets(t *testing.T) {
	m, err := decode(t, `secrets {
  eap-alice { id = alice
    id-mail = alice@example.org
    secret = x }
  xauth-bob { id = bob
    secret = 0s`+"aGVsbG8="+` }
  ntlm-carol { id = carol
    secret = 0x00112233445566778899aabbccddeeff }
  ike-1 { secret = "a secret that is long enough" }
}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Secrets) != 4 || len(m.Warnings) != 0 {
		t.Fatalf("%v %v", m.Secrets, m.Warnings)
	}
	for i, want := range []struct {
		id, key string
		kind    config.SecretKind
		owners  int
	}{{"eap-alice", "x", config.SecretEAP, 2}, {"xauth-bob", "hello", config.SecretEAP, 1}, {"ntlm-carol", "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", config.SecretNTLM, 1},
		{"ike-1", "a secret that is long enough", config.SecretIKE, 0}} {
		if s := m.Secrets[i]; s.ID != want.id || string(s.Key) != want.key || s.Kind != want.kind || len(s.Owners) != want.owners {
			t.Errorf("%s: %v", want.id, s.Owners)
		}
	}
	if m.Secrets[0].Owners[1] != (ike.Identity{Type: ike.IDRFC822Addr, Data: "alice@example.org"}) {
		t.Error(m.Secrets[0].Owners)
	}
}

func TestPools(t *testing.T) {
	m, err := decode(t, `pools {
  v4 { addrs = 10.3.0.0/24
    dns = 10.3.0.1, fd00::53
    subnet = 10.0.0.0/8, fd00::/16, 192.0.2.7
    netmask = 255.255.255.0
    nbns = 10.3.0.2
    split_include = 10.1.0.0/16
    25 = corp.example, 10.0.0.1
    28672 = hello }
  from { addrs = 10.4.0.100/24 }
  two { addrs = 10.5.0.0/31 }
  one { addrs = 10.5.1.1
    masquerade = yes
    client_to_client = no }
  range { addrs = 10.6.0.1 - 10.6.0.9 }
  v6 { addrs = fd00:3::/64 }
  again { addrs = 10.3.0.128/25 }
}`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"10.3.0.1-10.3.0.254", "10.4.0.100-10.4.0.254", "10.5.0.0-10.5.0.1", "10.5.1.1-10.5.1.1", "10.6.0.1-10.6.0.9", "fd00:3::1-fd00:3::7fff:fffe", "10.3.0.129-10.3.0.254"} {
		if p := m.Pools[i]; p.From.String()+"-"+p.To.String() != want {
			t.Errorf("%s: %v-%v, want %s", p.Name, p.From, p.To, want)
		}
	}
	for i, p := range m.Pools {
		if p.Masquerade != (i == 3) || p.Apart != (i == 3) {
			t.Errorf("%s: masquerade %v, apart %v", p.Name, p.Masquerade, p.Apart)
		}
	}
	want := []wire.Attribute{
		{Type: wire.InternalIP4DNS, Value: []byte{10, 3, 0, 1}}, {Type: wire.InternalIP6DNS, Value: append([]byte{0xfd}, append(make([]byte, 14), 0x53)...)},
		{Type: wire.InternalIP4Subnet, Value: []byte{10, 0, 0, 0, 255, 0, 0, 0}}, {Type: wire.InternalIP6Subnet, Value: append([]byte{0xfd}, append(make([]byte, 15), 16)...)},
		{Type: wire.InternalIP4Subnet, Value: []byte{192, 0, 2, 7, 255, 255, 255, 255}}, {Type: wire.InternalIP4Netmask, Value: []byte{255, 255, 255, 0}},
		{Type: wire.InternalIP4NBNS, Value: []byte{10, 3, 0, 2}}, {Type: 28676, Value: []byte{10, 1, 0, 0, 255, 255, 0, 0}},
		{Type: wire.InternalDNSDomain, Value: []byte("corp.example")}, {Type: wire.InternalDNSDomain, Value: []byte{10, 0, 0, 1}}, {Type: 28672, Value: []byte("hello")},
	}
	if !slices.EqualFunc(m.Pools[0].Attributes, want, func(a, b wire.Attribute) bool { return a.Type == b.Type && bytes.Equal(a.Value, b.Value) }) {
		t.Errorf("attributes: %v", m.Pools[0].Attributes)
	}
	if len(m.Warnings) != 2 || !strings.Contains(m.Warnings[0].Text, "v6.addrs: the pool is cut to the 31 bits") || !strings.Contains(m.Warnings[1].Text, "pools.again: has addresses in common with pools.v4") {
		t.Error(m.Warnings)
	}
}

func TestAuthorities(t *testing.T) {
	a := newAuthority(t)
	m, err := a.load(t, "authorities {\n root {\n cacert = root.pem\n crl_uris = http://crl.example/a, ldap://x/y\n ocsp_uris = http://ocsp.example\n }\n abs {\n file = "+
		filepath.Join(a.dir, "x509ca/root.pem")+"\n cert_uri_base = http://certs.example/\n }\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	r := m.Authorities[0]
	if r.Name != "root" || !bytes.Equal(r.CACert, a.root.Cert.DER()) || len(r.CRLURIs) != 2 || len(r.OCSPURIs) != 1 || !bytes.Equal(m.Authorities[1].CACert, r.CACert) {
		t.Errorf("%+v", r)
	}
	if len(m.Warnings) != 2 || !strings.Contains(m.Warnings[0].Text, "adit fetches by http only") || !strings.Contains(m.Warnings[1].Text, "cert_uri_base has no effect") {
		t.Error(m.Warnings)
	}
	if _, err = a.load(t, "authorities {\n sun {\n cacert = ../x509/sun.der\n }\n}\n"); err == nil || !strings.Contains(err.Error(), "swanctl.conf:3: authorities.sun.cacert: CN=sun.example is no CA certificate") {
		t.Error(err)
	}
}

// The bodies of load-cert and load-key, with the error texts of strongSwan.
func TestDecodeCertAndKey(t *testing.T) {
	a := newAuthority(t)
	body := func(kv ...string) *conf.Section {
		b := conf.New("")
		for i := 0; i < len(kv); i += 2 {
			b.Set(kv[i], kv[i+1])
		}
		return b
	}
	leaf, ca, chain := string(a.sun.Cert.DER()), string(a.root.PEM()), string(a.chain)
	for _, c := range []struct {
		typ, flag, data string
		want            string // kinds and flags, or the error
	}{
		{"", "", leaf, "certificate type missing"},
		{"X509", "CA", "", "certificate data missing"},
		{"what", "", leaf, "invalid certificate type 'what'"},
		{"any", "", leaf, "invalid certificate type 'any'"},
		{"X509", "what", leaf, "invalid certificate flag 'what'"},
		{"X509", "", leaf, "X509 NONE"},
		{"x509", "none", chain, "X509 NONE, X509 NONE"},
		{"X509", "NONE", ca, "X509 CA"},
		{"x509ca", "", ca, "X509 CA"},
		{"X509", "CA", leaf, "parsing X509 certificate failed: ca certificate lacks CA basic constraint, rejected: CN=sun.example"},
		{"X509", "OCSP", leaf, "X509 OCSP"},
		{"X509", "NONE", "xyz", "parsing X509 certificate failed: no certificate in the file: neither PEM nor DER"},
		{"x509crl", "", string(a.root.CRL(pkitest.List{})), "X509_CRL NONE"},
		{"X509_CRL", "", leaf, "parsing X509_CRL certificate failed: CRL: "},
		{"PUBKEY", "", string(a.sunPublic), "PUBKEY NONE"},
		{"X509_AC", "", leaf, "adit does not support attribute certificates"},
	} {
		certs, err := config.DecodeCert(body("type", c.typ, "flag", c.flag, "data", c.data))
		got := ""
		for i, cert := range certs {
			if i > 0 {
				got += ", "
			}
			got += string(cert.Kind) + " " + cert.Flag
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s %s: %q, want %q", c.typ, c.flag, got, c.want)
		}
	}
	rsa := a.root.Issue(pkitest.Spec{Key: pkitest.RSA2048})
	for _, c := range []struct{ typ, data, want string }{
		{"", "x", "key type missing"}, {"dsa", "x", "invalid key type: dsa"}, {"any", "", "key data missing"},
		{"any", string(a.sun.KeyPEM()), keyID(t, a.sun)}, {"ECDSA", string(a.sun.KeyDER()), keyID(t, a.sun)}, {"rsa", string(rsa.KeyDER()), keyID(t, rsa)},
		{"ed25519", string(a.moon.KeyDER()), keyID(t, a.moon)}, {"rsa", string(a.sun.KeyDER()), "parsing RSA private key failed: this is no RSA key"},
		{"any", "garbage", "parsing ANY private key failed: no private key"},
	} {
		k, err := config.DecodeKey(body("type", c.typ, "data", c.data))
		if got := k.ID; err == nil && got != c.want || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %q %v, want %q", c.typ, got, err, c.want)
		}
	}
	pool := conf.New("p")
	pool.Set("addrs", "10.0.0.0/24")
	pool.SetList("dns", "10.0.0.1", "fd00::1")
	if p, err := config.DecodePool(pool); err != nil || p.Name != "p" || len(p.Attributes) != 2 {
		t.Error(p, err)
	}
	pool.SetList("masquerade", "yes") // swanctl sends all but addrs as lists
	if p, err := config.DecodePool(pool); err != nil || !p.Masquerade || len(p.Attributes) != 2 {
		t.Error(p, err)
	}
	pool.SetList("masquerade", "yes", "no")
	if _, err := config.DecodePool(pool); err == nil {
		t.Error("masquerade takes two values")
	}
	if _, err := config.DecodePool(conf.New("p")); err == nil || err.Error() != "missing addrs for pool 'p'" {
		t.Error(err)
	}
	auth := conf.New("root")
	auth.Set("cacert", string(a.root.Cert.DER()))
	auth.SetList("crl_uris", "http://a/b")
	if got, err := config.DecodeAuthority(auth); err != nil || len(got.CRLURIs) != 1 || !bytes.Equal(got.CACert, a.root.Cert.DER()) {
		t.Error(err)
	}
	if _, err := config.DecodeAuthority(conf.New("root")); err == nil || err.Error() != "CA certificate missing: root" {
		t.Error(err)
	}
}

// What VICI's client names in list-certs and flush-certs.
func TestParseCertKind(t *testing.T) {
	for _, c := range []struct{ typ, flag, want string }{
		{"", "", " "}, {"ANY", "CA", " "}, {"x509", "any", "X509 "}, {"X509", "ca", "X509 CA"}, {"x509ca", "", "X509 CA"}, {"x509_crl", "", "X509_CRL "},
		{"ocsp_response", "", "OCSP_RESPONSE "}, {"pubkey", "x", "PUBKEY "}, {"x509crl", "", "X509_CRL NONE"},
	} {
		kind, flag, err := config.ParseCertKind(c.typ, c.flag)
		if err != nil || string(kind)+" "+flag != c.want {
			t.Errorf("%s %s: %s %s %v", c.typ, c.flag, kind, flag, err)
		}
	}
	if _, _, err := config.ParseCertKind("pgp", ""); err == nil || err.Error() != "invalid certificate type 'pgp'" {
		t.Error(err)
	}
	if _, _, err := config.ParseCertKind("x509", "x"); err == nil || err.Error() != "invalid certificate flag 'x'" {
		t.Error(err)
	}
}

// FuzzDecodeCredential decodes bodies of VICI's load-cert, load-key, load-pool and load-authority.
func FuzzDecodeCredential(f *testing.F) {
	ca := pkitest.NewCA(f, pkitest.Spec{Name: "ca"})
	f.Add("X509", "CA", string(ca.PEM()))
	f.Add("X509_CRL", "", string(ca.CRL(pkitest.List{})))
	f.Add("any", "", string(ca.KeyPEM()))
	f.Add("PUBKEY", "", string(ca.PublicPEM()))
	f.Add("10.0.0.0/24", "25", "10.0.0.1")
	noise := make([]byte, 64)
	_, _ = rand.Read(noise)
	f.Add("X509", "", string(noise))
	f.Fuzz(func(t *testing.T, typ, flag, data string) {
		b := conf.New("x")
		b.Set("type", typ)
		b.Set("flag", flag)
		b.Set("data", data)
		if certs, err := config.DecodeCert(b); err == nil && len(certs) == 0 {
			t.Fatal("neither a certificate nor an error")
		}
		if k, err := config.DecodeKey(b); err == nil && (k.Signer == nil || len(k.ID) != 40) {
			t.Fatal("neither a key nor an error")
		}
		_, _, _ = config.ParseCertKind(typ, flag)
		p := conf.New("p")
		p.Set("addrs", typ)
		p.SetList(flag, data)
		if pool, err := config.DecodePool(p); err == nil && (!pool.From.IsValid() || pool.To.Less(pool.From)) {
			t.Fatalf("a pool from %v to %v", pool.From, pool.To)
		}
		c := conf.New("c")
		c.Set("cacert", data)
		c.SetList("crl_uris", typ, flag)
		if a, err := config.DecodeAuthority(c); err == nil && len(a.CACert) == 0 {
			t.Fatal("an authority without a certificate")
		}
	})
}
