package config_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"adit/internal/config"
	"adit/pki/pkitest"
)

// checked are the warnings of Check for a swanctl.conf with these files beside it.
func checked(t *testing.T, text string, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "swanctl.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := config.LoadDaemon("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := config.Check(file, d)
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, w := range m.Warnings {
		all += strings.TrimPrefix(w.Pos.String(), dir+"/") + ": " + w.Text + "\n"
	}
	return all
}

const goodSecret = "secrets {\n ike {\n secret = 0sv+NkxY9LLZvwj4qCC2o/gGrWDF2d21jL\n }\n}\n"

// site is a connection of line 2 on; its child begins behind the options.
func site(name, remote, options, child string) string {
	return name + " {\nremote_addrs = " + remote + "\n" + options + "\nlocal {\nauth = psk\nid = a\n}\nremote {\nauth = psk\nid = " + name + "\n}\nchildren {\nnet {\n" + child + "\n}\n}\n}\n"
}

func conns(parts ...string) string {
	return "connections {\n" + strings.Join(parts, "") + "}\n" + goodSecret
}

const nets = "local_ts = 10.1.0.0/16\nremote_ts = 10.2.0.0/16\n"

// Every lint is triggered by one file and not by the one beside it, which does the
// same in a way that does not bite. A warning names its line and the option's path.
func TestLint(t *testing.T) {
	for _, c := range []struct{ name, bites, want, fine string }{
		{"a dead peer is never noticed", conns(site("b", "192.0.2.2", "", nets+"dpd_action = start")),
			`swanctl.conf:17: connections.b.children.net.dpd_action: nothing looks whether the peer lives`, conns(site("b", "192.0.2.2", "dpd_delay = 30s", nets+"dpd_action = start"))},
		{"close_action", conns(site("b", "192.0.2.2", "", nets+"close_action = start")), `swanctl.conf:17: connections.b.children.net.close_action: start answers`, conns(site("b", "192.0.2.2", "", nets+"close_action = start\nkeep_up = yes"))},
		{"start to anywhere", conns(site("b", "%any", "", nets+"start_action = start")), `swanctl.conf:17: connections.b.children.net.start_action: start has nowhere to go`, conns(site("b", "%any, 192.0.2.2", "", nets+"start_action = start"))},
		{"start to a range", conns(site("b", "192.0.2.0/24", "", nets+"start_action = start")), `start has nowhere to go`, conns(site("b", "gw.example", "", nets+"start_action = start"))},
		{"keep_up without a look", conns(site("b", "192.0.2.2", "dpd_delay = 0", nets+"keep_up = yes")), `swanctl.conf:4: connections.b.dpd_delay: is 0, so that`, conns(site("b", "192.0.2.2", "", nets+"keep_up = yes"))},
		{"keep_up with an end", conns(site("b", "192.0.2.2", "keyingtries = 3", nets+"keep_up = yes")), `swanctl.conf:4: connections.b.keyingtries: does not end`, conns(site("b", "192.0.2.2", "keyingtries = 0", nets+"keep_up = yes"))},
		{"keep_up of the idle", conns(site("b", "192.0.2.2", "", nets+"keep_up = yes\ninactivity = 10m")), `swanctl.conf:18: connections.b.children.net.inactivity: closes`, conns(site("b", "192.0.2.2", "", nets+"start_action = trap\ninactivity = 10m"))},
		{"rekeys together", conns(site("b", "192.0.2.2", "rekey_time = 1h", nets+"rekey_time = 1h")), `swanctl.conf:17: connections.b.children.net.rekey_time: 1h and rekey_time of the IKE SA .1h. end together, .* give the child 54m`,
			conns(site("b", "192.0.2.2", "rekey_time = 4h", nets+"rekey_time = 1h"))},
		{"a multiple without chance", conns(site("b", "192.0.2.2", "rekey_time = 3h\nrand_time = 0", nets+"rekey_time = 1h\nrand_time = 0")), `end together`,
			conns(site("b", "192.0.2.2", "rekey_time = 3h", nets+"rekey_time = 50m\nrand_time = 0"))},
		{"reauthentication together", conns(site("b", "192.0.2.2", "reauth_time = 1h", nets+"rekey_time = 1h")), `reauth_time of the IKE SA`, conns(site("b", "192.0.2.2", "", nets))},
		{"random from the start", conns(site("b", "192.0.2.2", "rekey_time = 1h\nrand_time = 2h", nets)), `swanctl.conf:5: connections.b.rand_time: is as long`, conns(site("b", "192.0.2.2", "rekey_time = 2h\nrand_time = 10m", nets))},
		{"random from the start, child", conns(site("b", "192.0.2.2", "", nets+"rekey_time = 30m\nrand_time = 1h")), `connections.b.children.net.rand_time: is as long`, conns(site("b", "192.0.2.2", "", nets+"rekey_time = 30m"))},
		{"another group", conns(site("b", "192.0.2.2", "proposals = aes256gcm16-prfsha384-ecp384", nets+"esp_proposals = aes256gcm16-x25519")),
			`swanctl.conf:17: connections.b.children.net.esp_proposals: no group of it \(curve25519\) is one of the connection's proposals \(ecp384\): .*, it is weaker besides`,
			conns(site("b", "192.0.2.2", "proposals = aes256gcm16-prfsha384-ecp384-x25519", nets+"esp_proposals = aes256gcm16-x25519"))},
		{"all into the tunnel", conns(site("b", "192.0.2.2", "", "remote_ts = 0.0.0.0/0\nlocal_ts = 10.1.0.0/16\nstart_action = trap")), `swanctl.conf:15: connections.b.children.net.remote_ts: everything that leaves 10.1.0.0/16`,
			conns(site("b", "192.0.2.2", "vips = 0.0.0.0", "remote_ts = 0.0.0.0/0\nstart_action = start"))},
		{"local in remote", conns(site("b", "192.0.2.2", "", "local_ts = 10.1.0.0/16\nremote_ts = 10.0.0.0/8")), `swanctl.conf:16: connections.b.children.net.remote_ts: 10.0.0.0/8 has addresses of local_ts`,
			conns(site("b", "192.0.2.2", "", "local_ts = 10.1.0.0/16\nremote_ts = 10.2.0.0/15"))},
		{"no clamping", conns(site("b", "192.0.2.2", "", nets+"mss_clamp = no")), `swanctl.conf:17: connections.b.children.net.mss_clamp: no lets TCP`, conns(site("b", "192.0.2.2", "", nets+"mss_clamp = no\nmode = transport"))},
		{"the same twice", conns(site("b", "192.0.2.2", "", nets+"}\nagain {\n"+nets)), `swanctl.conf:20: connections.b.children.again.remote_ts: local_ts and remote_ts are those of connections.b.children.net`,
			conns(site("b", "192.0.2.2", "", nets+"}\nagain {\n"+strings.Replace(nets, "10.2", "10.3", 1)))},
		{"two peers for one network", conns(site("b", "192.0.2.2", "", nets+"start_action = trap"), site("c", "192.0.2.3", "", nets+"start_action = trap")),
			`swanctl.conf:35: connections.c.children.net.remote_ts: 10.2.0.0/16 is remote_ts of connections.b.children.net, too, with another peer`,
			conns(site("b", "192.0.2.2", "", nets+"start_action = trap"), site("c", "192.0.2.3", "", nets+"start_action = trap\npriority = 1000"))},
		{"a network in another's", conns(site("b", "192.0.2.2", "", nets+"start_action = trap"), site("c", "192.0.2.3", "", "local_ts = 10.1.0.0/16\nremote_ts = 10.2.9.0/24\nkeep_up = yes")),
			`connections.c.children.net.remote_ts: 10.2.9.0/24 is in remote_ts of connections.b.children.net, too`,
			conns(site("b", "192.0.2.2", "", nets+"start_action = trap"), site("c", "192.0.2.3", "", "local_ts = 10.7.0.0/16\nremote_ts = 10.2.9.0/24\nkeep_up = yes"))},
		{"a network in another's, of one peer", conns(site("b", "192.0.2.2", "", nets+"start_action = trap\n}\nmore {\nlocal_ts = 10.1.0.0/16\nremote_ts = 10.2.9.0/24\nstart_action = trap")),
			`swanctl.conf:21: connections.b.children.more.remote_ts: 10.2.9.0/24 is in remote_ts of connections.b.children.net, too: the narrower`,
			conns(site("b", "192.0.2.2", "", nets+"start_action = trap\n}\nmore {\nlocal_ts = 10.1.0.0/16\nremote_ts = 10.2.9.0/24[tcp/443]\nstart_action = trap"))},
		{"unique of nobody", strings.Replace(conns(site("b", "%any", "unique = replace", nets)), "id = b\n", "", 1), `swanctl.conf:4: connections.b.unique: peers with one identity`, conns(site("b", "%any", "unique = replace", nets))},
		{"a pool in the network", conns(site("b", "%any", "pools = p", "local_ts = 10.1.0.0/16")) + "pools {\np {\naddrs = 10.1.9.0/24\n}\n}\n", `pools.p.addrs: 10.1.9.1.* has addresses of local_ts`,
			conns(site("b", "%any", "pools = p", "local_ts = 10.1.0.0/16")) + "pools {\np {\naddrs = 10.9.9.0/24\n}\n}\n"},
		{"a secret of words", conns(site("b", "192.0.2.2", "", nets)) + "secrets {\nike-2 {\nid = b\nsecret = mysecretpassword123456\n}\n}\n", `secrets.ike-2.secret: it takes less than 80 bits of work to guess`,
			conns(site("b", "192.0.2.2", "", nets)) + "secrets {\nike-2 {\nid = b\nsecret = q7HkTz0pVn3xWbYc5e\n}\n}\n"},
		{"a short secret", conns(site("b", "192.0.2.2", "", nets)) + "secrets {\nike-2 {\nid = b\nsecret = q7HkTz0\n}\n}\n", `secrets.ike-2: a secret of 7 bytes can be guessed`,
			conns(site("b", "192.0.2.2", "", nets)) + "secrets {\nike-2 {\nid = b\nsecret = 0x45a30759df97dc26a15b88ff\n}\n}\n"},
		{"one secret for two", conns(site("b", "192.0.2.2", "", nets)) + "secrets {\nike-2 {\nid = b\nsecret = q7HkTz0pVn3xWbYc5e\n}\nike-3 {\nid = c\nsecret = q7HkTz0pVn3xWbYc5e\n}\n}\n",
			`secrets.ike-3.secret: is that of secrets.ike-2, too`, conns(site("b", "192.0.2.2", "", nets)) + "secrets {\nike-2 {\nid = b\nsecret = q7HkTz0pVn3xWbYc5e\n}\nike-3 {\nid = c\nsecret = Q7hKtZ0PvN3XwByC5E\n}\n}\n"},
		{"a PPK without secret", conns(site("b", "192.0.2.2", "ppk_id = carol", nets)), `swanctl.conf:4: connections.b.ppk_id: no section ppk\* of secrets has the id carol`,
			conns(site("b", "192.0.2.2", "ppk_id = carol", nets)) + "secrets {\nppk-1 {\nid = carol\nsecret = 0x" + strings.Repeat("45a30759df97dc26", 4) + "\n}\n}\n"},
		{"a short PPK", conns(site("b", "192.0.2.2", "ppk_id = carol", nets)) + "secrets {\nppk-1 {\nid = carol\nsecret = 0x45a30759df97dc26\n}\n}\n", `a post-quantum preshared key of 8 bytes`,
			conns(site("b", "192.0.2.2", "", nets))},
		{"a PPK that nobody names", conns(site("b", "192.0.2.2", "ppk_required = yes", nets+"start_action = trap")), `swanctl.conf:4: connections.b.ppk_required: no IKE SA that begins here comes up`,
			conns(site("b", "192.0.2.2", "ppk_required = yes", nets))},
		{"a PPK and IKEv1", conns(site("b", "192.0.2.2", "version = 1\nppk_required = yes", nets)), `swanctl.conf:4: connections.b.version: IKEv1 has no PPKs`, conns(site("b", "192.0.2.2", "version = 2\nppk_required = yes", nets))},
		{"weak in IKE and in ESP", conns(site("b", "192.0.2.2", "proposals = aes128-sha1-modp1024", nets+"esp_proposals = aes128-sha1")),
			`(?s)swanctl.conf:4: connections.b.proposals: .*MODP_1024 is weak.*swanctl.conf:17: connections.b.children.net.esp_proposals: .* is weak`,
			conns(site("b", "192.0.2.2", "proposals = aes128-sha256-modp3072", nets+"esp_proposals = aes128-sha256-modp3072"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := checked(t, c.bites, nil); !regexp.MustCompile(c.want).MatchString(got) && !strings.Contains(got, c.want) {
				t.Errorf("want %q, got\n%s", c.want, got)
			}
			if got := checked(t, c.fine, nil); got != "" {
				t.Errorf("the one that is fine:\n%s", got)
			}
		})
	}
}

// What the VPN clients of other systems demand of the gateway's certificate.
func TestLintClients(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "ca"})
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	text := func(addrs string) string {
		return "connections {\n gw {\n remote_addrs = " + addrs + "\n local {\n  certs = gw.pem\n  id = vpn.example\n }\n remote {\n  auth = eap-mschapv2\n }\n children {\n  net {\n   local_ts = 10.1.0.0/16\n  }\n }\n }\n}\n" +
			"secrets {\n eap {\n id = alice\n secret = q7HkTz0pVn3xWbYc5e\n }\n}\n"
	}
	for _, c := range []struct {
		name, want string
		spec       pkitest.Spec
	}{
		{"fine", "", pkitest.Spec{DNS: []string{"vpn.example"}, EKU: server, Key: pkitest.RSA2048}},
		{"no name", "swanctl.conf:5: connections.gw.local.certs: certificate CN=gw has no subjectAltName", pkitest.Spec{EKU: server, Key: pkitest.RSA2048}},
		{"another name", "has no dNSName vpn.example", pkitest.Spec{DNS: []string{"gw.example"}, EKU: server, Key: pkitest.RSA2048}},
		{"only an address", "has no dNSName vpn.example", pkitest.Spec{IPs: []string{"192.0.2.1"}, EKU: server, Key: pkitest.RSA2048}},
		{"no serverAuth", "has no extendedKeyUsage serverAuth", pkitest.Spec{DNS: []string{"vpn.example"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, Key: pkitest.RSA2048}},
		{"Ed25519", "a key that the client of Windows does not know", pkitest.Spec{DNS: []string{"vpn.example"}, EKU: server, Key: pkitest.Ed25519}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Name = "gw"
			e := ca.Issue(c.spec)
			files := map[string][]byte{"x509/gw.pem": e.PEM(), "private/gw.pem": e.KeyPEM(), "x509ca/ca.pem": ca.PEM()}
			got := checked(t, text("%any"), files)
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("want %q, got\n%s", c.want, got)
			}
			pooled := strings.Replace(strings.Replace(text("%any"), "eap-mschapv2", "pubkey", 1), " local {", " pools = p\n local {", 1) + "pools {\np {\naddrs = 10.9.9.0/24\n}\n}\n"
			if got := checked(t, pooled, files); c.want != "" && !strings.Contains(got, c.want[max(0, strings.Index(c.want, ": ")):]) {
				t.Errorf("with certificates and a pool: want %q, got\n%s", c.want, got)
			}
			if got := checked(t, text("192.0.2.9"), files); strings.Contains(got, "clients") || strings.Contains(got, "client of") {
				t.Errorf("the peer is one gateway:\n%s", got)
			}
		})
	}
}

