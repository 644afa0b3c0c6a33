package profile_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adit/internal/ca"
	"adit/internal/config"
	"adit/internal/profile"
	"adit/pki"
)

// office is a gateway's directory: an authority, the gateway's certificate and a
// connection whose remote section and further lines are given.
func office(t *testing.T, remote, more, child string) (*config.Model, *ca.CA) {
	t.Helper()
	dir := t.TempDir()
	c, err := ca.Init(filepath.Join(dir, "ca"), "Example CA", ca.P256, 3650)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	gw, err := c.Gateway([]string{"vpn.example.org"}, ca.P256, 365, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := gw.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"x509/gw.pem": gw.CertPEM(), "private/gw.key": key, "x509ca/ca.pem": c.CertPEM(), "swanctl.conf": []byte(fmt.Sprintf(`connections {
  office {
    pools = v4, v6
    %s
    local {
      auth = pubkey
      certs = gw.pem
      id = vpn.example.org
    }
    remote {
      %s
    }
    children {
      office {
        local_ts = 10.2.0.0/24, fd02::/64
        %s
      }
    }
  }
}
pools {
  v4 {
    addrs = 10.3.0.0/24
    dns = 10.2.0.53
    25 = corp.example
  }
  v6 {
    addrs = fd03::/120
  }
}
`, more, remote, child))} {
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
	return m, c
}

// variant is a way to log in.
type variant struct {
	name, remote string
	cert         bool
}

var variants = []variant{
	{"password", "auth = eap-mschapv2\n eap_id = %any", false},
	{"certificate", "auth = pubkey", true},
	{"eap-tls", "auth = eap-tls\n eap_id = %any", true},
}

// each makes the profile of a system for every way to log in, with names that want quoting.
func each(t *testing.T, system string, check func(t *testing.T, v variant, p *profile.Profile, files []profile.File)) {
	t.Helper()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			m, c := office(t, v.remote, "", "")
			p, err := profile.Of(m, "", "")
			if err != nil {
				t.Fatal(err)
			}
			p.User = "alice@example.org"
			if v.cert {
				i, err := c.User(p.User, ca.RSA2048, 365, nil)
				if err != nil {
					t.Fatal(err)
				}
				p.Cert, p.Key, p.Passphrase = i.Cert, i.Key, "pass'phrase<&>"
			} else {
				p.Password = `it's <a> "pass\word" & ’more’`
			}
			files, err := p.For(system)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if (bytes.Contains(f.Data, []byte(p.Password)) && p.Password != "" || bytes.Contains(f.Data, []byte("PRIVATE KEY"))) && !f.Secret {
					t.Errorf("%s has a secret and is not marked", f.Name)
				}
			}
			check(t, v, p, files)
		})
	}
}

// key is what Apple's schema says of a key.
type key struct {
	Type     string         `json:"type"`
	Required bool           `json:"required"`
	Values   []any          `json:"values"`
	Range    []any          `json:"range"`
	Not      []string       `json:"not"`
	Keys     map[string]key `json:"keys"`
}

