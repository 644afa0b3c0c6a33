package control_test

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/pki"
	"adit/pki/pkitest"
)

// raw calls a command whose body has bytes that the file's grammar has not.
func (s *side) raw(command string, kv ...string) *conf.Section {
	s.t.Helper()
	msg := conf.New("")
	for i := 0; i < len(kv); i += 2 {
		msg.Set(kv[i], kv[i+1])
	}
	res, err := s.client.Call(s.t.Context(), command, msg)
	if err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	return res
}

// want is a command's outcome: empty for success, else its error.
func (s *side) want(want, command string, kv ...string) {
	s.t.Helper()
	res := s.raw(command, kv...)
	if got := res.Text("errmsg"); (want == "") != (res.Text("success") == "yes") || !strings.Contains(got, want) {
		s.t.Errorf("%s: success = %s, errmsg = %q, want %q", command, res.Text("success"), got, want)
	}
}

func keyID(t *testing.T, e *pkitest.Entity) string {
	t.Helper()
	id, err := pki.KeyID(e.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(id[:])
}

func TestCredentials(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sun := root.Issue(pkitest.Spec{Name: "sun", DNS: []string{"sun.example"}})
	s.want("certificate type missing", "load-cert")
	s.want("invalid certificate type 'what'", "load-cert", "type", "what", "data", "x")
	s.want("certificate data missing", "load-cert", "type", "X509")
	s.want("parsing X509 certificate failed", "load-cert", "type", "X509", "data", "x")
	s.want("ca certificate lacks CA basic constraint, rejected", "load-cert", "type", "X509", "flag", "CA", "data", string(sun.PEM()))
	s.want("", "load-cert", "type", "X509", "flag", "CA", "data", string(root.PEM()))
	s.want("", "load-cert", "type", "X509", "flag", "NONE", "data", string(sun.Cert.DER()))
	s.want("", "load-cert", "type", "X509_CRL", "data", string(root.CRL(pkitest.List{})))
	s.want("", "load-cert", "type", "PUBKEY", "data", string(sun.PublicPEM()))
	s.want("key type missing", "load-key")
	s.want("invalid key type: dsa", "load-key", "type", "dsa", "data", "x")
	s.want("parsing ANY private key failed", "load-key", "type", "any", "data", "secret stuff")
	if res := s.raw("load-key", "type", "ecdsa", "data", string(sun.KeyDER())); res.Text("id") != keyID(t, sun) || res.Text("success") != "yes" {
		t.Error(text(res))
	}
	res, _ := s.call("get-keys", "", "")
	contains(t, text(res), "keys = ["+keyID(t, sun)+"]\n")

	list := func(filter string) []string {
		t.Helper()
		_, events := s.call("list-certs", filter, "list-cert")
		var out []string
		for _, e := range events {
			out = append(out, strings.Join([]string{e.Text("type"), e.Text("flag"), e.Text("has_privkey")}, " "))
			if !slices.Contains([]string{string(root.Cert.DER()), string(sun.Cert.DER()), string(sun.Cert.X509.RawSubjectPublicKeyInfo)}, e.Text("data")) && e.Text("type") != "X509_CRL" {
				t.Errorf("other data of %s", e.Text("type"))
			}
		}
		return out
	}
	for filter, want := range map[string][]string{
		"":                              {"PUBKEY  yes", "X509 NONE yes", "X509 CA ", "X509_CRL  "},
		"type = x509\n":                 {"X509 NONE yes", "X509 CA "},
		"type = x509\nflag = ca\n":      {"X509 CA "},
		"type = x509\nflag = aa\n":      nil,
		"type = pubkey\n":               {"PUBKEY  yes"},
		"type = x509_crl\n":             {"X509_CRL  "},
		"type = ocsp_response\n":        nil,
		"subject = sun.example\n":       {"X509 NONE yes"},
		"subject = *.example\n":         {"X509 NONE yes"},
		"subject = \"CN=root\"\n":       {"X509 CA "},
		"type = x509\nsubject = moon\n": nil,
	} {
		if got := list(filter); !slices.Equal(got, want) {
			t.Errorf("list-certs %q: %q, want %q", filter, got, want)
		}
	}
	s.want("invalid certificate flag 'what'", "list-certs", "type", "x509", "flag", "what")
	s.want("invalid certificate type 'pgp'", "flush-certs", "type", "pgp")
	s.want("", "flush-certs", "type", "x509_crl")
	s.want("", "flush-certs")
	s.want("key id missing", "unload-key")
	s.want("key not found", "unload-key", "id", "00")
	s.want("", "unload-key", "id", keyID(t, sun))
	s.want("", "clear-creds")
	if got := list(""); len(got) != 0 {
		t.Errorf("after clear-creds: %q", got)
	}
	s.want("keyid missing", "load-token")
	// Secrets of EAP, too.
	s.want("", "load-shared", "type", "EAP", "id", "eap-alice", "data", "password")
	s.want("", "load-shared", "type", "xauth", "id", "xauth-bob", "data", "password")
	s.want("an NT hash has 16 bytes", "load-shared", "type", "NTLM", "data", "password")
	res, _ = s.call("get-shared", "", "")
	contains(t, text(res), "keys = [eap-alice xauth-bob]\n")
}

func TestAuthorities(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	load := func(name string, cert []byte) *conf.Section {
		t.Helper()
		msg := conf.New("")
		b := msg.Add(name)
		b.Set("cacert", string(cert))
		b.SetList("crl_uris", "http://crl.example/a", "http://crl.example/b")
		b.SetList("ocsp_uris", "http://ocsp.example")
		res, err := s.client.Call(t.Context(), "load-authority", msg)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := load("root", root.PEM()); res.Text("success") != "yes" {
		t.Fatal(text(res))
	}
	if res := load("bad", root.Issue(pkitest.Spec{Name: "leaf"}).PEM()); !strings.Contains(res.Text("errmsg"), "is no CA certificate") {
		t.Error(text(res))
	}
	s.refused("load-authority", "none {\n crl_uris = http://a/b\n}\n", "CA certificate missing: none")
	res, _ := s.call("get-authorities", "", "")
	contains(t, text(res), "authorities = [root]\n")
	_, events := s.call("list-authorities", "name = root\n", "list-authority")
	if len(events) != 1 {
		t.Fatalf("%d authorities", len(events))
	}
	contains(t, text(events[0]), "root.cacert = CN=root\n", "root.crl_uris = [http://crl.example/a http://crl.example/b]\n", "root.ocsp_uris = [http://ocsp.example]\n")
	if _, none := s.call("list-authorities", "name = other\n", "list-authority"); len(none) != 0 {
		t.Error("the filter lets others through")
	}
	s.want("unload: missing authority name", "unload-authority")
	s.want("unload: authority 'other' not found", "unload-authority", "name", "other")
	s.want("", "unload-authority", "name", "root")
}

func TestPools(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	s.ok("load-pool", "v4 {\n addrs = 10.3.0.0/24\n dns = 10.3.0.1\n}\nv6 {\n addrs = fd00:3::/120\n}\n")
	s.refused("load-pool", "p {\n dns = 10.0.0.1\n}\n", "missing addrs for pool 'p'")
	res, _ := s.call("load-pool", "p {\n addrs = 10.0.0.0/24\n dsn = 10.0.0.1\n}\n", "")
	contains(t, res.Text("errmsg"), "p.dsn: unknown attribute", "did you mean dns?")
	res, _ = s.call("get-pools", "", "")
	contains(t, text(res), "v4.base = 10.3.0.0\n", "v4.size = 254\n", "v4.online = 0\n", "v4.offline = 0\n", "v6.base = fd00:3::\n")
	if strings.Contains(text(res), "leases") {
		t.Error("leases that nobody asked for")
	}
	res, _ = s.call("get-pools", "name = v6\nleases = yes\n", "")
	if res.Sub("v4") != nil || res.Sub("v6") == nil || res.Sub("v6").Sub("leases") == nil {
		t.Error(text(res))
	}
	s.want("missing pool name to unload", "unload-pool")
	s.want("other not found", "unload-pool", "name", "other")
	s.want("", "unload-pool", "name", "v4")
}

// All that list-conns tells of authentication.
func TestListRounds(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sun := root.Issue(pkitest.Spec{Name: "sun"})
	msg := conf.New("")
	gw := msg.Add("gw")
	local, second, remote, other := gw.Add("local"), gw.Add("local2"), gw.Add("remote"), gw.Add("remote2")
	local.SetList("certs", string(sun.PEM()))
	second.Set("auth", "eap-ttls")
	second.Set("eap_id", "alice")
	second.Set("aaa_id", "aaa.example")
	remote.SetList("cacerts", string(root.PEM()))
	remote.SetList("cert_policy", "1.2.3")
	remote.Set("revocation", "strict")
	remote.Set("id", "*.example")
	other.Set("auth", "eap-radius")
	other.Set("eap_id", "%any")
	other.SetList("groups", "staff", "admins")
	gw.Add("remote3").SetList("pubkeys", string(sun.PublicPEM()))
	res, err := s.client.Call(t.Context(), "load-conn", msg)
	if err != nil || res.Text("success") != "yes" {
		t.Fatal(err, text(res))
	}
	_, conns := s.call("list-conns", "", "list-conn")
	contains(t, text(conns[0]), "gw.local-1.id = CN=sun\n", "gw.local-1.certs = [CN=sun]\n",
		"gw.local-2.class = EAP\n", "gw.local-2.eap-type = EAP_TTLS\n", "gw.local-2.aaa_id = aaa.example\n", "gw.local-2.eap_id = alice\n",
		"gw.remote-1.revocation = GOOD\n", "gw.remote-1.id = *.example\n", "gw.remote-1.cert_policy = [1.2.3]\n", "gw.remote-1.cacerts = [CN=root]\n", "gw.remote-1.groups = []\n",
		"gw.remote-2.class = EAP\n", "gw.remote-2.eap-type = EAP_RADIUS\n", "gw.remote-2.eap_id = %any\n", "gw.remote-2.groups = [staff admins]\n", "gw.remote-3.certs = [")
}

// Two gateways that clients gave certificates, keys and connections build a tunnel.
func TestTunnelWithCertificatesOverVICI(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "sub"})
	wire := conn.NewNetwork()
	left, right := newSide(t, wire, "192.0.2.1"), newSide(t, wire, "192.0.2.2")
	for i, s := range []*side{left, right} {
		own, peer := []string{"left", "right"}[i], []string{"right", "left"}[i]
		addr, ts := []string{"192.0.2.1", "192.0.2.2"}, []string{"10.1.0.0/24", "10.2.0.0/24"}
		e := sub.Issue(pkitest.Spec{Name: own, DNS: []string{own + ".example"}})
		s.want("", "load-cert", "type", "X509", "flag", "CA", "data", string(root.PEM()))
		s.want("", "load-key", "type", "any", "data", string(e.KeyPEM()))
		msg := conf.New("")
		gw := msg.Add("gw")
		gw.SetList("local_addrs", addr[i])
		gw.SetList("remote_addrs", addr[1-i])
		local, remote := gw.Add("local"), gw.Add("remote")
		local.SetList("certs", string(e.ChainPEM()))
		remote.Set("id", peer+".example")
		remote.Set("auth", "ecdsa-256-sha256")
		local.Set("id", own+".example")
		net := gw.Add("children").Add("net")
		net.SetList("local_ts", ts[i])
		net.SetList("remote_ts", ts[1-i])
		res, err := s.client.Call(t.Context(), "load-conn", msg)
		if err != nil || res.Text("success") != "yes" {
			t.Fatal(err, text(res))
		}
	}
	res, lines := left.call("initiate", "child = net\ntimeout = 10000\n", "control-log")
	if res.Text("success") != "yes" {
		for _, l := range lines {
			t.Log(l.Text("msg"))
		}
		t.Fatal(res.Text("errmsg"))
	}
	_, sas := right.call("list-sas", "", "list-sa")
	contains(t, text(sas[0]), "gw.state = ESTABLISHED\n", "gw.remote-id = left.example\n", "net-1.state = INSTALLED\n")
}

