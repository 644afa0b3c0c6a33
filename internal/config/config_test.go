package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
)

const siteToSite = `
tmpl { rekey_time = 2h }
connections {
  gw : tmpl {
    version = 2
    local_addrs  = 192.0.2.1
    remote_addrs = 192.0.2.2, gw.example.net, 198.51.100.0/24, 203.0.113.5-203.0.113.9
    proposals = aes256gcm16-prfsha384-ecp384, default
    encap = auto
    dpd_delay = 30s
    keyingtries = 0
    unique = replace
    dscp = 101110
    local { auth = psk
      id = moon.example.net }
    remote { auth = psk
      id = sun@example.net }
    children {
      net {
        local_ts = 10.1.0.0/16, fd01::/64[tcp/443]
        remote_ts = 10.2.0.0/16
        esp_proposals = aes128gcm16-x25519-esn
        start_action = trap|start
        close_action = restart
        dpd_action = clear
        life_time = 1h
        rekey_bytes = 500m
        tfc_padding = mtu
        copy_dscp = no
        copy_df = no
        mode = tunnel
      }
      host { mode = transport }
      lan { mode = pass
        local_ts = 10.1.0.0/16
        remote_ts = 10.1.0.0/16 }
    }
  }
}
secrets {
  ike-sun { id-1 = moon.example.net
    id-2 = sun@example.net
    secret = 0x000102030405060708090a0b0c0d0e0f }
  ike { secret = "plain text of a secret" }
}
`

