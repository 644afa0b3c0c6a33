package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/ike/wire"
	"adit/internal/config"
)

func daemon(t *testing.T, text string) (config.Daemon, error) {
	t.Helper()
	root, err := conf.ParseBytes("strongswan.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config.DecodeDaemon(root)
}

func TestRADIUSServers(t *testing.T) {
	d, err := daemon(t, `charon { plugins { eap-radius {
  nas_identifier = gate
  retransmit_timeout = 0.5
  class_group = yes
  accounting = no
  secret = 0123456789abcdef
  servers {
    one { address = 192.0.2.9
      preference = 10 }
    two { address = radius.example
      secret = short
      auth_port = 1645
      sockets = 4
      source = 192.0.2.1
      retransmit_base = 2
      retransmit_tries = 7 }
  } } } }`)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.RADIUS) != 2 || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0].Text, "charon.plugins.eap-radius.servers.two: a secret of 5 bytes") {
		t.Fatalf("%d servers, %v", len(d.RADIUS), d.Warnings)
	}
	a, b := d.RADIUS[0], d.RADIUS[1]
	if a.Name != "one" || a.Address != "192.0.2.9" || string(a.Secret) != "0123456789abcdef" || a.AuthPort != 1812 || a.Preference != 10 || a.Sockets != 1 ||
		a.NASIdentifier != "gate" || a.Timeout != 500*time.Millisecond || a.Base != 1.4 || a.Tries != 4 || a.Source.IsValid() {
		t.Errorf("%s: %v", a.Name, a)
	}
	if b.Address != "radius.example" || string(b.Secret) != "short" || b.AuthPort != 1645 || b.Sockets != 4 || b.Source.String() != "192.0.2.1" || b.Base != 2 || b.Tries != 7 || b.Preference != 0 {
		t.Errorf("%s: %v", b.Name, b)
	}
	d, err = daemon(t, "charon { plugins { eap-radius {\n server = 192.0.2.9\n secret = 0123456789abcdef\n } } }\nadit { plugins { eap-radius {\n server = 192.0.2.10\n secret = 0123456789abcdef\n } } }")
	if err != nil || len(d.RADIUS) != 1 || d.RADIUS[0].Address != "192.0.2.10" || d.RADIUS[0].Name != "primary" || d.RADIUS[0].NASIdentifier != "adit" {
		t.Errorf("%v %v", d.RADIUS, err)
	}
	d, err = daemon(t, "charon { plugins { eap-radius {\n load = yes\n dae {\n }\n forward {\n ike_to_radius = 11\n }\n } } }")
	if err != nil || len(d.RADIUS) != 0 || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0].Text, "charon.plugins.eap-radius.forward has no effect") {
		t.Errorf("%v %v", d.Warnings, err)
	}
	for text, want := range map[string]string{
		"servers {\n a {\n secret = x\n }\n}":             "strongswan.conf:3: charon.plugins.eap-radius.servers.a: the server's address is missing",
		"server = 192.0.2.9":                              "charon.plugins.eap-radius: the server's secret is missing",
		"server = 300.1.1.1":                              `"300.1.1.1" is no address and no host name`,
		"accounting = perhaps":                            "strongswan.conf:2: charon.plugins.eap-radius.accounting: expected yes or no",
		"dae {\n enable = yes\n}":                         "charon.plugins.eap-radius.dae: the secret is missing",
		"dae {\n lisen = 192.0.2.1\n}":                    "did you mean dae.listen?",
		"secert = x":                                      "did you mean secret?",
		"source = here":                                   `"here" is no address`,
		"nas_identifier = " + strings.Repeat("x", 254):    "longer than 253 bytes",
		"port = 0":                                        "does not support a random port",
		"servers {\n" + strings.Repeat("a", 0) + many(33): "more than 32 servers",
	} {
		if _, err := daemon(t, "charon { plugins { eap-radius {\n"+text+"\n} } }"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v", text, err)
		} else if strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("a secret is in %v", err)
		}
	}
}

func many(n int) (text string) {
	for i := range n {
		text += " s" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + " {\n address = 192.0.2.9\n secret = 0123456789abcdef\n }\n"
	}
	return text + "}"
}

func TestDaemonOfCertificates(t *testing.T) {
	d, err := daemon(t, "")
	if err != nil || d.FragmentSize != 1280 || d.MaxPacket != 10000 || d.NoSignatureAuth || d.RSAPSS || d.RADIUS != nil || d.Attributes != nil {
		t.Errorf("%+v %v", d, err)
	}
	d, err = daemon(t, "charon {\n fragment_size = 576\n max_packet = 65535\n signature_authentication = no\n rsa_pss = yes\n dns1 = 192.0.2.53\n nbns2 = 192.0.2.42\n plugins {\n attr {\n load = yes\n split-include = 10.0.0.0/8\n 25 = corp.example\n }\n }\n}")
	if err != nil || d.FragmentSize != 576 || d.MaxPacket != 65535 || !d.NoSignatureAuth || !d.RSAPSS || len(d.Warnings) != 0 {
		t.Errorf("%+v %v", d, err)
	}
	if len(d.Attributes) != 4 || d.Attributes[0].Type != wire.InternalIP4DNS || d.Attributes[1].Type != wire.InternalIP4NBNS || d.Attributes[2].Type != 28676 || string(d.Attributes[3].Value) != "corp.example" {
		t.Errorf("%v", d.Attributes)
	}
	for text, want := range map[string]string{"fragment_size = 575": "576 is the least", "max_packet = 1000": "1280 is the least", "dns1 = here": `"here" is no address`, "rsa_pss = perhaps": "expected yes or no"} {
		if _, err := daemon(t, "charon {\n "+text+"\n}"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "strongswan.conf:2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	d, err = daemon(t, "charon {\n plugins {\n whitelist {\n load = yes\n enable = no\n }\n }\n}")
	if err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0].Text, "charon.plugins.whitelist.enable has no effect") {
		t.Errorf("%v %v", d.Warnings, err)
	}
	file := filepath.Join(t.TempDir(), "strongswan.conf")
	if err := os.WriteFile(file, []byte("charon { plugins { eap-radius {\n server = 192.0.2.9\n secret = 0123456789abcdef\n } } }"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, err := config.LoadDaemon(file); err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0].Text, "others may read it") {
		t.Errorf("%v %v", d.Warnings, err)
	}
}