// A client with a name and a password gets an address, and both sides tell of it.
func TestRemoteAccessOverVICI(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	gw := root.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	wire := conn.NewNetwork()
	client, server := newSide(t, wire, "192.0.2.1"), newSide(t, wire, "192.0.2.2")
	client.want("", "load-cert", "type", "X509", "flag", "CA", "data", string(root.PEM()))
	client.ok("load-shared", "type = EAP\nid = eap\ndata = wonderland\nowners = alice\n")
	client.ok("load-conn", "rw {\n remote_addrs = 192.0.2.2\n vips = 0.0.0.0\n local {\n auth = eap-mschapv2\n id = alice@phone\n eap_id = alice\n }\n remote {\n auth = pubkey\n id = gw.example\n }\n"+
		" children {\n net {\n remote_ts = 10.2.0.0/24\n }\n }\n}\n")
	server.want("", "load-cert", "type", "X509", "flag", "NONE", "data", string(gw.PEM()))
	server.want("", "load-key", "type", "any", "data", string(gw.KeyPEM()))
	server.ok("load-shared", "type = EAP\nid = eap\ndata = wonderland\nowners = alice\n")
	server.ok("load-pool", "v4 {\n addrs = 10.3.0.0/24\n dns = 10.3.0.1\n}\n")
	server.ok("load-conn", "rw {\n pools = v4\n local {\n id = gw.example\n }\n remote {\n auth = eap-mschapv2\n eap_id = %any\n }\n children {\n net {\n local_ts = 10.2.0.0/24\n }\n }\n}\n")
	res, lines := client.call("initiate", "child = net\ntimeout = 10000\n", "control-log")
	if res.Text("success") != "yes" {
		for _, l := range lines {
			t.Log(l.Text("msg"))
		}
		t.Fatal(res.Text("errmsg"))
	}
	for _, l := range lines {
		if strings.Contains(l.Text("msg"), "wonderland") {
			t.Errorf("the password is in the log: %s", l.Text("msg"))
		}
	}
	_, sas := client.call("list-sas", "", "list-sa")
	contains(t, text(sas[0]), "rw.local-id = alice@phone\n", "rw.local-vips = [10.3.0.1]\n", "net-1.local-ts = [10.3.0.1/32]\n")
	_, sas = server.call("list-sas", "", "list-sa")
	contains(t, text(sas[0]), "rw.remote-id = alice@phone\n", "rw.remote-eap-id = alice\n", "rw.remote-vips = [10.3.0.1]\n")
	pools, _ := server.call("get-pools", "leases = yes\n", "")
	contains(t, text(pools), "v4.online = 1\n", "v4.leases.0.address = 10.3.0.1\n", "v4.leases.0.identity = alice\n", "v4.leases.0.status = online\n")
	server.want("has leases online, unable to unload", "unload-pool", "name", "v4")
	client.ok("terminate", "ike = rw\n")
	pools, _ = server.call("get-pools", "leases = yes\n", "")
	contains(t, text(pools), "v4.online = 0\n", "v4.offline = 1\n", "v4.leases.0.status = offline\n")
}