// The profiles have the keys, types and values of Apple's schema, and what a
// connection needs.
func TestApple(t *testing.T) {
	b, err := os.ReadFile("testdata/apple.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Payloads map[string]map[string]key `json:"payloads"`
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	with := func(name string) map[string]key {
		all := map[string]key{}
		for _, n := range []string{"CommonPayloadKeys", name} {
			for k, v := range schema.Payloads[n] {
				all[k] = v
			}
		}
		return all
	}
	each(t, "ios", func(t *testing.T, v variant, p *profile.Profile, files []profile.File) {
		top, ok := readPlist(t, files[0].Data).(map[string]any)
		if len(files) != 1 || !ok {
			t.Fatalf("%d files", len(files))
		}
		checkKeys(t, "", schema.Payloads["TopLevel"], top, true)
		payloads := map[string]map[string]any{}
		for _, e := range top["PayloadContent"].([]any) {
			d := e.(map[string]any)
			kind := d["PayloadType"].(string)
			payloads[kind] = d
			checkKeys(t, kind, with(kind), d, false)
		}
		ike := payloads["com.apple.vpn.managed"]["IKEv2"].(map[string]any)
		if ca, err := pki.NewCertificate(payloads["com.apple.security.root"]["PayloadContent"].([]byte)); err != nil || ca.Subject() != "CN=Example CA" {
			t.Errorf("the authority: %v %v", ca, err)
		}
		want := map[string]any{"RemoteAddress": "vpn.example.org", "RemoteIdentifier": "vpn.example.org", "LocalIdentifier": p.User, "EnablePFS": 1}
		if v.cert {
			want["AuthenticationMethod"], want["CertificateType"] = "Certificate", "RSA"
			c := payloads["com.apple.security.pkcs12"]
			want["PayloadCertificateUUID"] = c["PayloadUUID"]
			if _, leaf, _, err := pki.ParsePKCS12(c["PayloadContent"].([]byte), c["Password"].(string)); err != nil || !leaf.Equal(p.Cert) {
				t.Errorf("PKCS#12: %v", err)
			}
		} else {
			want["AuthenticationMethod"], want["AuthName"], want["AuthPassword"] = "None", p.User, p.Password
		}
		if v.name != "certificate" {
			want["ExtendedAuthEnabled"] = 1
		}
		for k, w := range want {
			if ike[k] != w {
				t.Errorf("%s = %v, want %v", k, ike[k], w)
			}
		}
	})
}

// checkKeys compares a dictionary with the schema.
func checkKeys(t *testing.T, path string, schema map[string]key, d map[string]any, open bool) {
	t.Helper()
	for name, k := range schema {
		if _, ok := d[name]; !ok && k.Required {
			t.Errorf("%s: no %s", path, name)
		}
	}
	for name, v := range d {
		k, ok := schema[name]
		if !ok {
			t.Errorf("%s: there is no key %s", path, name)
			continue
		}
		kind := map[string]string{"string": "string", "int": "integer", "bool": "boolean", "[]uint8": "data", "[]interface {}": "array", "map[string]interface {}": "dictionary"}[fmt.Sprintf("%T", v)]
		if kind != k.Type {
			t.Errorf("%s.%s is of type %s, want %s", path, name, kind, k.Type)
		}
		if slices.Contains(k.Not, "iOS") {
			t.Errorf("%s.%s is not for iOS", path, name)
		}
		if len(k.Values) > 0 && !slices.ContainsFunc(k.Values, func(w any) bool { return fmt.Sprint(w) == fmt.Sprint(v) }) {
			t.Errorf("%s.%s = %v, possible are %v", path, name, v, k.Values)
		}
		if n, ok := v.(int); ok && len(k.Range) == 2 && (float64(n) < k.Range[0].(float64) || float64(n) > k.Range[1].(float64)) {
			t.Errorf("%s.%s = %d is out of %v", path, name, n, k.Range)
		}
		if sub, ok := v.(map[string]any); ok && len(k.Keys) > 0 && !open {
			checkKeys(t, path+"."+name, k.Keys, sub, false)
		}
	}
}

// readPlist reads a property list strictly.
func readPlist(t *testing.T, b []byte) any {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	next := func() xml.Token {
		for {
			tok, err := d.Token()
			if err != nil {
				t.Fatalf("property list: %v\n%s", err, b)
			}
			if c, ok := tok.(xml.CharData); ok && len(bytes.TrimSpace(c)) == 0 {
				continue
			}
			switch tok.(type) {
			case xml.ProcInst, xml.Directive:
				continue
			}
			return xml.CopyToken(tok)
		}
	}
	text := func(name string) string {
		var s strings.Builder
		for {
			tok, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			switch tok := tok.(type) {
			case xml.CharData:
				s.Write(tok)
			case xml.EndElement:
				if tok.Name.Local == name {
					return s.String()
				}
			default:
				t.Fatalf("%T inside %s", tok, name)
			}
		}
	}
	var value func(xml.StartElement) any
	value = func(e xml.StartElement) any {
		switch name := e.Name.Local; name {
		case "dict":
			m := map[string]any{}
			for {
				switch tok := next().(type) {
				case xml.EndElement:
					return m
				case xml.StartElement:
					if tok.Name.Local != "key" {
						t.Fatalf("%s where a key was to be", tok.Name.Local)
					}
					k := text("key")
					if _, twice := m[k]; twice {
						t.Fatalf("%s twice", k)
					}
					v, ok := next().(xml.StartElement)
					if !ok {
						t.Fatalf("no value of %s", k)
					}
					m[k] = value(v)
				}
			}
		case "array":
			list := []any{}
			for {
				switch tok := next().(type) {
				case xml.EndElement:
					return list
				case xml.StartElement:
					list = append(list, value(tok))
				}
			}
		case "string":
			return text(name)
		case "integer":
			n, err := strconv.Atoi(text(name))
			if err != nil {
				t.Fatal(err)
			}
			return n
		case "true", "false":
			text(name)
			return name == "true"
		case "data":
			b, err := base64.StdEncoding.DecodeString(text(name))
			if err != nil {
				t.Fatal(err)
			}
			return b
		default:
			t.Fatalf("no element %s in property lists", name)
			return nil
		}
	}
	root, ok := next().(xml.StartElement)
	if !ok || root.Name.Local != "plist" {
		t.Fatalf("root %v", root)
	}
	first, ok := next().(xml.StartElement)
	if !ok {
		t.Fatal("no value")
	}
	v := value(first)
	next() // </plist>
	if rest := bytes.TrimSpace(b[d.InputOffset():]); len(rest) > 0 {
		t.Fatalf("behind the list: %q", rest)
	}
	return v
}

// The .sswan files have the keys that strongSwan's app reads
// (docs.strongswan.org, VPN Profile Import), of the right kinds.
func TestAndroid(t *testing.T) {
	known := regexp.MustCompile(`^(uuid|name|type|ike-proposal|esp-proposal|remote\.(addr|id|cert|port|certreq)|local\.(eap_id|id|p12)|split-tunneling\.(subnets|excluded|block-ipv4|block-ipv6))$`)
	types := map[string]string{"password": "ikev2-eap", "certificate": "ikev2-cert", "eap-tls": "ikev2-eap-tls"}
	each(t, "android", func(t *testing.T, v variant, p *profile.Profile, files []profile.File) {
		var m map[string]any
		if err := json.Unmarshal(files[0].Data, &m); err != nil || len(files) != 1 || files[0].Type != "application/vnd.strongswan.profile" {
			t.Fatalf("%v", err)
		}
		flat := map[string]any{}
		for k, x := range m {
			if sub, ok := x.(map[string]any); ok {
				for s, y := range sub {
					flat[k+"."+s] = y
				}
				continue
			}
			flat[k] = x
		}
		for k := range flat {
			if !known.MatchString(k) {
				t.Errorf("the app knows no %s", k)
			}
		}
		if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(fmt.Sprint(flat["uuid"])) || flat["type"] != types[v.name] || flat["remote.addr"] != "vpn.example.org" {
			t.Errorf("%v", flat)
		}
		if got := fmt.Sprint(flat["split-tunneling.subnets"]); got != "[10.2.0.0/24 fd02::/64]" {
			t.Errorf("subnets %s", got)
		}
		der, err := base64.StdEncoding.DecodeString(fmt.Sprint(flat["remote.cert"]))
		if c, e := pki.NewCertificate(der); err != nil || e != nil || !c.IsCA() {
			t.Errorf("the authority: %v %v", err, e)
		}
		if v.cert {
			b, err := base64.StdEncoding.DecodeString(fmt.Sprint(flat["local.p12"]))
			if _, _, _, e := pki.ParsePKCS12(b, p.Passphrase); err != nil || e != nil || flat["local.id"] != p.User {
				t.Errorf("PKCS#12: %v %v", err, e)
			}
		} else if flat["local.eap_id"] != p.User {
			t.Errorf("%v", flat)
		}
	})
}

// NetworkManager itself reads the keyfile, where it is installed; else its form is
// looked at.
func TestNetworkManager(t *testing.T) {
	nmcli, _ := exec.LookPath("nmcli")
	each(t, "networkmanager", func(t *testing.T, v variant, p *profile.Profile, files []profile.File) {
		text := string(files[0].Data)
		for _, want := range []string{"\nservice-type=org.freedesktop.NetworkManager.strongswan\n", "\naddress=vpn.example.org\n", "\nremote-identity=vpn.example.org\n", "\nvirtual=yes\n", "-ca.pem\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		// What strongSwan's src/charon-nm/nm/nm_service.c reads of [vpn], and the values of method.
		_, vpn, _ := strings.Cut(text, "\n[vpn]\n")
		vpn, _, _ = strings.Cut(vpn, "\n[")
		for line := range strings.Lines(strings.TrimSpace(vpn)) {
			k, _, _ := strings.Cut(line, "=")
			if !slices.Contains([]string{"service-type", "address", "server-port", "certificate", "remote-identity", "local-identity", "method", "user", "password-flags", "cert-source", "usercert", "userkey", "virtual", "encap", "ipcomp", "proposal", "ike", "esp", "remote-ts"}, k) {
				t.Errorf("the plugin knows no %s", k)
			}
		}
		if want := "\nmethod=" + map[string]string{"password": "eap", "certificate": "cert", "eap-tls": "eap-tls"}[v.name] + "\n"; !strings.Contains(text, want) || v.cert && !strings.Contains(text, "\ncert-source=file\n") {
			t.Errorf("no %q in\n%s", want, text)
		}
		for _, f := range files[1:] {
			if !strings.Contains(text, "/etc/NetworkManager/adit/"+f.Name+"\n") {
				t.Errorf("%s is not named", f.Name)
			}
		}
		for line := range strings.Lines(text) {
			if !regexp.MustCompile(`^(\n|\[[a-z0-9-]+\]\n|[a-z0-9-]+=.*\n)$`).MatchString(line) {
				t.Errorf("line %q", line)
			}
		}
		if nmcli == "" {
			t.Skip("nmcli is not installed: NetworkManager does not read it here")
		}
		cmd := exec.Command(nmcli, "--offline", "connection", "modify", "connection.autoconnect", "no")
		cmd.Stdin = bytes.NewReader(files[0].Data)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("nmcli: %v\n%s", err, out)
		}
		if !v.cert && !strings.Contains(string(out), `password=it's <a> "pass\\word" & ’more’`) {
			t.Errorf("NetworkManager reads another password:\n%s", out)
		}
		for _, want := range []string{"type=vpn", "service-type=org.freedesktop.NetworkManager.strongswan", "dns-search=corp.example", "never-default=true"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("NetworkManager lost %s:\n%s", want, out)
			}
		}
	})
}