func decode(t *testing.T, text string) (*config.Model, error) {
	t.Helper()
	root, err := conf.ParseBytes("test.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d, err := config.LoadDaemon("")
	if err != nil {
		t.Fatal(err)
	}
	return config.Decode(root, d)
}

func TestDecode(t *testing.T) {
	m, err := decode(t, siteToSite)
	if err != nil {
		t.Fatal(err)
	}
	p := m.Peers[0]
	if p.Name != "gw" || p.RekeyTime != 2*time.Hour || p.OverTime != 12*time.Minute || p.RandTime != 12*time.Minute ||
		p.DPDDelay != 30*time.Second || p.Unique != ike.UniqueReplace || p.DSCP != 46 || p.Version != 2 || p.KeyingTries != 0 {
		t.Errorf("connection: %+v", p)
	}
	if len(p.RemoteAddrs) != 4 || p.RemoteAddrs[1].Host != "gw.example.net" || p.RemoteAddrs[3].To != netip.MustParseAddr("203.0.113.9") {
		t.Errorf("remote_addrs: %+v", p.RemoteAddrs)
	}
	if p.Proposals[0].String() != "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384" || len(p.Proposals) < 2 {
		t.Errorf("proposals: %v", p.Proposals)
	}
	if got := p.Remote[0].ID.String(); got != "sun@example.net" {
		t.Errorf("remote id %q", got)
	}
	c := p.Children[0]
	if c.StartAction != ike.ActionTrap|ike.ActionStart || c.CloseAction != ike.ActionStart || c.DPDAction != ike.ActionNone ||
		c.TFC != ipsec.TFCToMTU || c.CopyDSCP != ipsec.DSCPNone || c.DF != ipsec.DFClear || c.ReplayWindow != 4096 {
		t.Errorf("child: %+v", c)
	}
	if c.Local[1].String() != "fd01::/64[tcp/443]" {
		t.Errorf("local_ts %v", c.Local)
	}
	// strongSwan's rules: the soft bound is the hard one / 1.1, the hard one the soft one + 10 %.
	if c.LifeTime != time.Hour || c.RekeyTime > 55*time.Minute || c.RekeyTime < 54*time.Minute || c.RandTime != c.LifeTime-c.RekeyTime {
		t.Errorf("times %v %v %v", c.RekeyTime, c.LifeTime, c.RandTime)
	}
	if c.RekeyBytes != 500<<20 || c.LifeBytes != 500<<20+50<<20 {
		t.Errorf("bytes %d %d", c.RekeyBytes, c.LifeBytes)
	}
	if h := p.Child("host"); h.Mode != ipsec.ModeTransport || !h.Local[0].IsDynamic() || h.RekeyTime != time.Hour {
		t.Errorf("host: %+v", h)
	}
	if p.Child("lan").Action != ipsec.Bypass {
		t.Error("mode = pass is no bypass policy")
	}
	if s := m.Secrets[0]; len(s.Key) != 16 || s.Key[15] != 15 || len(s.Owners) != 2 {
		t.Errorf("secret: %v", s.Owners)
	}
	if s := m.Secrets[1]; string(s.Key) != "plain text of a secret" || len(s.Owners) != 0 {
		t.Error("the second secret is wrong")
	}
}

// Every error names file, line and option, and the nearest one that exists.
func TestErrors(t *testing.T) {
	conn := func(body string) string {
		return "connections {\n gw {\n  local { auth = psk\n }\n  remote { auth = psk\n }\n" + body + "\n }\n}\n"
	}
	for _, c := range []struct{ name, text, want string }{
		{"misspelt option", conn("  rekey_tme = 4h"), "test.conf:7: connections.gw.rekey_tme: unknown option; did you mean rekey_time?"},
		{"misspelt section", conn("  childern { }"), "connections.gw.childern: unknown section; did you mean children?"},
		{"misspelt child option", conn("  children {\n   net {\n    remote_tss = 10.0.0.0/8\n   }\n  }"), "test.conf:9: connections.gw.children.net.remote_tss: unknown option; did you mean remote_ts?"},
		{"mobility", conn("  mobike = yes\n  version = 0"), ""},
		{"no mobility", conn("  mobike = no"), ""},
		{"no value", conn("  mobike = maybe"), "test.conf:7: connections.gw.mobike"},
		{"of IKEv1 alone", conn("  aggressive = yes\n  pull = no\n  dpd_timeout = 2m"), ""},
		{"post-quantum key", conn("  ppk_id = carol\n  ppk_required = yes"), ""},
		{"empty PPK_ID", conn("  ppk_id = \"\""), "ppk_id"},
		{"mediation", conn("  mediated_by = m"), "connections.gw.mediated_by: mediation is a protocol of strongSwan's own"},
		{"pubkey", "connections {\n gw {\n  local { auth = pubkey\n }\n  remote { auth = psk\n }\n }\n}", ""},
		{"no auth", "connections {\n gw {\n  remote { auth = psk\n }\n }\n}", ""},
		{"off in other words", conn("  mobike = false\n  send_cert = ifasked\n  fragmentation = 0\n  pull = enabled"), ""},
		{"a wish for OCSP", conn("  ocsp = both"), ""},
		{"interface IDs", conn("  if_id_in = 42"), "an interface ID names an XFRM interface of the kernel"},
		{"offload", conn("  children {\n   net {\n    hw_offload = crypto\n   }\n  }"), "ESP is made in user space here"},
		{"too many selectors", conn("  children {\n   net {\n    local_ts = " + strings.Repeat("10.0.0.0/8, ", 255) + "10.0.0.0/8\n   }\n  }"), "more than 255 traffic selectors"},
		{"too many proposals", conn("  proposals = " + strings.Repeat("default, ", 100) + "default"), "more than 100 proposals"},
		{"too many addresses", conn("  remote_addrs = " + strings.Repeat("192.0.2.1, ", 64) + "192.0.2.1"), "more than 64 addresses"},
		{"bad proposal", conn("  proposals = aes256gmc16-x25519"), "aes256gcm16"},
		{"unauthenticated encryption", conn("  children {\n   net {\n    esp_proposals = aes256\n   }\n  }"), "integrity"},
		{"bad action", conn("  children {\n   net {\n    dpd_action = strat\n   }\n  }"), "did you mean start?"},
		{"marks", conn("  children {\n   net {\n    mark_in = 42\n   }\n  }"), "marks cannot work with a TUN device"},
		{"IKEv1", conn("  version = 1"), ""},
		{"a version to come", conn("  version = 3"), "connections.gw.version"},
		{"EAP in IKEv1", "connections {\n gw {\n  version = 1\n  local { auth = eap\n }\n  remote { auth = psk\n }\n }\n}", "test.conf:2: connections.gw: EAP belongs to IKEv2"},
		{"bad address", conn("  remote_addrs = 300.1.2.3"), `"300.1.2.3" is no address`},
		{"bad time", conn("  rekey_time = 4 weeks"), "unit of time"},
		{"soft after hard", conn("  children {\n   net {\n    rekey_time = 2h\n    life_time = 1h\n   }\n  }"), "rekey_time is longer than life_time"},
		{"post-quantum secret", "secrets {\n ppk-1 {\n  secret = x\n  id = carol\n }\n}", ""},
		{"post-quantum secret without one", "secrets {\n ppk-1 {\n  id = carol\n }\n}", "test.conf:2: secrets.ppk-1: there is no secret in it"},
		{"token", "secrets {\n token1 {\n  handle = 0815\n }\n}", "test.conf:2: secrets.token1: adit does not support tokens"},
		{"secret misspelt", "secrets {\n iek {\n  secret = x\n }\n}", "secrets.iek: unknown section; did you mean ike?"},
		{"no secret", "secrets {\n eap-1 {\n  id = alice\n }\n}", "test.conf:2: secrets.eap-1: there is no secret in it"},
		{"NT hash", "secrets {\n ntlm-1 {\n  secret = 0x0102\n }\n}", "secrets.ntlm-1: an NT hash has 16 bytes"},
		{"hex", "secrets {\n eap-1 {\n  secret = 0x010\n }\n}", "test.conf:3: secrets.eap-1.secret: 0x is not followed by hexadecimal digits"},
		{"a value among secrets", "secrets {\n ike = x\n}", "test.conf:2: secrets.ike: a secret is a section"},
		{"passphrase without a file", "secrets {\n rsa-1 {\n  secret = x\n }\n}", "test.conf:2: secrets.rsa-1: needs a file and its secret"},
		{"pool without addresses", "pools {\n p {\n  dns = 10.0.0.1\n }\n}", "test.conf:2: missing addrs for pool 'p'"},
		{"pool of nonsense", "pools {\n p {\n  addrs = 10.0.0.0/33\n }\n}", "test.conf:3: pools.p.addrs: \"10.0.0.0/33\" is no prefix"},
		{"pool backwards", "pools {\n p {\n  addrs = 10.0.0.9-10.0.0.1\n }\n}", "is no prefix"},
		{"pool of two families", "pools {\n p {\n  addrs = 10.0.0.9-fd00::1\n }\n}", "is no prefix"},
		{"attribute misspelt", "pools {\n p {\n  addrs = 10.0.0.0/24\n  dsn = 10.0.0.1\n }\n}", "test.conf:4: pools.p.dsn: unknown attribute: a name or the number of its type is possible; did you mean dns?"},
		{"attribute of nonsense", "pools {\n p {\n  addrs = 10.0.0.0/24\n  dns = example\n }\n}", "pools.p.dns: \"example\" is no address"},
		{"attribute too large a number", "pools {\n p {\n  addrs = 10.0.0.0/24\n  32768 = x\n }\n}", "unknown attribute"},
		{"authority without certificate", "authorities {\n a {\n  crl_uris = http://a/b\n }\n}", "test.conf:2: CA certificate missing: a"},
		{"authority's certificate", "authorities {\n a {\n  cacert = root.pem\n }\n}", "test.conf:3: authorities.a.cacert: \"root.pem\": a file name must be absolute"},
		{"authority on a token", "authorities {\n a {\n  handle = 08\n }\n}", "authorities.a.handle: adit does not support tokens"},
		{"authority misspelt", "authorities {\n a {\n  crl_uri = x\n }\n}", "did you mean crl_uris?"},
		{"no URI", "authorities {\n a {\n  ocsp_uris = example\n }\n}", "authorities.a.ocsp_uris: \"example\" is no URI"},
		{"top level", "conections {\n}", "did you mean connections?"},
		{"reqid", conn("  children {\n   net {\n    reqid = -1\n   }\n  }"), "reqid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(t, c.text)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got error %v, want it to contain %q", err, c.want)
			}
		})
	}
}