// Debian's own swanctl, unmodified, loads everything and lists it.
func TestSwanctl(t *testing.T) {
	if _, err := exec.LookPath("swanctl"); err != nil {
		if os.Getuid() == 0 {
			t.Fatal("swanctl is missing: scripts/setup.sh installs it")
		}
		t.Skip("swanctl is not installed: " + err.Error())
	}
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
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
	for _, d := range []string{"x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa", "ecdsa", "pkcs8", "pkcs12", "bliss"} {
		file(d+"/.keep", nil)
		if err := os.Remove(filepath.Join(dir, d, ".keep")); err != nil {
			t.Fatal(err)
		}
	}
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "sub"})
	sun := sub.Issue(pkitest.Spec{Name: "sun", DNS: []string{"sun.example"}})
	rsa := root.Issue(pkitest.Spec{Name: "moon", Key: pkitest.RSA2048})
	file("x509ca/root.pem", root.PEM())
	file("x509/fullchain.pem", sun.ChainPEM())
	file("x509/moon.der", rsa.Cert.DER())
	file("x509crl/root.crl", root.CRL(pkitest.List{}))
	file("pubkey/sun.pem", sun.PublicPEM())
	file("ecdsa/sun.pem", sun.KeyPEM())
	file("rsa/moon.pem", rsa.KeyPEM())
	file("pkcs8/clear.pem", sun.KeyPEM())
	file("strongswan.conf", nil)
	key := filepath.Join(dir, "ecdsa/sun.pem")
	if out, err := exec.Command("openssl", "pkcs8", "-topk8", "-in", key, "-out", filepath.Join(dir, "private/sun.pem"), "-v2", "aes-256-cbc", "-passout", "pass:sesame").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file("swanctl.conf", []byte(`connections {
  rw {
    local_addrs = 192.0.2.1
    pools = v4, v6
    send_cert = always
    local { certs = fullchain.pem }
    remote { auth = eap-mschapv2
      eap_id = %any }
  }
  site {
    remote_addrs = 192.0.2.2
    local { certs = moon.der
      pubkeys = sun.pem }
    remote { auth = rsa-2048-sha256
      id = "CN=peer"
      cacerts = root.pem
      revocation = ifuri }
    children { net { remote_ts = 10.2.0.0/16 } }
  }
}
secrets {
  eap-alice { id = alice
    secret = wonderland }
  ike-1 { secret = 0x000102030405060708090a0b0c0d0e0f }
  private-sun { file = sun.pem
    secret = sesame }
}
pools {
  v4 { addrs = 10.3.0.0/24
    dns = 10.3.0.1, 10.3.0.2
    subnet = 10.0.0.0/8
    25 = corp.example }
  v6 { addrs = fd00:3::/120 }
}
authorities {
  root { cacert = root.pem
    crl_uris = http://crl.example/root.crl
    ocsp_uris = http://ocsp.example }
}
`))
	swanctl := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "swanctl", append([]string{args[0], "--uri", s.uri}, args[1:]...)...)
		cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(dir, "strongswan.conf"), "SWANCTL_DIR="+dir)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("swanctl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	contains(t, swanctl("--load-all", "--noprompt"),
		"loaded certificate from '"+dir+"/x509/fullchain.pem'", "loaded certificate from '"+dir+"/x509ca/root.pem'", "loaded certificate from '"+dir+"/x509crl/root.crl'", "loaded certificate from '"+dir+"/pubkey/sun.pem'",
		"loaded ecdsa key from '"+dir+"/ecdsa/sun.pem'", "loaded rsa key from '"+dir+"/rsa/moon.pem'", "loaded ECDSA key from '"+dir+"/private/sun.pem'", "loaded pkcs8 key from '"+dir+"/pkcs8/clear.pem'",
		"loaded eap secret 'eap-alice'", "loaded ike secret 'ike-1'", "loaded authority 'root'", "successfully loaded 1 authorities, 0 unloaded",
		"loaded pool 'v4'", "successfully loaded 2 pools, 0 unloaded", "loaded connection 'rw'", "successfully loaded 2 connections, 0 unloaded")
	contains(t, swanctl("--list-certs"), "List of X.509 End Entity Certificates", "subject:  \"CN=sun\"", "List of X.509 CA Certificates", "subject:  \"CN=root\"", "subject:  \"CN=sub\"", "List of X.509 CRLs", "List of Raw Public Keys", "has private key")
	if out := swanctl("--list-certs", "--type", "x509", "--flag", "ca"); strings.Contains(out, "CN=moon") || !strings.Contains(out, "subject:  \"CN=root\"") {
		t.Errorf("list-certs of CAs:\n%s", out)
	}
	contains(t, swanctl("--list-conns"), "local unspecified authentication:", "id: CN=sun", "certs: CN=sun", "remote EAP_MSCHAPV2 authentication:", "eap_id: %any", "remote public key authentication:", "cacerts: CN=root")
	contains(t, swanctl("--list-pools", "--leases"), "v4", "10.3.0.0", "0 / 0 / 254", "fd00:3::")
	contains(t, swanctl("--list-authorities"), "root:", "cacert: CN=root", "crl_uris:  http://crl.example/root.crl", "ocsp_uris: http://ocsp.example")
	// The program itself loads the same from the same files.
	daemon, err := config.LoadDaemon("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := config.Load(filepath.Join(dir, "swanctl.conf"), daemon)
	if err != nil {
		t.Fatal(err)
	}
	alone := newSide(t, conn.NewNetwork(), "192.0.2.1")
	if err := alone.gw.Load(m); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct{ command, event string }{{"list-certs", "list-cert"}, {"list-conns", "list-conn"}, {"list-authorities", "list-authority"},
		{"get-keys", ""}, {"get-shared", ""}, {"get-pools", ""}} {
		var both []string
		for _, g := range []*side{s, alone} {
			res, events := g.call(q.command, "", q.event)
			lines := []string{text(res)}
			for _, e := range events {
				lines = append(lines, text(e))
			}
			for i, l := range lines {
				if list, ok := strings.CutPrefix(strings.TrimSuffix(l, "]\n"), "keys = ["); ok {
					words := strings.Fields(list)
					slices.Sort(words)
					lines[i] = strings.Join(words, " ")
				}
			}
			slices.Sort(lines)
			both = append(both, strings.Join(lines, "\n"))
		}
		if both[0] != both[1] {
			t.Errorf("%s after swanctl --load-all:\n%q\nafter loading the file:\n%q", q.command, both[0], both[1])
		}
	}
	swanctl("--flush-certs")
	swanctl("--flush-certs", "--type", "x509_crl")
	// What vanished from the file is unloaded.
	file("swanctl.conf", []byte("connections {\n}\n"))
	for _, f := range []string{"ecdsa/sun.pem", "private/sun.pem", "pkcs8/clear.pem"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	contains(t, swanctl("--load-all", "--clear", "--noprompt"), "no authorities found, 1 unloaded", "no pools found, 2 unloaded", "no connections found, 2 unloaded")
	res, _ := s.call("get-keys", "", "")
	if got := text(res); strings.Contains(got, keyID(t, sun)) || !strings.Contains(got, keyID(t, rsa)) {
		t.Error(got)
	}
}