// What is written for strongSwan and adit loads as a configuration of its own.
func TestSwanctl(t *testing.T) {
	each(t, "adit", func(t *testing.T, v variant, p *profile.Profile, files []profile.File) {
		dir := t.TempDir()
		for _, f := range files {
			name := filepath.Join(dir, f.Name)
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := config.Check(filepath.Join(dir, "swanctl.conf"), config.Daemon{})
		if err != nil {
			t.Fatalf("%v\n%s", err, files[0].Data)
		}
		if len(m.Peers) != 1 || len(m.Peers[0].Remote[0].CACerts) != 1 || len(m.Peers[0].VIPs) != 2 || m.Peers[0].Children[0].Remote[0].String() == "" {
			t.Errorf("%s", files[0].Data)
		}
		ss, err := p.For("strongswan")
		if err != nil || !strings.Contains(string(files[0].Data), "-ke1_mlkem768") || strings.Contains(string(ss[0].Data), "mlkem") || !strings.Contains(string(ss[0].Data), "curve25519") {
			t.Errorf("for strongSwan: %v\n%s\nfor adit:\n%s", err, ss[0].Data, files[0].Data)
		}
		if v.cert && len(m.Keys) != 1 {
			t.Errorf("%d keys", len(m.Keys))
		}
		if !v.cert && (len(m.Secrets) != 1 || string(m.Secrets[0].Key) != p.Password) {
			t.Errorf("another password: %s", files[0].Data)
		}
	})
}

// A connection that a system cannot use is told, with what to add; and one that is not
// for people.
func TestUnfit(t *testing.T) {
	m, _ := office(t, "auth = eap-mschapv2", "proposals = aes256gcm16-prfsha512-curve448", "")
	p, err := profile.Of(m, "office", "")
	if err != nil {
		t.Fatal(err)
	}
	p.User = "alice"
	for _, system := range []string{"ios", "windows"} {
		if _, err := p.For(system); err == nil || !strings.Contains(err.Error(), "add aes256gcm16-prfsha384-") {
			t.Errorf("%s: %v", system, err)
		}
	}
	if _, err := p.For("beos"); err == nil {
		t.Error("beos")
	}
	p.User = "a\nb"
	if _, err := p.For("adit"); err == nil {
		t.Error("a user with a line end")
	}
	for why, remote := range map[string]string{"neither eap-* nor pubkey": "auth = psk", "know eap-mschapv2": "auth = eap-md5"} {
		m, _ := office(t, remote, "", "")
		if _, err := profile.Of(m, "office", ""); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
		if _, err := profile.Of(m, "", ""); err == nil || !strings.Contains(err.Error(), "for people") {
			t.Errorf("%s: %v", why, err)
		}
	}
	// Without a group of its own for the children there is no PFS; 0.0.0.0/0 is all.
	m, _ = office(t, "auth = eap-mschapv2", "", "esp_proposals = aes256-sha256\nlocal_ts = 0.0.0.0/0, ::/0")
	if p, err = profile.Of(m, "", "192.0.2.2"); err != nil || len(p.Subnets) != 0 || p.Gateway != "192.0.2.2" {
		t.Fatalf("%+v %v", p, err)
	}
	p.User = "alice"
	files, err := p.For("windows")
	if err != nil || !strings.Contains(string(files[0].Data), "-PfsGroup None") || strings.Contains(string(files[0].Data), "-SplitTunneling") {
		t.Errorf("%v\n%s", err, files[0].Data)
	}
}