// All errors of a file are told at once.
func TestAllErrors(t *testing.T) {
	_, err := decode(t, "connections {\n gw {\n  versoin = 2\n  encapp = yes\n  local { auth = psk }\n  remote { auth = psk }\n }\n}\n")
	if err == nil || !strings.Contains(err.Error(), "test.conf:3") || !strings.Contains(err.Error(), "test.conf:4") {
		t.Errorf("got %v", err)
	}
}

// A connection that only has bypass and discard policies needs no authentication.
func TestOnlyShunts(t *testing.T) {
	m, err := decode(t, "connections {\n pass {\n  children {\n   lan { mode = pass\n    local_ts = 10.0.0.0/8\n    remote_ts = 10.0.0.0/8 }\n  }\n }\n}\n")
	if err != nil || !m.Peers[0].OnlyShunts() {
		t.Errorf("%v", err)
	}
}

func TestWarnings(t *testing.T) {
	m, err := decode(t, `connections { gw {
  proposals = aes128-sha1-modp1024
  local { auth = psk }
  remote { auth = psk }
  } }
secrets { ike { secret = short } }`)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, w := range m.Warnings {
		text += w.Text + "\n"
	}
	for _, want := range []string{"MODP_1024", "HMAC_SHA1", "can be guessed"} {
		if !strings.Contains(text, want) {
			t.Errorf("no warning about %s in:\n%s", want, text)
		}
	}
}

