package interop_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// office is a gateway of `adit pki` with a connection for each way to log in; the one
// for EAP-TLS has a name of its own, which tells it from the other with EAP.
const office = `connections {
	password {
		pools = v4, v6
		local {
			auth = pubkey
			certs = vpn.example.org.pem
			id = vpn.example.org
		}
		remote {
			auth = eap-mschapv2
			eap_id = %any
		}
		children {
			password {
				local_ts = 10.2.0.0/24, fd02::/64
			}
		}
	}
	certificate {
		pools = v4, v6
		local {
			auth = pubkey
			certs = vpn.example.org.pem
			id = vpn.example.org
		}
		remote {
			auth = pubkey
		}
		children {
			certificate {
				local_ts = 10.2.0.0/24, fd02::/64
			}
		}
	}
	tls {
		pools = v4, v6
		local {
			auth = pubkey
			certs = vpn.example.org.pem
			id = tls.example.org
		}
		remote {
			auth = eap-tls
			eap_id = %any
		}
		children {
			tls {
				local_ts = 10.2.0.0/24, fd02::/64
			}
		}
	}
}
`

// What adit pki and adit profile make for a user is enough for a real client: strongSwan
// with the directory for it, with a PKCS#12 file, and with what an .sswan says, and
// `adit connect` with the file for it.
func TestProfiles(t *testing.T) {
	for _, ends := range pairs() {
		if ends.responder != adit || ends.initiator == adit {
			continue // it is about what our gateway hands out
		}
		t.Run(ends.String(), func(t *testing.T) {
			runOne(t, ends, settings{middle: lab.Bridge}, profiles)
		})
	}
}

func profiles(t *testing.T, p *path) {
	gw := p.right.(*peer.AditGateway)
	run := func(args ...string) string {
		t.Helper()
		out, err := gw.Command(append(args, "--vici", gw.URI())...)
		if err != nil {
			t.Fatalf("adit %q: %v\n%s", args, err, out)
		}
		return out
	}
	run("pki", "init", "--name", "Example VPN CA", "--key", "ecdsa256")
	run("pki", "gateway", "vpn.example.org", "tls.example.org", p.R.Wan4.String())
	if err := p.right.Load(office + pools); err != nil {
		t.Fatal(err)
	}
	password := strings.TrimSpace(run("user", "add", "alice"))
	out := t.TempDir()
	profile := func(conn, system string) string {
		t.Helper()
		dir := filepath.Join(out, conn+"-"+system)
		args := []string{"profile", "alice", "--for", system, "--connection", conn, "--gateway", p.R.Wan4.String(), "-o", dir}
		run(args...)
		return dir
	}
	// The directory for strongSwan, as it is.
	for _, conn := range []string{"password", "certificate", "tls"} {
		f, conf := swanctlDir(t, profile(conn, "strongswan"))
		if conn == "password" {
			conf += "secrets {\n" + users("alice", password) + "}\n"
		}
		p.comesIn(t, conn, f, conf)
	}
	// The same by what the app for Android would read.
	for _, conn := range []string{"password", "certificate", "tls"} {
		f, conf := p.fromSswan(t, gw, conn, password)
		p.comesIn(t, conn, f, conf)
	}
	// A file of adit pki user in swanctl's directory for these.
	for _, legacy := range []string{"--legacy=false", "--legacy"} {
		file := filepath.Join(out, "alice"+legacy+".p12")
		phrase := printedPhrase(t, run("pki", "user", "alice@example.org", "-o", file, legacy))
		f, _ := swanctlDir(t, filepath.Join(out, "certificate-strongswan"))
		delete(f, "x509/user.pem")
		delete(f, "private/user.key")
		f["pkcs12/alice.p12"] = mustRead(t, file)
		l, _ := p.ends(false)
		p.comesIn(t, "certificate", f, l.with("secrets {\npkcs12-alice {\nfile = alice.p12\nsecret = \""+phrase+"\"\n}\n}",
			site{name: "certificate", local: "auth = pubkey\nid = alice@example.org", remote: "auth = pubkey\nid = vpn.example.org", extra: "vips = 0.0.0.0\n", localTS: "dynamic", remoteTS: "10.2.0.0/24"}))
	}
	p.downloads(t, gw)
	p.connects(t, gw, profile("password", "adit"), password)
	p.connects(t, gw, profile("certificate", "adit"), "")
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var phraseLine = regexp.MustCompile(`(?m)^passphrase[^:]*: (\S+)$`)

func printedPhrase(t *testing.T, text string) string {
	t.Helper()
	m := phraseLine.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no passphrase in %q", text)
	}
	return m[1]
}