// keep_up needs somebody to go to, and has dead peers noticed.
func TestKeepUp(t *testing.T) {
	for _, c := range []struct{ conf, want string }{
		{site("b", "%any", "", nets+"keep_up = yes"), ":17: connections.b.children.net.keep_up: there is nobody to bring it back from"},
		{site("b", "10.0.0.0/8", "", nets+"keep_up = yes"), "there is nobody to bring it back from"},
		{site("b", "192.0.2.1", "", nets+"mode = pass\nkeep_up = yes"), "has nothing to bring back"},
		{site("b", "192.0.2.1", "", nets+"keep_up = yes"), "30s"},
		{site("b", "192.0.2.1", "dpd_delay = 7s", nets+"keep_up = yes"), "7s"},
		{site("b", "192.0.2.1", "", nets), "0s"},
	} {
		file := filepath.Join(t.TempDir(), "swanctl.conf")
		if err := os.WriteFile(file, []byte(conns(c.conf)), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := config.Load(file, config.Daemon{})
		switch {
		case strings.Contains(c.want, " "):
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		case err != nil:
			t.Error(err)
		case m.Peers[0].DPDDelay.String() != c.want:
			t.Errorf("dpd_delay is %v, want %s", m.Peers[0].DPDDelay, c.want)
		}
	}
}