func TestSecretsReadableByOthers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "swanctl.conf")
	for mode, want := range map[os.FileMode]int{0o644: 1, 0o600: 0} {
		if err := os.WriteFile(file, []byte("secrets {\n ike {\n secret = 0123456789abcdef0123\n }\n}\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		d, _ := config.LoadDaemon("")
		m, err := config.Load(file, d)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Warnings) != want {
			t.Errorf("mode %v: warnings %v", mode, m.Warnings)
		}
	}
}

func TestDaemon(t *testing.T) {
	root, err := conf.ParseBytes("strongswan.conf", []byte(`charon { retransmit_timeout = 0.5
  retransmit_tries = 3
  keep_alive = 0
  make_before_break = no
  plugins { vici { socket = unix:///tmp/x } } }
adit { retransmit_tries = 2 }`))
	if err != nil {
		t.Fatal(err)
	}
	d, err := config.DecodeDaemon(root)
	if err != nil {
		t.Fatal(err)
	}
	if d.Retransmit.Timeout != 500*time.Millisecond || d.Retransmit.Tries != 2 || d.KeepAlive >= 0 || !d.BreakBeforeMake || d.VICISocket != "unix:///tmp/x" {
		t.Errorf("%+v", d)
	}
}

func TestDecodeSecret(t *testing.T) {
	b := conf.New("")
	b.Set("type", "IKE")
	b.Set("data", "key")
	b.SetList("owners", "sun.example.net", "%any")
	s, err := config.DecodeSecret(b)
	if err != nil || string(s.Key) != "key" || len(s.Owners) != 1 {
		t.Errorf("%v %v", s.Owners, err)
	}
	if _, err := config.DecodeSecret(conf.New("")); err == nil || err.Error() != "shared key type missing" {
		t.Error(err)
	}
}

// Every value of a life that has no bound stays one: nothing turns negative.
func TestLongLives(t *testing.T) {
	m, err := decode(t, "connections { gw {\n local { auth = psk\n }\n remote { auth = psk\n }\n rekey_time = 90000d\n rand_time = 99999d\n children { c {\n rekey_time = 106751d\n"+
		" rand_time = 106751d\n rekey_bytes = 18446744073709551615\n rekey_packets = 100\n rand_packets = 200\n } } } }")
	if err != nil {
		t.Fatal(err)
	}
	p := m.Peers[0]
	c := p.Children[0]
	if c.LifeTime < c.RekeyTime || c.RandTime > c.RekeyTime || c.LifeBytes < c.RekeyBytes || c.RandPackets > c.RekeyPackets || p.RandTime > p.RekeyTime || p.OverTime < 0 {
		t.Errorf("%+v %+v", p, c)
	}
}

func TestDaemonFile(t *testing.T) {
	t.Setenv("STRONGSWAN_CONF", "/somewhere/else.conf")
	if got := config.DaemonFile(""); got != "/somewhere/else.conf" {
		t.Error(got)
	}
	if got := config.DaemonFile("/named.conf"); got != "/named.conf" {
		t.Error(got)
	}
	t.Setenv("STRONGSWAN_CONF", "")
	if got := config.DaemonFile(""); got != "" {
		t.Error(got)
	}
}