// swanctlDir reads a directory of a profile.
func swanctlDir(t *testing.T, dir string) (f files, conf string) {
	t.Helper()
	f = files{}
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		rel, err := filepath.Rel(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		f[rel] = mustRead(t, n)
	}
	return f, string(mustRead(t, filepath.Join(dir, "swanctl.conf")))
}

// comesIn has the client at the left come in with a configuration, reach the network
// with the address that it got, and leave.
func (p *path) comesIn(t *testing.T, name string, f files, conf string) {
	t.Helper()
	p.store(p.left, f)
	if err := p.left.Load(conf); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, conf)
	}
	left, right := p.established(t, name)
	if right.Name != name || len(left.LocalVIPs) == 0 {
		t.Errorf("%s came into %s with %v", name, right.Name, left.LocalVIPs)
	}
	for _, vip := range left.LocalVIPs {
		from, to := netip.MustParseAddr(vip), p.R.Host4
		if from.Is6() {
			to = p.R.Host6
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) {
			got, err := p.Ping(lab.Left, to, lab.PingOptions{Source: from, Timeout: 200 * time.Millisecond})
			return got.Received > 0, err
		}); err != nil {
			t.Errorf("%s: from %v to %v: %v", name, from, to, err)
		}
	}
	p.down(t, name)
}

// fromSswan is what strongSwan's app makes of a profile for Android, as swanctl.conf.
func (p *path) fromSswan(t *testing.T, gw *peer.AditGateway, conn, password string) (f files, conf string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "alice.sswan")
	out, err := gw.Command("profile", "alice", "--for", "android", "--connection", conn, "--gateway", p.R.Wan4.String(), "-o", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var v struct {
		UUID, Name, Type string
		IKE              string `json:"ike-proposal"`
		ESP              string `json:"esp-proposal"`
		Remote           struct{ Addr, ID, Cert string }
		Local            struct {
			EAPID string `json:"eap_id"`
			ID    string
			P12   string
		}
		Split struct{ Subnets []string } `json:"split-tunneling"`
	}
	if err := json.Unmarshal(mustRead(t, file), &v); err != nil {
		t.Fatal(err)
	}
	der := func(text string) []byte {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %v", conn, err)
		}
		return b
	}
	f = files{"x509ca/ca.der": der(v.Remote.Cert)}
	local, secrets := "", ""
	switch v.Type {
	case "ikev2-eap":
		local, secrets = "auth = eap\nid = "+v.Local.EAPID+"\neap_id = "+v.Local.EAPID, users(v.Local.EAPID, password)
	case "ikev2-cert", "ikev2-eap-tls":
		local = map[string]string{"ikev2-cert": "auth = pubkey\n", "ikev2-eap-tls": "auth = eap-tls\n"}[v.Type] + "id = " + v.Local.ID
		f["pkcs12/user.p12"] = der(v.Local.P12)
		secrets = "pkcs12-user {\nfile = user.p12\nsecret = \"" + printedPhrase(t, out) + "\"\n}\n"
	default:
		t.Fatalf("type %q", v.Type)
	}
	var ts4 []string
	for _, s := range v.Split.Subnets {
		ts4 = append(ts4, netip.MustParsePrefix(s).String())
	}
	l := conn4(p, v.Remote.Addr, v.IKE, v.ESP)
	return f, l.with("secrets {\n"+secrets+"}", site{name: conn, local: local, remote: "auth = pubkey\nid = " + v.Remote.ID, extra: "vips = 0.0.0.0, ::\n", localTS: "dynamic", remoteTS: strings.Join(ts4, ", ")})
}