func TestDaemonWarnsAndRefuses(t *testing.T) {
	daemon := func(text string) (config.Daemon, error) {
		root, err := conf.ParseBytes("strongswan.conf", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return config.DecodeDaemon(root)
	}
	d, err := daemon("charon {\n load_modular = yes\n retransmit_tmeout = 3\n cookie_threshold = 0\n retransmit_tries = 0\n delete_rekeyed_delay = 0\n}\nswanctl {\n load = pem\n}\n")
	if err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0].Text, "did you mean retransmit_timeout?") {
		t.Errorf("%v %v", d.Warnings, err)
	}
	if d.CookieThreshold < 1<<30 || d.Retransmit.Tries >= 0 || d.DeleteRekeyedDelay > time.Millisecond || d.DeleteRekeyedDelay <= 0 {
		t.Errorf("0 is not what strongSwan means by it: %+v", d)
	}
	for _, bad := range []string{"adit {\n prot = 500\n}", "charon {\n port = 0\n}", "charon {\n retransmit_base = NaN\n}", "charon {\n retransmit_timeout = nan\n}",
		"charon {\n retransmit_jitter = 21\n}", "charon {\n port = 70000\n}"} {
		if _, err := daemon(bad); err == nil || !strings.Contains(err.Error(), "strongswan.conf:2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What the parser finds odd is a warning: here an include without a file.
func TestParserWarnings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swanctl.conf")
	if err := os.WriteFile(file, []byte("include missing.conf\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := config.LoadDaemon("")
	m, err := config.Load(file, d)
	if err != nil || len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0].Text, "missing.conf") {
		t.Errorf("%+v %v", m, err)
	}
	if d, err = config.LoadDaemon(file); err != nil || len(d.Warnings) != 1 {
		t.Errorf("%v %v", d.Warnings, err)
	}
}

// FuzzDecodeConn decodes bodies of VICI's load-conn and load-shared.
func FuzzDecodeConn(f *testing.F) {
	f.Add(siteToSite)
	f.Add("local { auth = psk\n }\nremote { auth = psk\n }\nchildren { c { local_ts = 10.0.0.0/8\n rekey_time = 1h\n } }")
	f.Add("type = ike\ndata = secret\nowners = a, b")
	f.Add("pools = a, b\nvips = 0.0.0.0\nlocal1 { auth = eap-tls:rsa-2048-sha256\n id = \"C=CH, CN=moon\"\n }\nremote { auth = ike:rsa/pss-sha384\n cert_policy = 1.2.3\n revocation = strict\n groups = a\n }")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := conf.ParseBytes("fuzz", []byte(text))
		if err != nil {
			return
		}
		d, _ := config.LoadDaemon("")
		p, err := config.DecodeConn("c", root, d)
		if err == nil && (p == nil || !p.OnlyShunts() && (len(p.Local) == 0 || len(p.Remote) == 0) || len(p.Proposals) == 0) {
			t.Fatalf("no error and yet incomplete: %+v", p)
		}
		if s, err := config.DecodeSecret(root); err == nil && len(s.Key) == 0 {
			t.Fatal("a secret without a key")
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(siteToSite)
	f.Add("pools { p { addrs = fd00::/64\n dns = 1.2.3.4\n 25 = example } }\nauthorities { a { crl_uris = http://x/y } }\nsecrets { eap-a { id = b\n secret = 0x00 }\n ntlm { secret = 0s }\n rsa { file = x\n secret = y } }")
	f.Add("charon { fragment_size = 576\n dns1 = ::1\n plugins { attr { 25 = x\n subnet = 10.0.0.0/8 }\n eap-radius { servers { a { address = ::1\n secret = x\n port = 1 } } } } }")
	f.Add("connections { a { children { b { local_ts = dynamic[tcp/ssh-http] } } } }")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := conf.ParseBytes("fuzz", []byte(text))
		if err != nil {
			return
		}
		d, _ := config.LoadDaemon("")
		m, err := config.Decode(root, d)
		if err == nil && m == nil {
			t.Fatal("neither a model nor an error")
		}
		if _, err := config.DecodeDaemon(root); err != nil {
			return
		}
	})
}