func conn4(p *path, remote, ike, esp string) conn {
	l, _ := p.ends(false)
	l.remote, l.ike, l.esp = remote, ike, esp
	return l
}

// connects has `adit connect` at the left come in with a file, and fetches nothing: that
// it is connected is what it says.
func (p *path) connects(t *testing.T, gw *peer.AditGateway, dir, password string) {
	t.Helper()
	c, err := p.Start(lab.Left, []string{"ADIT_PASSWORD=" + password}, gw.Binary, "connect", dir, "--socks", "127.0.0.1:1080")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(10*time.Second, func() (bool, error) {
		return strings.Contains(c.Log(), "connected to ") && strings.Contains(c.Log(), "10.2.0.0/24"), nil
	}); err != nil {
		t.Errorf("adit connect: %v\n%s", err, c.Log())
	}
	if err := c.Stop(5 * time.Second); err != nil {
		t.Errorf("adit connect: %v\n%s", err, c.Log())
	}
	p.wait("the end of "+fmt.Sprint(filepath.Base(dir)), p.right, func(s []peer.SA) bool { return len(s) == 0 })
}

var downloadLink = regexp.MustCompile(`(?m)^https://\S+/d/(\S+)$`)

// downloads gets a profile by its link from the left: it can be looked at, and works
// once; then the command ends. The link is in no log.
func (p *path) downloads(t *testing.T, gw *peer.AditGateway) {
	t.Helper()
	addr := p.R.Wan4.String()
	c, err := gw.Background("profile", "alice", "--for", "ios", "--connection", "certificate", "--gateway", addr, "--serve", addr+":8443")
	if err != nil {
		t.Fatal(err)
	}
	var link []string
	if err := lab.Poll(10*time.Second, func() (bool, error) {
		link = downloadLink.FindStringSubmatch(c.Log())
		return link != nil, nil
	}); err != nil {
		t.Fatalf("adit profile --serve: %v\n%s", err, c.Log())
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(mustRead(t, filepath.Join(gw.Dir(), "swanctl/x509ca/adit-ca.pem")))
	h := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: p.fromLeft, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	do := func(method, url string) (status int, body, kind string) {
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Do(req)
		if err != nil {
			return 0, err.Error(), ""
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), resp.Header.Get("Content-Type")
	}
	if raw, err := base64.RawURLEncoding.DecodeString(link[1]); err != nil || len(raw) != 16 {
		t.Errorf("a token of %d bytes", len(raw))
	}
	for range 2 {
		if status, body, _ := do("GET", link[0]); status != http.StatusOK || !strings.Contains(body, "alice, ios") {
			t.Errorf("looked at: %d %s", status, body)
		}
	}
	if status, body, _ := do("POST", link[0][:len(link[0])-1]+"x0"); status != http.StatusNotFound {
		t.Errorf("another link: %d %s", status, body)
	}
	if status, body, kind := do("POST", link[0]); status != http.StatusOK || kind != "application/x-apple-aspen-config" || !strings.Contains(body, "<key>PayloadContent</key>") {
		t.Errorf("downloaded: %d %s %.200s", status, kind, body)
	}
	if status, body, _ := do("POST", link[0]); status == http.StatusOK {
		t.Errorf("downloaded twice: %s", body)
	}
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Error("adit profile --serve does not end")
	}
	log := strings.Replace(c.Log(), link[0], "", 1)
	if strings.Contains(log, link[1]) || !strings.Contains(log, `msg="a profile was downloaded" for="alice, ios" from=`+p.L.Wan4.String()) || !strings.Contains(log, "a download was refused: the link is unknown or used") {
		t.Errorf("the log:\n%s", log)
	}
}
